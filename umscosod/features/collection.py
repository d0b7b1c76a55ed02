"""The features of a collection: each image encoded once, several at a time, or found in the cache by its content.

Legend: ``N`` images, ``P`` patches, ``D`` token width, ``H W`` pixels.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import numpy.typing as npt

from umscosod.config import PipelineConfig
from umscosod.data.images import count_pixels, decode_image, image_sha256
from umscosod.device import count_cores
from umscosod.engine import Engine
from umscosod.errors import CacheError, DataError
from umscosod.features.backbone import BackbonePair
from umscosod.features.cache import FeatureCache, format_bytes
from umscosod.features.group import (
    PICTURE,
    STREAMS,
    Moments,
    Whitening,
    assemble,
    picture_arrays,
    stream_arrays,
    token_moments,
    whiten_moments,
)
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import ByteArray, GroupFeatures, ImageGroup, ImageRef

logger = logging.getLogger(__name__)

_MOST_THREADS = 8
_MOST_PIXELS = 32_000_000  # of a batch, unless one picture alone has more: two batches are in memory at a time

_REMEMBERED_BYTES = 192 * 2**20


class Memory:
    """Arrays kept in memory until they fill a limit.

    What came first stays: a job goes over its collection again and again, in which what was used last is what it needs
    last.

    Parameters
    ----------
    most_bytes : int
    """

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._arrays: dict[Hashable, npt.NDArray[Any]] = {}

    def get(self, key: Hashable, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Give the array of a key, read-only; made where it is not there."""
        if key not in self._arrays:
            array = make()
            array.flags.writeable = False
            if array.nbytes > self._left:
                return array
            self._left -= array.nbytes
            self._arrays[key] = array
        return self._arrays[key]


_Decoding = tuple[int, ImageRef, Future[ByteArray]]  # with the place of the image in the collection
_Decoded = tuple[ImageRef, ByteArray]


