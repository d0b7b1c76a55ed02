"""What a bench runs: data sets and methods."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from umscosod.config import PipelineConfig
from umscosod.data.benchmarks import Benchmark, open_benchmark
from umscosod.data.files import real_path
from umscosod.data.folders import IMAGE_FOLDERS, MASK_FOLDERS, first_named
from umscosod.data.images import decode_image
from umscosod.data.mask_rules import MaskRule, MaskValue
from umscosod.errors import ConfigError
from umscosod.evaluation.reading import decide_truth_rule
from umscosod.features.backbone import BackbonePair
from umscosod.features.cache import FeatureCache
from umscosod.features.collection import encode_collection
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
    truth_rule : MaskRule
        How the ground truths are read.
    """

    benchmark: Benchmark
    unreadable: frozenset[str]
    encoding_s: float
    truth_rule: MaskRule

    @property
    def scored(self) -> list[tuple[str, ImageRef]]:
        """Group and image of everything that has a ground truth and can be read."""
        return [
            (group.name, image)
            for group in self.benchmark.groups
            for image in group.images
            if image.id in self.benchmark.masks and image.id not in self.unreadable
        ]


def open_dataset(
    root: Path, pair: BackbonePair, config: PipelineConfig, progress: ProgressFn, mask_value: MaskValue | None = None
) -> BenchDataset:
    """Find the groups and ground truths of a data set, and encode what the cache lacks.

    Raises
    ------
    UmscosodError, OSError
        It is no data set, or cannot be read; or its ground truths hold several ids and no `mask_value` is given.
    """
    benchmark = open_benchmark(root)
    truth_rule = decide_truth_rule(list(benchmark.masks.values()), str(root), mask_value)
    cache = FeatureCache(Path(config.features.cache_dir) if config.features.cache_dir else None)
    features = encode_collection(benchmark.groups, pair, config, cache, progress=progress)
    readable = [image for group in features.groups for image in group.images]
    return BenchDataset(
        benchmark=benchmark,
        unreadable=frozenset(features.failures),
        encoding_s=_time_encoding(readable, pair, config),
        truth_rule=truth_rule,
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


_KNOWN: tuple[str, ...] = get_args(get_type_hints(PipelineConfig)["method"])
ORDER: tuple[str, ...] = (*_KNOWN[2:], "pseudo", "ums")
"""Methods as tables list them: baselines, then pseudo-labels alone, then the whole method."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row of the tables.

    Attributes
    ----------
    name : str
        Name of the row, and of its folder in the results.
    settings : mapping of str to object
        What differs from the settings of the bench, by dotted name; ``method`` at least.
    folder : Path or None
        Maps that another program made, to be refined and scored like our own.
    train : bool
        Off: stop at refined pseudo-labels, as ``label --no-train`` does.
    network_of : str
        Name of an earlier entry whose trained network is used, so that rows that differ after training alone share
        it; empty: this entry trains its own, if its method has one.
    title : str
        What it has, for the table of a study.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    train: bool = True
    network_of: str = ""
    title: str = ""


def parse_methods(text: str) -> tuple[Entry, ...]:
    """Read a list of methods.

    Parameters
    ----------
    text : str
        Names separated by commas; ``all`` stands for every method of ours; ``name=FOLDER`` for the maps of another.

    Raises
    ------
    ConfigError
        A name is unknown, unusable as a folder, or occurs twice.

    Examples
    --------
    >>> [entry.name for entry in parse_methods("tokencut, ums, theirs=/maps")]
    ['tokencut', 'ums', 'theirs']
    """
    entries: list[Entry] = []
    for part in (part.strip() for part in text.split(",")):
        name, sign, folder = (piece.strip() for piece in part.partition("="))
        if sign:
            if not folder or not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name in _KNOWN:
                raise ConfigError(f"{part!r}: give the maps of another method as name=FOLDER, under a name of its own")
            entries.append(Entry(name=name, settings={"method": "ums"}, folder=Path(folder)))
        elif name == "all" or name in _KNOWN:
            methods = ORDER if name == "all" else (name,)
            entries += [Entry(name=method, settings={"method": method}) for method in methods]
        else:
            raise ConfigError(f"unknown method {name!r}; choose among {', '.join(ORDER)}, all, or name=FOLDER")
    name, count = Counter(entry.name for entry in entries).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"method {name!r} is asked for {count} times; ask once")
    return tuple(entries)


def find_datasets(paths: Sequence[Path]) -> dict[str, Path]:
    """Folders of data sets by name: those given, or what a folder of several holds.

    Parameters
    ----------
    paths : sequence of Path
        A folder with a folder of images beside one of masks is one data set, whatever else it is. One whose
        sub-folders are such is several. Any other is taken for one, and is looked at when its turn comes.

    Raises
    ------
    ConfigError
        None is given, or two have one name.
    """
    found = [dataset for path in paths for dataset in _datasets_in(path)]
    if not found:
        raise ConfigError("no data set is given; give folders such as BENCH with BENCH/image and BENCH/gt")
    name, count = Counter(real_path(path).name for path in found).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"{count} data sets are named {name!r}, and results go to a folder of that name; rename them")
    return {real_path(path).name: path for path in found}


def _datasets_in(path: Path) -> list[Path]:
    if not path.is_dir() or _is_dataset(path):
        return [path]
    inner = sorted(child for child in path.iterdir() if child.is_dir() and _is_dataset(child))
    return inner or [path]


def _is_dataset(path: Path) -> bool:
    names = [child.name for child in path.iterdir() if child.is_dir()]
    return first_named(names, IMAGE_FOLDERS) is not None and first_named(names, MASK_FOLDERS) is not None
