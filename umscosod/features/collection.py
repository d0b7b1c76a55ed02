"""The features of a collection: each image encoded once or found in the cache, each group read when it is asked for.

Images are encoded several at a time; groups are worked on here or in the workers of an engine.

Legend: ``N`` images, ``P`` patches, ``D`` token width, ``H W`` pixels.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, count
from types import MappingProxyType
from typing import Any, TypeVar

import numpy.typing as npt

from umscosod.config import PipelineConfig
from umscosod.data.images import count_pixels, decode_image, image_sha256, limit_at_once, plan_batches
from umscosod.device import MOST_THREADS, count_cores, map_in_threads
from umscosod.engine import Engine
from umscosod.errors import CacheError, DataError
from umscosod.features.backbone import BackbonePair, is_weight_free
from umscosod.features.cache import FeatureCache, Memory, format_bytes
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
from umscosod.features.specs import exact_id
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import ByteArray, GroupFeatures, ImageGroup, ImageRef
from umscosod.workers import LazyPool, ProcessEngine, are_worth_processes

logger = logging.getLogger(__name__)

_REMEMBERED_BYTES = 16 * 2**20


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
    hashes : dict of str to str
        SHA-256 of the file of each usable image, by id.
    failures : dict of str to str
        Reason by image id.
    """

    def __init__(self, pair: BackbonePair, config: PipelineConfig, cache: FeatureCache) -> None:
        self.pair, self.config, self.cache = pair, config, cache
        self.hashes: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self._memory = Memory(_REMEMBERED_BYTES)

    def make(self, images: Sequence[ImageRef], progress: ProgressFn, pool: LazyPool | None = None) -> None:
        """Find every image's entries and make those that are missing, after a look at the disk.

        Pictures are decoded in threads, a batch ahead of the backbones. On the CPU a ViT encodes several at once, in
        threads, and `embedded` many, in processes. An image that cannot be used is a failure, and the others go on.

        Parameters
        ----------
        images : sequence of ImageRef
        progress : callable
            Called once per image as stage ``features``.
        pool : LazyPool, optional
            The job's processes; None: where any are needed, they are started and ended here.

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
        if is_weight_free(self.pair) and are_worth_processes(len(lacking)):
            with LazyPool() if pool is None else contextlib.nullcontext(pool) as lazy:
                engine = ProcessEngine(lazy.start())
                _make_by(engine, self, self.pair, [images[at] for at in lacking], len(images), progress)
        else:
            self._make_here(lacking, images, progress)

    def _make_here(self, lacking: Mapping[int, int], images: Sequence[ImageRef], progress: ProgressFn) -> None:
        """Encode the images at the places in `lacking`, of so many pixels each."""
        told, is_checked = 0, False
        progress(0, len(images), "features")
        at_once = min(getattr(backbone, "at_once", 1) for backbone in self.pair.both)
        at_once = limit_at_once(lacking.values(), at_once)
        with (
            contextlib.closing(self._iter_decoded(lacking, images)) as batches,
            contextlib.closing(map_in_threads(self._encode, batches, at_once)) as done,
        ):
            for place, unusable in done:
                for image, error in unusable:
                    self._leave_out(image, error)
                is_checked = is_checked or self.check_disk(images[place], sum(at > place for at in lacking))
                for at in range(told, place + 1):
                    progress(at + 1, len(images), "features")
                told = place + 1
        for at in range(told, len(images)):
            progress(at + 1, len(images), "features")

    def read(self, image: ImageRef, part: str, name: str) -> npt.NDArray[Any]:
        """Read an array of a usable image, see `umscosod.features.group.Read`.

        An entry that was pruned or damaged since it was written is made again. What is read is remembered within a
        limit.

        Raises
        ------
        DataError
            It cannot be made again: the file is gone, or no longer the one whose hash is in the key.
        """
        key = self.key(image, part)
        return self._memory.get((key, name), lambda: self._load(image, key, name))

    def _load(self, image: ImageRef, key: str, name: str) -> npt.NDArray[Any]:
        if (arrays := self.cache.get(key, [name])) is None:
            self._write([(image, self._decode(image))], [key])
            if (arrays := self.cache.get(key, [name])) is None:
                raise DataError(
                    f"{image.path}: its features vanish from the cache {self.cache.root} as fast as they are written"
                )
        return arrays[name]

    def key(self, image: ImageRef, part: str) -> str:
        """Name of a usable image's entry in the cache, of the parts `PICTURE` and the two streams.

        It is made when it is asked for: to hold it for every image took a tenth of a large job's memory an image.
        """
        return self.cache.key(self.hashes[image.id], *self._facts[part])

    @cached_property
    def _facts(self) -> dict[str, tuple[str, ...]]:
        data, size_px = self.config.data, self.config.features.size_px
        first, second = (exact_id(backbone) for backbone in self.pair.both)
        return {
            # with the limits, a picture that is refused under other ones is not taken from the cache
            PICTURE: ("picture", str(size_px), str(data.max_pixels), str(data.min_side_px)),
            "first": (first,),
            "second": (first,) if second == first else (second, "no keys"),
        }

    def _keys(self, image: ImageRef) -> set[str]:
        return {self.key(image, part) for part in self._facts}

    def _locate(self, image: ImageRef) -> int | None:
        """Note what is in the file of an image; its number of pixels if the cache lacks an entry of it."""
        self.hashes[image.id] = image_sha256(image.path)
        return count_pixels(image.path) if self.missing(image) else None

    def _leave_out(self, image: ImageRef, error: DataError) -> None:
        self.hashes.pop(image.id, None)
        self.failures[image.id] = str(error)
        logger.warning("%s: left out: %s", image.id, error)

    def missing(self, image: ImageRef) -> list[str]:
        """Keys of a usable image that the cache lacks."""
        return sorted(key for key in self._keys(image) if self.cache.size(key) is None)

    def check_disk(self, made: ImageRef, left: int) -> bool:
        """Refuse `left` more images that will not fit; True if `made`, whose size tells, could be made."""
        if made.id not in self.hashes:
            return False
        size = sum(self.cache.size(key) or 0 for key in self._keys(made))
        if left:
            logger.info("%d more images to encode, about %s", left, format_bytes(size * left))
            self.cache.check_free(size * left)
        return True

    def _iter_decoded(
        self, pixels: Mapping[int, int], images: Sequence[ImageRef]
    ) -> Generator[list[_Decoding], None, None]:
        """Decode the images at the places in `pixels`, so large each, in batches, one batch ahead."""
        pool = ThreadPoolExecutor(min(MOST_THREADS, count_cores()), thread_name_prefix="umscosod-decode")
        ahead: list[_Decoding] = []
        is_left = True
        try:
            most = max(backbone.batch_size for backbone in self.pair.both)
            for batch in chain(plan_batches(pixels, most), [[]]):
                now, ahead = ahead, [(at, images[at], pool.submit(self._decode, images[at])) for at in batch]
                if now:
                    yield now
            is_left = False  # those that were given may still be at work
        finally:
            pool.shutdown(cancel_futures=is_left)

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
            if image_sha256(image.path) != self.hashes[image.id]:
                raise DataError(f"{image.path}: the file was changed while it was in use; run again")

    def _encode(self, batch: Sequence[_Decoding]) -> tuple[int, list[tuple[ImageRef, DataError]]]:
        """Write what the images of a batch lack; give the last one's place, and those that cannot be used."""
        place, whole = batch[-1][0], [one for one in batch if one[2].exception() is None]
        try:
            decoded = [(image, picture.result()) for _, image, picture in whole or batch]
            self._write(decoded, {key for image, _ in decoded for key in self.missing(image)})
        except DataError as error:
            if len(batch) == 1:
                return place, [(batch[0][1], error)]
            whole = []
        # where one of several cannot be encoded, it shows which when each goes by itself
        return place, [found for one in batch if one not in whole for found in self._encode([one])[1]]

    def _write(self, decoded: Sequence[_Decoded], keys: Collection[str]) -> None:
        """Write those of the images' entries that are among `keys`; equal files share theirs."""

        def lacking(part: str) -> dict[str, ByteArray]:
            pictures = {self.key(image, part): picture for image, picture in decoded}
            return {key: picture for key, picture in pictures.items() if key in keys}

        for key, picture_HW3 in lacking(PICTURE).items():
            self.cache.put(key, picture_arrays(picture_HW3, self.config.features.size_px))
        written: set[str] = set()  # two equal backbones share their entries
        for stream, backbone in zip(STREAMS, self.pair.both, strict=True):
            wanted = {key: picture for key, picture in lacking(stream).items() if key not in written}
            for key, encoded in zip(wanted, backbone.encode(list(wanted.values())) if wanted else (), strict=True):
                self.cache.put(key, stream_arrays(encoded, stream), {"backbone": backbone.id})
            written |= wanted.keys()