class Encodings:
    """Encodings of images, by image.

    Parameters
    ----------
    pair : BackbonePair
    config : PipelineConfig
    cache : FeatureCache

    Attributes
    ----------
    failures : dict of str to str
        Reason by image id.
    sha256 : dict of str to str
        Hash of each usable file.
    """

    def __init__(self, pair: BackbonePair, config: PipelineConfig, cache: FeatureCache) -> None:
        self.pair, self.config, self.cache = pair, config, cache
        self.failures: dict[str, str] = {}
        self.sha256: dict[str, str] = {}
        self._keys: dict[str, dict[str, str]] = {}  # of the cache, by image id and part
        self._memory = Memory(_REMEMBERED_BYTES)

    def make(self, images: Sequence[ImageRef], progress: ProgressFn) -> None:
        """Find every image's entries and make those that are missing, after a look at the disk.

        Pictures are decoded in threads, a batch ahead of the backbones. An image that cannot be used is a failure, and
        the others go on.

        Parameters
        ----------
        images : sequence of ImageRef
        progress : callable
            Called once per image as stage ``features``.

        Raises
        ------
        CacheError
            The features do not fit on the disk, or it cannot be written.
        """
        lacking: dict[int, int] = {}
        for at, image in enumerate(images):
            try:
                pixels = self._locate(image)
            except DataError as error:
                self._leave_out(image, error)
            else:
                if pixels is not None:
                    lacking[at] = pixels
        told, is_checked = 0, False
        progress(0, len(images), "features")
        with contextlib.closing(self._iter_decoded(lacking, images)) as batches:
            for batch in batches:
                self._encode(batch)
                place = batch[-1][0]
                is_checked = is_checked or self._check_disk(images[place], sum(at > place for at in lacking))
                for at in range(told, place + 1):
                    progress(at + 1, len(images), "features")
                told = place + 1
        for at in range(told, len(images)):
            progress(at + 1, len(images), "features")

    def make_by(self, engine: Engine, sent: BackbonePair, images: Sequence[ImageRef], progress: ProgressFn) -> None:
        """As `make`, with the images shared out among the workers of an engine, which write to the same cache.

        Parameters
        ----------
        engine : Engine
        sent : BackbonePair
            The pair, in a form that can be sent.
        images : sequence of ImageRef
        progress : callable
            Called once per image as stage ``features``.

        Raises
        ------
        CacheError
            As `make`; or what a worker has written is not seen here.
        """
        chunks = [images[at : at + _CHUNK] for at in range(0, len(images), _CHUNK)]
        work = partial(_encode_chunk, sent, self.config, self.cache)
        made = engine.map(work, chunks, network_on=engine.network_device(self.config.device))
        told = 0
        progress(told, len(images), "features")
        for chunk, (sha256, failures) in zip(chunks, made, strict=True):
            usable = [image for image in chunk if image.id in sha256]
            self.failures.update(failures)
            self.adopt(usable, sha256)
            if usable and (lost := self._missing(usable[0])):
                raise CacheError(f"feature cache: a worker wrote {self.cache.path(lost[0])}, {_NOT_HERE}")
            for at in range(told, told + len(chunk)):
                progress(at + 1, len(images), "features")
            told += len(chunk)

    def adopt(self, images: Iterable[ImageRef], sha256: Mapping[str, str]) -> None:
        """Take images as encoded, by the hashes of their files; nothing is looked at."""
        for image in images:
            self._name(image, sha256[image.id])

    def read(self, image: ImageRef, part: str, name: str) -> npt.NDArray[Any]:
        """Read an array of a usable image, see `umscosod.features.group.Read`.

        An entry that was pruned or damaged since it was written is made again. What is read is remembered within a
        limit.

        Raises
        ------
        DataError
            It cannot be made again: the file is gone, or no longer the one whose hash is in the key.
        """
        key = self._keys[image.id][part]
        return self._memory.get((key, name), lambda: self._load(image, key, name))

    def _load(self, image: ImageRef, key: str, name: str) -> npt.NDArray[Any]:
        arrays = self.cache.get(key, [name])
        if arrays is None:
            self._write([(image, self._decode(image))], [key])
            arrays = self.cache.get(key, [name])
        if arrays is None:
            raise DataError(
                f"{image.path}: its features vanish from the cache {self.cache.root} as fast as they are written"
            )
        return arrays[name]

    def _locate(self, image: ImageRef) -> int | None:
        """Name the cache entries of an image by what is in the file; its number of pixels if one is missing."""
        keys = self._name(image, image_sha256(image.path))
        return None if all(self.cache.size(key) is not None for key in keys) else count_pixels(image.path)

    def _name(self, image: ImageRef, sha256: str) -> list[str]:
        """Name the cache entries of an image by the hash of its file."""
        data, size_px = self.config.data, self.config.features.size_px
        # with the limits in the key, a picture that is refused under other limits is not taken from the cache
        limits = (str(data.max_pixels), str(data.min_side_px))
        parts = [("picture", str(size_px), *limits), *((backbone.id,) for backbone in self.pair.both)]
        keys = [self.cache.key(sha256, *one) for one in parts]
        self._keys[image.id] = dict(zip((PICTURE, *STREAMS), keys, strict=True))
        self.sha256[image.id] = sha256
        return keys

    def _leave_out(self, image: ImageRef, error: DataError) -> None:
        self._keys.pop(image.id, None)
        self.sha256.pop(image.id, None)
        self.failures[image.id] = str(error)
        logger.warning("%s: left out: %s", image.id, error)

    def _missing(self, image: ImageRef) -> list[str]:
        return [key for key in self._keys[image.id].values() if self.cache.size(key) is None]

    def _check_disk(self, made: ImageRef, left: int) -> bool:
        """Refuse `left` more images that will not fit; True if `made`, whose size tells, could be made."""
        if made.id not in self._keys:
            return False
        size = sum(self.cache.size(key) or 0 for key in self._keys[made.id].values())
        if left:
            logger.info("%d more images to encode, about %s", left, format_bytes(size * left))
            self.cache.check_free(size * left)
        return True

    def _iter_decoded(
        self, pixels: Mapping[int, int], images: Sequence[ImageRef]
    ) -> Generator[list[_Decoding], None, None]:
        """Decode the images at the places in `pixels`, so large each, in batches, one batch ahead."""
        pool = ThreadPoolExecutor(min(_MOST_THREADS, count_cores()), thread_name_prefix="umscosod-decode")
        ahead: list[_Decoding] = []
        try:
            for batch in chain(self._plan(pixels), [[]]):
                now, ahead = ahead, [(at, images[at], pool.submit(self._decode, images[at])) for at in batch]
                if now:
                    yield now
        finally:
            pool.shutdown(cancel_futures=True)

    def _plan(self, pixels: Mapping[int, int]) -> Iterator[list[int]]:
        """Cut places into batches; the first image goes alone, as it tells how large the others will be."""
        most = max(backbone.batch_size for backbone in self.pair.both)
        first = next(iter(pixels), None)
        batch: list[int] = []
        held = 0
        for at, size in pixels.items():
            if batch and (batch[0] == first or len(batch) == most or held + size > _MOST_PIXELS):
                yield batch
                batch, held = [], 0
            batch.append(at)
            held += size
        if batch:
            yield batch

    def _decode(self, image: ImageRef) -> ByteArray:
        """Decode an image.

        Raises
        ------
        DataError
            It cannot be decoded, or is no longer the file whose hash is in the keys.
        """
        data = self.config.data
        try:
            return decode_image(image.path, max_pixels=data.max_pixels, min_side_px=data.min_side_px)
        finally:
            # Looked at after the pixels were read and before anything is written. A file caught half-written also
            # decodes with an error of its own; that it was changed is what the user needs to know.
            if image_sha256(image.path) != self.sha256[image.id]:
                raise DataError(f"{image.path}: the file was changed while it was in use; run again")

    def _encode(self, batch: Sequence[_Decoding]) -> None:
        """Write what the images of a batch lack; each that cannot be decoded or encoded is left out."""
        decoded: list[_Decoded] = []
        for _, image, picture in batch:
            try:
                decoded.append((image, picture.result()))
            except DataError as error:
                self._leave_out(image, error)
        missing = {key for image, _ in decoded for key in self._missing(image)}
        try:
            self._write(decoded, missing)
        except DataError:  # one of them; which, shows when each goes by itself
            for one in decoded:
                try:
                    self._write([one], missing)
                except DataError as error:
                    self._leave_out(one[0], error)

    def _write(self, decoded: Sequence[_Decoded], keys: Collection[str]) -> None:
        """Write those of the images' entries that are among `keys`; equal files share theirs."""

        def lacking(part: str) -> dict[str, ByteArray]:
            pictures = {self._keys[image.id][part]: picture for image, picture in decoded}
            return {key: picture for key, picture in pictures.items() if key in keys}

        for key, picture_HW3 in lacking(PICTURE).items():
            self.cache.put(key, picture_arrays(picture_HW3, self.config.features.size_px))
        for stream, backbone in zip(STREAMS, self.pair.both, strict=True):
            wanted = lacking(stream)
            for key, encoded in zip(wanted, backbone.encode(list(wanted.values())) if wanted else (), strict=True):
                self.cache.put(key, stream_arrays(encoded), {"backbone": backbone.id})


