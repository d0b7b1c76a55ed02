"""A simulated curator: what examples are worth, measured on the images that were not shown.

For each group and seed a curator shows the true masks of k images, or points, or one region that is not the object;
the group is relabelled, and the IoU of the *other* images is compared with that of the masks that were there.
"""

from __future__ import annotations

import logging
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from umscosod.bench.entries import find_datasets
from umscosod.bench.table import format_markdown, save_tables
from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, load_config
from umscosod.data.benchmarks import Benchmark, open_benchmark
from umscosod.data.files import check_place
from umscosod.data.masks import read_mask
from umscosod.data.resize import resize_mask
from umscosod.device import numpy_generator
from umscosod.export.folder import path_inside
from umscosod.pipeline import label_groups
from umscosod.pipeline.steer import Steering, open_job, open_steering
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.steering.examples import Example, Point
from umscosod.steering.head import mask_iou
from umscosod.types import BoolArray, FloatArray, GroupFeatures, ImageGroup

logger = logging.getLogger(__name__)

POINT, TWO_POINTS, NOT_THIS = "a point", "a point, and one beside", "not this, worst mask"
Masks = Mapping[str, BoolArray]


@dataclass(frozen=True, kw_only=True, slots=True)
class CuratorReport:
    """What examples are worth.

    Attributes
    ----------
    out : Path
    kinds : tuple of str
        What was shown.
    figures : dict
        By data set and kind: mean IoU over the images not shown, before and after.
    """

    out: Path
    kinds: tuple[str, ...]
    figures: Mapping[str, Mapping[str, tuple[float, float]]]


def run_curator(
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    config: PipelineConfig | None = None,
    *,
    most: int = 3,
    seeds: int = 3,
    progress: ProgressFn = ignore_progress,
) -> CuratorReport:
    """Label data sets, and relabel their groups by simulated examples.

    Parameters
    ----------
    data : sequence of path
        See `umscosod.bench.entries.find_datasets`.
    out : path
        ``OUT/<data set>/ums`` are output folders of `label_groups`, resumed like them; they are not changed.
    config : PipelineConfig, optional
        By default the ``fast`` preset.
    most : int
        Largest number of masks shown of a group.
    seeds : int
        Draws of the images shown.
    progress : callable

    Returns
    -------
    CuratorReport
        A group counts for a kind if two images or more are left to score. Each image counts alike.
    """
    config = load_config(DEFAULT_PRESET) if config is None else config
    check_place(out, "bench")
    kinds = _kinds(most)
    figures = {}
    for name, root in find_datasets([Path(path) for path in data]).items():
        benchmark = open_benchmark(root)
        folder = path_inside(Path(out), f"{name}/ums")
        label_groups(benchmark.groups, folder, config, progress=progress)
        scores: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        with open_job(folder) as job, open_steering(job, job.collection.groups) as steering:
            for number, group in enumerate(steering.features.groups):
                progress(number, len(steering.features.groups), f"{name}: examples")
                for kind, pair in _score_group(steering, group, benchmark, kinds, seeds):
                    scores[kind].append(pair)
        figures[name] = {
            kind: (statistics.fmean(before for before, _ in pairs), statistics.fmean(after for _, after in pairs))
            for kind, pairs in scores.items()
            if pairs
        }
    return CuratorReport(out=Path(out), kinds=tuple(kinds), figures=figures)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scene:
    """A group as the curator sees it: scored images by id, with true masks, masks that were there, confidences."""

    features: GroupFeatures
    truth: Masks
    found: Masks
    confidence: Mapping[str, float]
    draw: Callable[[int, int], list[str]]

    def shown(self, names: Sequence[str]) -> dict[str, Example]:
        """Their true masks."""
        return {name: Example(mask_HW=self.truth[name]) for name in names}

    def points(self, name: str, *, beside: bool) -> dict[str, Example]:
        """The innermost point of the object, and of what was wrongly taken for it or else of the background."""
        truth_HW = self.truth[name]
        wrong_HW = self.found[name] & ~truth_HW
        places = [(truth_HW, True), (wrong_HW if wrong_HW.any() else ~truth_HW, False)]
        points = [_innermost(mask_HW, is_object) for mask_HW, is_object in places[: 1 + beside] if mask_HW.any()]
        return {name: Example(points=tuple(points))}


Kind = Callable[[_Scene, int], Mapping[str, Example]]


