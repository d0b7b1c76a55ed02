"""The features of a whole collection.

Legend: ``N`` images, ``P`` patches, ``D`` token width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from umscosod.config import PipelineConfig
from umscosod.data.images import decode_image, image_sha256, square_picture
from umscosod.errors import DataError
from umscosod.features.backbone import Backbone
from umscosod.features.cache import Arrays, FeatureCache, format_bytes
from umscosod.features.group import SHRINKAGE, STREAMS, EncodedPicture, Whitening, assemble_group, fit_whitening
from umscosod.features.registry import BackbonePair
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import ByteArray, EncodedImage, FloatArray, GroupFeatures, ImageGroup, ImageRef

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """Cache keys of one image: the picture at network size, and its encoding by either backbone."""

    picture: str
    streams: tuple[str, str]


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
        self.failures: dict[str, str] = {}
        self.sha256: dict[str, str] = {}
        self._entries: dict[str, _Entry] = {}
        self._encode(groups, progress)
        self.groups = tuple(
            replace(group, images=left)
            for group in groups
            if (left := tuple(image for image in group.images if image.id in self._entries))
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
        entry = self._entries[image.id]
        picture = self._read(image, entry.picture)
        first, second = (
            EncodedImage(
                tokens_PD=arrays["tokens"], keys_PK=arrays["keys"], attn_AP=arrays["attn"], grid_hw=backbone.grid_hw
            )
            for backbone, arrays in zip(self._backbones, (self._read(image, key) for key in entry.streams), strict=True)
        )
        size_hw = (int(picture["size"][0]), int(picture["size"][1]))
        return EncodedPicture(picture_HW3=picture["picture"], size_hw=size_hw, streams=(first, second))

    def _iter_tokens(self, stream: str) -> Iterator[FloatArray]:
        index = STREAMS.index(stream)
        for group in self.groups:
            for image in group.images:
                yield self._read(image, self._entries[image.id].streams[index])["tokens"]

    def _encode(self, groups: Sequence[ImageGroup], progress: ProgressFn) -> None:
        """Find every image's entries and make those that are missing, after a look at the disk."""
        images = [image for group in groups for image in group.images]
        for image in images:
            self._attempt(image, self._locate)
        lacking = [image.id for image in images if image.id in self._entries and self._missing(self._entries[image.id])]
        for done, image in enumerate(images):
            progress(done, len(images), "features")
            if image.id in self._entries and (keys := self._missing(self._entries[image.id])):
                self._attempt(image, self._complete)
                if lacking:  # the first one made tells what the others will take
                    size = sum(self.cache.size(key) or 0 for key in keys)
                    logger.info("%d images to encode, about %s", len(lacking), format_bytes(size * len(lacking)))
                    self.cache.check_free(size * (len(lacking) - 1))
                    lacking = []
        progress(len(images), len(images), "features")

    def _attempt(self, image: ImageRef, step: Callable[[ImageRef], None]) -> None:
        """Do one step for an image; an image that cannot be used is reported and left out."""
        try:
            step(image)
        except DataError as error:
            self._entries.pop(image.id, None)
            self.sha256.pop(image.id, None)
            self.failures[image.id] = str(error)
            logger.warning("%s: left out: %s", image.id, error)

    def _locate(self, image: ImageRef) -> None:
        """Name the cache entries of an image by what is in the file."""
        sha256 = image_sha256(image.path)
        data, size_px = self.config.data, self.config.features.size_px
        # with the limits in the key, a picture that is refused under other limits is not taken from the cache
        limits = (str(data.max_pixels), str(data.min_side_px))
        self._entries[image.id] = _Entry(
            picture=self.cache.key(sha256, "picture", str(size_px), *limits),
            streams=(self.cache.key(sha256, self.pair.first.id), self.cache.key(sha256, self.pair.second.id)),
        )
        self.sha256[image.id] = sha256

    def _complete(self, image: ImageRef) -> None:
        entry = self._entries[image.id]
        self._fill(image, entry, self._missing(entry))

    def _missing(self, entry: _Entry) -> list[str]:
        return [key for key in (entry.picture, *entry.streams) if self.cache.size(key) is None]

    def _fill(self, image: ImageRef, entry: _Entry, keys: Sequence[str]) -> None:
        """Decode an image once and write the entries it lacks.

        Raises
        ------
        DataError
            It cannot be decoded, or is no longer the file whose hash is in the keys.
        """
        data = self.config.data
        try:
            picture_HW3 = decode_image(image.path, max_pixels=data.max_pixels, min_side_px=data.min_side_px)
        finally:
            # Looked at after the pixels were read and before anything is written. A file caught half-written also
            # decodes with an error of its own; that it was changed is what the user needs to know.
            if image_sha256(image.path) != self.sha256[image.id]:
                raise DataError(f"{image.path}: the file was changed while it was in use; run again")
        if entry.picture in keys:
            self.cache.put(entry.picture, _picture_arrays(picture_HW3, self.config.features.size_px))
        for key, backbone in zip(entry.streams, self._backbones, strict=True):
            if key in keys:
                self.cache.put(key, _encoding_arrays(backbone.encode([picture_HW3])[0]), {"backbone": backbone.id})

    def _read(self, image: ImageRef, key: str) -> Arrays:
        """Read an entry; one that was pruned or damaged since it was written is made again.

        Raises
        ------
        DataError
            It cannot be made again: the file is gone, or no longer the one whose hash is in the key.
        """
        arrays = self.cache.get(key)
        if arrays is None:
            self._fill(image, self._entries[image.id], [key])
            arrays = self.cache.get(key)
        if arrays is None:
            raise DataError(
                f"{image.path}: its features vanish from the cache {self.cache.root} as fast as they are written"
            )
        return arrays


def _picture_arrays(picture_HW3: ByteArray, size_px: int) -> Arrays:
    return {"picture": square_picture(picture_HW3, size_px), "size": np.asarray(picture_HW3.shape[:2], np.int64)}


def _encoding_arrays(encoded: EncodedImage) -> Arrays:
    return {"tokens": encoded.tokens_PD, "keys": encoded.keys_PK, "attn": encoded.attn_AP}