_CHUNK = 8  # images that a worker is given at a time
_NOT_HERE = "which is not here: set --config.features.cache-dir to a folder on storage that all machines share"
_SALIENCY_BYTES = 4 * 2**20  # of saliencies: 1,300 images of 28 x 28 patches

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


def encode_collection(
    groups: Sequence[ImageGroup],
    pair: BackbonePair,
    config: PipelineConfig,
    cache: FeatureCache,
    *,
    lost: Mapping[str, str] = MappingProxyType({}),
    whitenings: Mapping[str, Whitening] | None = None,
    progress: ProgressFn = ignore_progress,
    engine: Engine | None = None,
    sent: BackbonePair | None = None,
    pool: LazyPool | None = None,
) -> FeatureCollection:
    """Encode what is not yet in the cache.

    Parameters
    ----------
    groups : sequence of ImageGroup
    pair : BackbonePair
    config : PipelineConfig
    cache : FeatureCache
    lost : mapping of str to str
        Why images could not be fetched, by id: they are failures.
    whitenings : mapping of str to Whitening, optional
        By stream, ``first`` and ``second``: those of a checkpoint. Missing ones are fitted to this collection.
    progress : callable
        Called once per image as stage ``features``.
    engine : Engine, optional
        Encodes, and does the work of `FeatureCollection.map`; None: this process does.
    sent : BackbonePair, optional
        The pair in a form that can be sent to the workers of the engine; None: `pair` itself.
    pool : LazyPool, optional
        See `Encodings.make`.

    Returns
    -------
    FeatureCollection
        An image that cannot be used is one of its failures, and the others go on.

    Raises
    ------
    CacheError
        The features do not fit on the disk, it cannot be written, or what a worker has written is not seen here.
    """
    encodings = Encodings(pair, config, cache)
    images = [image for group in groups for image in group.images if image.id not in lost]
    if engine is None:
        encodings.make(images, progress, pool)
    else:
        _make_by(engine, encodings, sent or pair, images, len(images), progress)
    features = FeatureCollection(groups, encodings, engine=engine, sent=sent)
    features.leave_out({**lost, **encodings.failures})
    features.whiten(whitenings or {})
    return features