def _kinds(most: int) -> dict[str, Kind]:
    """What may be shown, by its name in the table; the second argument is the seed."""

    def random(count: int) -> Kind:
        return lambda scene, seed: scene.shown(scene.draw(seed, count))

    def least_certain(scene: _Scene, seed: int) -> Mapping[str, Example]:
        return scene.shown(sorted(scene.truth, key=lambda name: (scene.confidence[name], name))[:most])

    def not_this(scene: _Scene, seed: int) -> Mapping[str, Example]:
        worst = min(scene.truth, key=lambda name: (mask_iou(scene.found[name], scene.truth[name]), name))
        wrong_HW = scene.found[worst] & ~scene.truth[worst]
        return {worst: Example(not_HW=wrong_HW)} if wrong_HW.any() else {}

    names = {1: "a mask"} | {count: f"{count} masks" for count in range(2, most + 1)}
    kinds = {names[count]: random(count) for count in range(1, most + 1)}
    return {
        **kinds,
        f"{names[most]}, least certain": least_certain,
        POINT: lambda scene, seed: scene.points(scene.draw(seed, 1)[0], beside=False),
        TWO_POINTS: lambda scene, seed: scene.points(scene.draw(seed, 1)[0], beside=True),
        NOT_THIS: not_this,
    }


_SAME_FOR_ALL_SEEDS = ("least certain", NOT_THIS)


def _score_group(
    steering: Steering, group: ImageGroup, benchmark: Benchmark, kinds: Mapping[str, Kind], seeds: int
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Kind, and IoU of an image not shown before and after; for every kind, seed and such image."""
    features, base_NHW = steering.load(group)
    scene = _look(steering, features, benchmark)
    for kind, show in kinds.items():
        for seed in range(1 if kind.endswith(_SAME_FOR_ALL_SEEDS) else seeds):
            shown = show(scene, seed)
            rest = [name for name in scene.truth if name not in shown]
            if len(rest) < 2 or len(shown) > len(scene.truth) - 2:
                continue
            after = _relabel(steering, features, base_NHW, shown) if shown else scene.found
            for name in rest:
                yield kind, (mask_iou(scene.found[name], scene.truth[name]), mask_iou(after[name], scene.truth[name]))


def _look(steering: Steering, features: GroupFeatures, benchmark: Benchmark) -> _Scene:
    out, rows = steering.job.folder.out, steering.job.rows
    truth, found = {}, {}
    for image, size_hw in zip(features.group.images, features.sizes_hw, strict=True):
        if image.id in benchmark.masks:
            truth[image.id] = resize_mask(read_mask(benchmark.masks[image.id]), size_hw)
            found[image.id] = read_mask(path_inside(out, f"masks/{image.output}"))

    def draw(seed: int, count: int) -> list[str]:
        names = sorted(truth)
        return [names[place] for place in numpy_generator(seed, features.group.name).permutation(len(names))[:count]]

    confidence = {name: rows[name].confidence or 0.0 for name in truth}
    return _Scene(features=features, truth=truth, found=found, confidence=confidence, draw=draw)


def _relabel(
    steering: Steering, features: GroupFeatures, base_NHW: FloatArray, shown: Mapping[str, Example]
) -> dict[str, BoolArray]:
    own_masks = {name: one.mask_HW for name, one in shown.items() if one.mask_HW is not None}
    _, segments, _ = steering.segment(features, base_NHW, shown, own_masks)
    return {image.id: one.mask_HW for image, one in zip(features.group.images, segments, strict=True)}


def _innermost(mask_HW: BoolArray, is_object: bool) -> Point:
    """The pixel of a mask farthest from its edge: where a person would click."""
    depth_HW = cv2.distanceTransform(np.pad(mask_HW.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth_HW.argmax()), mask_HW.shape)
    return Point(x=(column + 0.5) / mask_HW.shape[1], y=(row + 0.5) / mask_HW.shape[0], is_object=is_object)


def save_curator(report: CuratorReport) -> str:
    """Write ``OUT/examples.json`` and ``OUT/examples.md``; return the table."""
    lines = [["shown", *report.figures, "mean", "gain"]]
    for kind in report.kinds:
        pairs = [figures[kind] for figures in report.figures.values() if kind in figures]
        if not pairs:
            continue
        cells = [
            f"{figures[kind][0]:.3f} -> {figures[kind][1]:.3f}" if kind in figures else ""
            for figures in report.figures.values()
        ]
        before, after = (statistics.fmean(pair[side] for pair in pairs) for side in (0, 1))
        lines.append([kind, *cells, f"{before:.3f} -> {after:.3f}", f"{after - before:+.3f}"])
    text = "# Examples\n\nMean IoU of the images not shown, before -> after.\n\n" + format_markdown(lines) + "\n"
    save_tables(report.out, "examples", {"kinds": list(report.kinds), "figures": report.figures}, text)
    return text
