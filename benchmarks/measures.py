"""Time to score pairs of 352 x 352 pixels on one core, beside PySODMetrics and beside one pass a threshold.

Run ``python -m benchmarks.measures`` in an environment with the ``test`` extra. All tools see the same generated
maps (soft, noisy) and masks; the first figure includes decoding the PNG files, the ratios do not.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from benchmarks.reference import cosod as plain
from benchmarks.rows import Given, Row, scratch_folder, show, time_once, times_in_turn
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


def run_pysodmetrics(pairs: list[Pair]) -> None:
    """Compute its MAE, F, E, S and IoU."""
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
    for pred, gt in pairs:
        for tool in tools:
            tool.step(pred, gt)


def run_plain(pairs: list[Pair]) -> None:
    """Compute MAE, F, E and S by one pass over the pixels per threshold."""
    for pred, gt in pairs:
        for tool in (plain.mae, plain.f_curve, plain.e_curve, plain.s_measure):
            tool(pred, gt)


def run_ours(pairs: list[Pair], definition: Literal["cosod", "sod"]) -> None:
    """Compute all measures of a definition."""
    for pred, gt in pairs:
        compute_measures(pred, gt, definition)


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
        spent = time_once(partial(evaluate, root / "pred", root / "gt", definition="cosod"))
    yield Row(
        name=f"evaluation of pairs of {size_px} px, decoding included",
        unit="pairs/s",
        figure=pairs / spent.processor,
        detail=f"{pairs} pairs, processor time",
    )
    few = kept[:3]
    ways = {
        "theirs": partial(run_pysodmetrics, kept),
        "cosod": partial(run_ours, kept, "cosod"),
        "sod": partial(run_ours, kept, "sod"),
        "plain": partial(run_plain, few),
    }
    run_pysodmetrics(kept[:1])  # warm
    seconds = {name: one.processor for name, one in times_in_turn(ways, 1 if given.is_quick else 3).items()}
    each = {name: value / len(few if name == "plain" else kept) for name, value in seconds.items()}
    for name, other, ours, target in (
        ("PySODMetrics", "theirs", "cosod", 6.0),
        ("PySODMetrics", "theirs", "sod", None),
        ("one pass a threshold", "plain", "cosod", 100.0),
    ):
        yield Row(
            name=f"measures `{ours}` at {size_px} px: {name}, ours",
            target=target,
            figure=each[other] / each[ours],
            detail=f"{1 / each[other]:.3g} and {1 / each[ours]:,.0f} pairs/s",
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