def _make_by(
    engine: Engine, made: Encodings, sent: BackbonePair, images: Sequence[ImageRef], total: int, progress: ProgressFn
) -> None:
    """Make encodings in the workers of an engine, which write to the same cache; `total` counts those there before."""
    chunks = [images[at : at + _CHUNK] for at in range(0, len(images), _CHUNK)]
    work = partial(_encode_chunk, sent, made.config, made.cache)
    results = engine.map(work, chunks, network_on=engine.network_device(made.config.device))
    # The disk is looked at where it is known what is lacking.
    is_checked, is_seen, remaining = not made.hashes, False, count(len(images) - 1, -1)
    progress(total - len(images), total, "features")
    for chunk, (hashes, failures) in zip(chunks, results, strict=True):
        made.failures |= failures
        made.hashes |= hashes
        for name in failures:
            made.hashes.pop(name, None)
        for image, left in zip(chunk, remaining, strict=False):
            if not is_seen and image.id in hashes:
                if lost := made.missing(image):
                    raise CacheError(f"feature cache: a worker wrote {made.cache.path(lost[0])}, {_NOT_HERE}")
                is_seen = is_checked or made.check_disk(image, left)
            progress(total - left, total, "features")


def _encode_chunk(
    pair: BackbonePair, config: PipelineConfig, cache: FeatureCache, images: Sequence[ImageRef]
) -> tuple[dict[str, str], dict[str, str]]:
    """Encode some images, in a worker; give the hashes of those that can be used, and the reasons for the others."""
    encodings = Encodings(pair, config, cache)
    encodings.make(images, ignore_progress)
    return encodings.hashes, encodings.failures