def _encode_chunk(
    pair: BackbonePair, config: PipelineConfig, cache: FeatureCache, images: Sequence[ImageRef]
) -> tuple[dict[str, str], dict[str, str]]:
    """Encode some images, in a worker; give the hashes of those that can be used, and the reasons for the others."""
    encodings = Encodings(pair, config, cache)
    encodings.make(images, ignore_progress)
    return encodings.sha256, encodings.failures


_CHUNK = 16  # images that a worker is given at a time
_NOT_HERE = "which is not here: set --config.features.cache-dir to a folder on storage that all machines share"
_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


def _on_part(
    pair: BackbonePair,
    config: PipelineConfig,
    cache: FeatureCache,
    whitenings: Mapping[str, Whitening],
    work: Callable[[FeatureCollection, Any], _Result],
    item: tuple[ImageGroup, Mapping[str, str], Any],
) -> _Result:
    """Work on a group in a worker: `item` is the group, the hashes of its files, and what the work is given."""
    group, sha256, given = item
    return work(FeatureCollection([group], pair, config, cache, whitenings=whitenings, sha256=sha256), given)


_SALIENCY_BYTES = 64 * 2**20  # of saliencies: 20,000 images


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
    engine : Engine, optional
        Encodes, and does the work of `map`; None: this process does.
    sent : BackbonePair, optional
        The pair in a form that can be sent to the workers of the engine; None: `pair` itself.
    sha256 : mapping of str to str, optional
        Hashes of the files by image id, all of them encoded before: nothing is looked at, made or fitted.

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
        engine: Engine | None = None,
        sent: BackbonePair | None = None,
        sha256: Mapping[str, str] | None = None,
    ) -> None:
        self.pair, self.config, self.cache = pair, config, cache
        self.engine, self._sent = engine, sent or pair
        self._saliencies = Memory(_SALIENCY_BYTES)
        self._encodings = Encodings(pair, config, cache)
        images = [image for group in groups for image in group.images]
        if sha256 is not None:
            self._encodings.adopt(images, sha256)
        elif engine is not None:
            self._encodings.make_by(engine, self._sent, images, progress)
        else:
            self._encodings.make(images, progress)
        self.failures, self.sha256 = self._encodings.failures, self._encodings.sha256
        self.groups = tuple(groups)
        self.leave_out(self.failures)
        self.whitenings: dict[str, Whitening] = {}
        for stream, backbone in zip(STREAMS, pair.both, strict=True):
            if not backbone.needs_whitening:
                continue
            if whitenings and stream in whitenings:
                self.whitenings[stream] = whitenings[stream]
            elif self.groups and sha256 is None:
                self.whitenings[stream] = whiten_moments(self._iter_moments(stream))

    @property
    def network_device(self) -> str:
        """Device on which `map` runs a network."""
        return self.config.device if self.engine is None else self.engine.network_device(self.config.device)

    def __len__(self) -> int:
        """Count the groups."""
        return len(self.groups)

    def __getitem__(self, index: Any) -> Any:
        """Load one group from the cache; a slice loads all of its groups at once."""
        found = self.groups[index]
        return [self.load(group) for group in found] if isinstance(index, slice) else self.load(found)

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """Count images as failures, by id with the reason, and take them out of `groups`; whitenings stay."""
        self.failures.update(reasons)
        self.groups = tuple(
            replace(group, images=left)
            for group in self.groups
            if (left := tuple(image for image in group.images if image.id not in reasons))
        )

    def load(self, group: ImageGroup) -> GroupFeatures:
        """Features of a group: whitened and sharpened where the backbone asks for it, each read when it is asked for.

        Parameters
        ----------
        group : ImageGroup
            Of `groups`.

        Returns
        -------
        GroupFeatures
            See `umscosod.features.group.assemble`.

        Raises
        ------
        DataError
            Later, when an array is asked for: an entry of the cache is gone and cannot be made again.
        """
        ids = tuple(image.id for image in group.images)
        read, keep = self._encodings.read, lambda make: self._saliencies.get(ids, make)
        return assemble(group, read, self.pair, self.whitenings, keep)

    def map(
        self,
        work: Callable[[GroupFeatures, _Given], _Result],
        given: Iterable[tuple[ImageGroup, _Given]],
        *,
        network_on: str = "",
    ) -> Iterator[_Result]:
        """Work on the features of groups, here or by the engine.

        Parameters
        ----------
        work : callable
            For an engine it can be pickled, see `umscosod.engine.Engine.map`.
        given : iterable of (ImageGroup, object)
            Groups of `groups`, each with what `work` gets beside its features.
        network_on : str
            See `umscosod.engine.Engine.map`.

        Yields
        ------
        object
            What `work` gives, in the order of the groups. Here a group is worked on when its result is asked for.
        """
        if self.engine is None:
            for group, one in given:
                yield work(self.load(group), one)
            return
        yield from self._map_parts(partial(_on_features, work), given, network_on)

    def _map_parts(
        self, work: Callable[[FeatureCollection, Any], _Result], given: Iterable[tuple[ImageGroup, Any]], on: str = ""
    ) -> Iterator[_Result]:
        assert self.engine is not None
        sent = partial(_on_part, self._sent, self.config, self.cache, dict(self.whitenings), work)
        items = ((group, {image.id: self.sha256[image.id] for image in group.images}, one) for group, one in given)
        return self.engine.map(sent, items, network_on=on)

    def _iter_moments(self, stream: str) -> Iterator[Moments]:
        """Moments of every image's raw tokens, in their order."""
        if self.engine is not None:
            yield from chain.from_iterable(self._map_parts(_list_moments, ((group, stream) for group in self.groups)))
            return
        for group in self.groups:
            for image in group.images:
                yield token_moments(self._encodings.read(image, stream, "tokens"))


def _list_moments(part: FeatureCollection, stream: str) -> list[Moments]:
    return list(part._iter_moments(stream))


def _on_features(work: Callable[[GroupFeatures, Any], _Result], part: FeatureCollection, given: Any) -> _Result:
    return work(part[0], given)
