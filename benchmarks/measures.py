"""Time to score 1,000 pairs of 352 x 352 pixels on one core, and the ratio to PySODMetrics.

Run ``python benchmarks/measures.py`` in an environment with the ``test`` extra. Both tools see the same generated
maps (soft, noisy) and masks; the first figure includes decoding the PNG files, the ratio does not.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from umscosod.evaluation import compute_measures, evaluate, format_table

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


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--size-px", type=int, default=352)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        kept = write_trees(root, arguments.pairs, arguments.size_px)
        for definition in ("cosod", "sod"):
            start, cpu = time.perf_counter(), time.process_time()
            result = evaluate(root / "pred", root / "gt", definition=definition)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            print(f"{definition}: {arguments.pairs} pairs, decoding included: {wall:.2f} s (processor {cpu:.2f} s)")
        print(format_table(result), end="\n\n")
    theirs = time_pysodmetrics(kept) / len(kept)
    print(f"PySODMetrics, decoded pairs: {1 / theirs:.0f} pairs/s")
    for definition in ("cosod", "sod"):
        start = time.perf_counter()
        for pred, gt in kept:
            compute_measures(pred, gt, definition)
        ours = (time.perf_counter() - start) / len(kept)
        print(f"umscosod {definition}, decoded pairs: {1 / ours:.0f} pairs/s, {theirs / ours:.1f} x PySODMetrics")


if __name__ == "__main__":
    main()
