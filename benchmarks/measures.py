"""Time to score pairs of 352 x 352 pixels on one core, beside PySODMetrics and beside one pass a threshold.

Run ``python -m benchmarks.measures`` in an environment with the ``test`` extra. All tools see the same generated
maps (soft, noisy) and masks; the first figure includes decoding the PNG files, the ratios do not.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from benchmarks.reference import cosod as plain
from benchmarks.rows import Given, Row, scratch_folder, show
from umscosod.evaluation import compute_measures, evaluate

Pair = tuple[np.ndarray, np.ndarray]


def make_pair(rng: np.random.Generator, size_px: int) -> Pair:
    """An ellipse, and a blurred and noisy map of it."""
    rows, columns = np.mgrid[:size_px, :size_px] / size_px
    row, column = rng.uniform(0.3, 0.7, 2)
    height, width = rng.uniform(0.1, 0.3, 2)
    distance = np.hypot((rows - row) / height, (columns - column) / width)
    soft = 1 / (1 + np.exp(rng.uniform(4, 20) * (distance - rng.uniform(0.8, 1.2))))
    noisy = np.clip(soft + rng.normal(0, 0.02, soft.shape), 0, 1)
    return (noisy * 255).astype(np.uint8), ((distance < 1) * 255).astype(np.uint8)


def write_trees(root: Path, pairs: int, size_px: int) -> list[Pair]:
    """Write the pairs as PNG in ten groups, and give back the first few."""
    rng = np.random.default_rng(0)
    kept = []
    for index in range(pairs):
        pair = make_pair(rng, size_px)
        for folder, picture in zip(("pred", "gt"), pair, strict=True):
            path = root / folder / f"group{index % 10}" / f"{index:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        if index < 60:
            kept.append(pair)
    return kept


def time_pysodmetrics(pairs: list[Pair]) -> float:
    """Seconds of its MAE, F, E, S and IoU on decoded pairs."""
    import py_sod_metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecation at construction
        iou = py_sod_metrics.IOUHandler(with_dynamic=False, with_adaptive=False, with_binary=True)
        tools = (
            py_sod_metrics.MAE(),
            py_sod_metrics.Fmeasure(),
            py_sod_metrics.Emeasure(),
            py_sod_metrics.Smeasure(),
            py_sod_metrics.FmeasureV2({"iou": iou}),
        )
    start = time.perf_counter()
    for pred, gt in pairs:
        for tool in tools:
            tool.step(pred, gt)
    return time.perf_counter() - start


def time_plain(pairs: list[Pair]) -> float:
    """Seconds of one pass over the pixels per threshold."""
    start = time.perf_counter()
    for pred, gt in pairs:
        for tool in (plain.mae, plain.f_curve, plain.e_curve, plain.s_measure):
            tool(pred, gt)
    return time.perf_counter() - start


def time_ours(pairs: list[Pair], definition: Literal["cosod", "sod"]) -> float:
    """Seconds of ours, of all measures of a definition."""
    start = time.perf_counter()
    for pred, gt in pairs:
        compute_measures(pred, gt, definition)
    return time.perf_counter() - start


def largest_difference(pairs: list[Pair]) -> float:
    """Between the plain form and ours."""
    apart = 0.0
    for pred, gt in pairs:
        ours = compute_measures(pred, gt, "cosod")
        apart = max(
            apart,
            abs(ours.mae - plain.mae(pred, gt)),
            abs(ours.s - plain.s_measure(pred, gt)),
            float(np.abs(ours.curves.f_T - plain.f_curve(pred, gt)).max()),
            float(np.abs(ours.curves.e_T - plain.e_curve(pred, gt)).max()),
        )
    return apart


def rows(given: Given, pairs: int = 0, size_px: int = 352) -> Iterator[Row]:
    """Measure on one core: both tools see the same decoded pairs."""
    keep_one_core()
    pairs = pairs or (50 if given.is_quick else 1000)
    with scratch_folder() as root:
        kept = write_trees(root, pairs, size_px)
        start = time.process_time()
        evaluate(root / "pred", root / "gt", definition="cosod")
        seconds = time.process_time() - start
    yield Row(
        name=f"evaluation of pairs of {size_px} px, decoding included",
        unit="pairs/s",
        figure=pairs / seconds,
        detail=f"{pairs} pairs, processor time",
    )
    time_pysodmetrics(kept[:1])  # warm
    few, many = kept[:3] if given.is_quick else kept[:8], kept[:20] if given.is_quick else kept
    theirs, naive = time_pysodmetrics(many) / len(many), time_plain(few) / len(few)
    for definition, target in (("cosod", 6.0), ("sod", None)):
        ours = time_ours(many, definition) / len(many)
        yield Row(
            name=f"measures `{definition}` at {size_px} px, PySODMetrics",
            target=target,
            figure=theirs / ours,
            detail=f"{1 / theirs:.0f} and {1 / ours:,.0f} pairs/s",
        )
    ours = time_ours(many, "cosod") / len(many)
    yield Row(
        name=f"measures `cosod` at {size_px} px, one pass a threshold",
        target=100,
        figure=naive / ours,
        detail=f"{1 / naive:.1f} and {1 / ours:,.0f} pairs/s",
    )
    yield Row(
        name="measures `cosod`: largest difference to one pass a threshold",
        target=1e-6,
        better="lower",
        unit="",
        figure=largest_difference(few),
    )


def keep_one_core() -> None:
    """The other tool takes what cores there are."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--size-px", type=int, default=352)
    arguments = parser.parse_args()
    show(rows(Given(images=Path()), arguments.pairs, arguments.size_px))


if __name__ == "__main__":
    main()
