"""The features of a whole collection.

Legend: ``N`` images, ``P`` patches, ``D`` token width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import overload

from umscosod.config import PipelineConfig
from umscosod.features.backbone import Backbone
from umscosod.features.cache import FeatureCache
from umscosod.features.encodings import Encodings
from umscosod.features.group import SHRINKAGE, STREAMS, EncodedPicture, Whitening, assemble_group, fit_whitening
from umscosod.features.registry import BackbonePair
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import EncodedImage, FloatArray, GroupFeatures, ImageGroup, ImageRef


class FeatureCollection(Sequence[GroupFeatures]):
    """Features of all groups, on disk; indexing loads one group.

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
        """Load a group's features: whitened and sharpened where the backbone asks for it.

        Parameters
        ----------
        group : ImageGroup
            Of `groups`.

        Returns
        -------
        GroupFeatures
            See `umscosod.features.group.assemble_group`.
        """
        return assemble_group(group, list(map(self._encoded, group.images)), self.pair, self.whitenings)

    def _encoded(self, image: ImageRef) -> EncodedPicture:
        entry = self._encodings.entry(image)
        picture = self._encodings.read(image, entry.picture)
        first, second = (
            EncodedImage(
                tokens_PD=arrays["tokens"], keys_PK=arrays["keys"], attn_AP=arrays["attn"], grid_hw=backbone.grid_hw
            )
            for backbone, arrays in zip(
                self._backbones, (self._encodings.read(image, key) for key in entry.streams), strict=True
            )
        )
        size_hw = (int(picture["size"][0]), int(picture["size"][1]))
        return EncodedPicture(picture_HW3=picture["picture"], size_hw=size_hw, streams=(first, second))

    def _iter_tokens(self, stream: str) -> Iterator[FloatArray]:
        index = STREAMS.index(stream)
        for group in self.groups:
            for image in group.images:
                yield self._encodings.read(image, self._encodings.entry(image).streams[index])["tokens"]
