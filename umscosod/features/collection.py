"""The features of a whole collection.

Legend: ``N`` images, ``P`` patches, ``D`` token width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import overload

from umscosod.config import PipelineConfig
from umscosod.features.assembly import STREAMS, Assembler
from umscosod.features.backbone import Backbone
from umscosod.features.cache import FeatureCache
from umscosod.features.encodings import Encodings, Memory
from umscosod.features.group import SHRINKAGE, Whitening, fit_whitening
from umscosod.features.registry import BackbonePair
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import FloatArray, GroupFeatures, ImageGroup

_REMEMBERED_BYTES = 64 * 2**20  # of saliencies: 20,000 images


class FeatureCollection(Sequence[GroupFeatures]):
    """Features of all groups, on disk; indexing gives one group, whose arrays are read when they are asked for.

    Parameters
    ----------
    groups : sequence of ImageGroup
    pair : BackbonePair
    config : PipelineConfig
    cache : FeatureCache
    whitenings : mapping of str to Whitening, optional
        By stream, ``first`` and ``second``: those of a checkpoint. Missing ones are fitted to this collection.
    progress : callable
        Called once per image as stage ``features``.

    Attributes
    ----------
    groups : tuple of ImageGroup
        Only images that could be encoded, and only groups that have any left.
    failures : dict of str to str
        Reason by image id.
    whitenings : dict of str to Whitening
        Empty unless a backbone asks for it.
    sha256 : dict of str to str
        Hash of each usable file.
    """

    def __init__(
        self,
        groups: Sequence[ImageGroup],
        pair: BackbonePair,
        config: PipelineConfig,
        cache: FeatureCache,
        *,
        whitenings: Mapping[str, Whitening] | None = None,
        progress: ProgressFn = ignore_progress,
    ) -> None:
        self.pair, self.config, self.cache = pair, config, cache
        self._saliencies = Memory(_REMEMBERED_BYTES)
        self._encodings = Encodings(pair, config, cache)
        self._encodings.make([image for group in groups for image in group.images], progress)
        self.failures, self.sha256 = self._encodings.failures, self._encodings.sha256
        self.groups = tuple(
            replace(group, images=left)
            for group in groups
            if (left := tuple(image for image in group.images if image.id in self._encodings))
        )
        self.whitenings: dict[str, Whitening] = {}
        for stream, backbone in zip(STREAMS, self._backbones, strict=True):
            if not backbone.needs_whitening:
                continue
            if whitenings and stream in whitenings:
                self.whitenings[stream] = whitenings[stream]
            elif self.groups:
                self.whitenings[stream] = fit_whitening(self._iter_tokens(stream), SHRINKAGE)

    def __len__(self) -> int:
        """Count the groups."""
        return len(self.groups)

    @overload
    def __getitem__(self, index: int) -> GroupFeatures: ...

    @overload
    def __getitem__(self, index: slice) -> list[GroupFeatures]: ...

    def __getitem__(self, index: int | slice) -> GroupFeatures | list[GroupFeatures]:
        """Load one group from the cache; a slice loads all of its groups at once."""
        if isinstance(index, slice):
            return [self.load(group) for group in self.groups[index]]
        return self.load(self.groups[index])

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """Count images as failures, by id with the reason, and take them out of `groups`; whitenings stay."""
        self.failures.update(reasons)
        self.groups = tuple(
            replace(group, images=left)
            for group in self.groups
            if (left := tuple(image for image in group.images if image.id not in reasons))
        )

    @property
    def _backbones(self) -> tuple[Backbone, Backbone]:
        return self.pair.first, self.pair.second

    def load(self, group: ImageGroup) -> GroupFeatures:
        """Features of a group: whitened and sharpened where the backbone asks for it, each read when it is asked for.

        Parameters
        ----------
        group : ImageGroup
            Of `groups`.

        Returns
        -------
        GroupFeatures
            See `umscosod.features.assembly.Assembler.assemble`.

        Raises
        ------
        DataError
            Later, when an array is asked for: an entry of the cache is gone and cannot be made again.
        """
        assembler = Assembler(pair=self.pair, whitenings=self.whitenings)
        ids = tuple(image.id for image in group.images)
        return assembler.assemble(group, self._encodings.read, lambda make: self._saliencies.get(ids, make))

    def _iter_tokens(self, stream: str) -> Iterator[FloatArray]:
        for group in self.groups:
            for image in group.images:
                yield self._encodings.read(image, stream, "tokens")
