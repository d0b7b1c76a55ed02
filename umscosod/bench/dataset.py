"""A data set as a bench needs it: groups, ground truths, and features in the cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umscosod.config import PipelineConfig
from umscosod.data.benchmarks import Benchmark, open_benchmark
from umscosod.data.images import decode_image
from umscosod.features.cache import FeatureCache
from umscosod.features.collection import FeatureCollection
from umscosod.features.registry import BackbonePair
from umscosod.progress import ProgressFn
from umscosod.types import ImageRef

_TIMED = 3  # images whose encoding is timed, after one to warm up


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchDataset:
    """A data set whose features are in the cache.

    Attributes
    ----------
    benchmark : Benchmark
    unreadable : frozenset of str
        Ids of images that cannot be decoded.
    encoding_s : float
        Seconds that features take an image.
    """

    benchmark: Benchmark
    unreadable: frozenset[str]
    encoding_s: float

    @property
    def scored(self) -> list[tuple[str, ImageRef]]:
        """Group and image of everything that has a ground truth and can be read."""
        return [
            (group.name, image)
            for group in self.benchmark.groups
            for image in group.images
            if image.id in self.benchmark.masks and image.id not in self.unreadable
        ]


def open_dataset(root: Path, pair: BackbonePair, config: PipelineConfig, progress: ProgressFn) -> BenchDataset:
    """Find the groups and ground truths of a data set, and encode what the cache lacks.

    Raises
    ------
    UmscosodError, OSError
        It is no data set, or cannot be read.
    """
    benchmark = open_benchmark(root)
    cache = FeatureCache(Path(config.features.cache_dir) if config.features.cache_dir else None)
    features = FeatureCollection(benchmark.groups, pair, config, cache, progress=progress)
    readable = [image for group in features.groups for image in group.images]
    return BenchDataset(
        benchmark=benchmark,
        unreadable=frozenset(features.failures),
        encoding_s=_time_encoding(readable, pair, config),
    )


def _time_encoding(images: Sequence[ImageRef], pair: BackbonePair, config: PipelineConfig) -> float:
    """Seconds that decoding and encoding take an image: measured on a few, so that a full cache hides nothing."""
    data = config.data
    started, seconds = 0.0, 0.0
    chosen = list(images[: _TIMED + 1])
    if len(chosen) == 1:
        chosen *= 2
    for number, image in enumerate(chosen):
        if number == 1:  # the first has loaded what is loaded late
            started = time.monotonic()
        picture_HW3 = decode_image(image.path, max_pixels=data.max_pixels, min_side_px=data.min_side_px)
        for backbone in (pair.first, pair.second):
            backbone.encode([picture_HW3])
        seconds = time.monotonic() - started
    return seconds / max(1, len(chosen) - 1)
