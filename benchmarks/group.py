"""Time and memory of the network on one large group, random tokens of the weight-free widths.

Run ``python -m benchmarks.group --images N``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.rows import Given, Row, in_fresh_process, peak_bytes, show
from umscosod.config.io import load_config
from umscosod.network.model import build_network, predict_maps
from umscosod.types import GroupFeatures, GroupTokens, ImageGroup, ImageRef

GRIDS, DIMS, SIZE = (28, 14), (37, 36), 224
LARGE = 500


def make_features(count: int) -> GroupFeatures:
    """Random tokens of one group, seeded."""
    rng = np.random.default_rng(0)
    first, second = (
        GroupTokens(
            tokens_NPD=rng.normal(size=(count, grid * grid, dim)).astype(np.float16),
            keys_NPK=np.zeros((count, grid * grid, 1), np.float16),
            attn_NAP=np.ones((count, 1, grid * grid), np.float16),
            grid_hw=(grid, grid),
            backbone_id="random",
        )
        for grid, dim in zip(GRIDS, DIMS, strict=True)
    )
    images = tuple(ImageRef(id=f"{i}.jpg", path=Path(f"{i}.jpg"), output=f"{i}.png") for i in range(count))
    return GroupFeatures(
        group=ImageGroup(name="random", images=images),
        first=first,
        second=second,
        saliency_NP=rng.random((count, GRIDS[0] ** 2)).astype(np.float32),
        pictures_NHW3=np.zeros((count, SIZE, SIZE, 3), np.uint8),
        sizes_hw=((SIZE, SIZE),) * count,
    )


def predict(count: int) -> tuple[float, float, float]:
    """Predict one group; seconds, MB above the start, MB of the whole process."""
    features = make_features(count)
    model = build_network(load_config("fast").network, *DIMS, seed=0)
    before = peak_bytes()
    start = time.perf_counter()
    maps_NHW = predict_maps(model, features, torch.device("cpu"))
    seconds = time.perf_counter() - start
    assert len(maps_NHW) == count
    return seconds, (peak_bytes() - before) / 1e6, peak_bytes() / 1e6


def measure(count: int) -> Row:
    """Predict in a fresh process."""
    seconds, above, whole = in_fresh_process(predict, count)
    dense = 2 * 4 * (count * GRIDS[0] ** 2) ** 2 / 1e6
    return Row(
        name=f"memory of a process whose network predicts {count} images in one group",
        target=2.0 if count >= LARGE else None,
        better="lower",
        unit="GB",
        figure=whole / 1e3,
        detail=f"{above:.0f} MB more than its input, dense affinity {dense:,.0f} MB; {seconds:.0f} s",
    )


def rows(given: Given) -> Iterator[Row]:
    """Measure."""
    yield measure(24 if given.is_quick else LARGE)


def main() -> None:
    """Predict one group and print memory and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    show([measure(parser.parse_args().images)])


if __name__ == "__main__":
    main()