class FeatureCollection(Sequence[GroupFeatures]):
    """Features of all groups, on disk; indexing gives one group, whose arrays are read when they are asked for.

    Parameters
    ----------
    groups : sequence of ImageGroup
    encodings : Encodings
        Of all their images, but for those to be left out.
    whitenings : mapping of str to Whitening, optional
        By stream, ``first`` and ``second``.
    engine : Engine, optional
        Does the work of `map`; None: this process does.
    sent : BackbonePair, optional
        The pair in a form that can be sent to the workers of the engine; None: as it is.

    Attributes
    ----------
    groups : tuple of ImageGroup
        Only images that could be encoded, and only groups that have any left.
    failures : dict of str to str
        Reason by image id.
    whitenings : dict of str to Whitening
        Empty unless a backbone asks for it.
    pair, config
        As of the encodings.
    """

    def __init__(
        self,
        groups: Sequence[ImageGroup],
        encodings: Encodings,
        whitenings: Mapping[str, Whitening] | None = None,
        engine: Engine | None = None,
        sent: BackbonePair | None = None,
    ) -> None:
        self.groups, self.engine = tuple(groups), engine
        self.pair, self.config = encodings.pair, encodings.config
        self.failures: dict[str, str] = {}
        self.whitenings = dict(whitenings or {})
        self._encodings, self._sent = encodings, sent or encodings.pair
        self._saliencies = Memory(_SALIENCY_BYTES)

    @property
    def sha256(self) -> dict[str, str]:
        """Hash of each usable file, by image id."""
        return self._encodings.hashes

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
        engine: Engine | None = None,
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
        engine : Engine, optional
            In the place of the collection's.

        Yields
        ------
        object
            What `work` gives, in the order of the groups. Here a group is worked on when its result is asked for.
        """
        yield from self._map_groups(partial(_on_features, work), given, network_on, engine)

    def whiten(self, given: Mapping[str, Whitening]) -> None:
        """Whiten the streams whose backbone asks for it: as given, or else by this collection's own statistics."""
        for stream, backbone in zip(STREAMS, self.pair.both, strict=True):
            if backbone.needs_whitening and stream in given:
                self.whitenings[stream] = given[stream]
            elif backbone.needs_whitening and self.groups:
                moments = self._map_groups(_list_moments, ((group, stream) for group in self.groups))
                self.whitenings[stream] = whiten_moments(chain.from_iterable(moments))

    def _map_groups(
        self,
        work: Callable[[FeatureCollection, ImageGroup, Any], _Result],
        given: Iterable[tuple[ImageGroup, Any]],
        network_on: str = "",
        engine: Engine | None = None,
    ) -> Iterator[_Result]:
        """As `map`, with the collection and the group in the place of features."""
        if (engine := engine or self.engine) is None:
            return (work(self, group, one) for group, one in given)
        encodings = self._encodings
        sent = partial(_on_part, self._sent, encodings.config, encodings.cache, self.whitenings, work)
        parts = ((group, {image.id: encodings.hashes[image.id] for image in group.images}, one) for group, one in given)
        return engine.map(sent, parts, network_on=network_on)


def _on_part(
    pair: BackbonePair,
    config: PipelineConfig,
    cache: FeatureCache,
    whitenings: Mapping[str, Whitening],
    work: Callable[[FeatureCollection, ImageGroup, Any], _Result],
    part: tuple[ImageGroup, Mapping[str, str], Any],
) -> _Result:
    """Work on a group in a worker: `part` is the group, the hashes of its images, and what the work is given."""
    group, hashes, given = part
    encodings = Encodings(pair, config, cache)
    encodings.hashes |= hashes
    return work(FeatureCollection([group], encodings, whitenings), group, given)


def _list_moments(features: FeatureCollection, group: ImageGroup, stream: str) -> list[Moments]:
    return [token_moments(features._encodings.read(image, stream, "tokens")) for image in group.images]


def _on_features(
    work: Callable[[GroupFeatures, Any], _Result], features: FeatureCollection, group: ImageGroup, given: Any
) -> _Result:
    return work(features.load(group), given)
