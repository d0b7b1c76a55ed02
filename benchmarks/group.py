"""Time and memory of the network on one large group, random tokens of the weight-free widths.

Run ``python benchmarks/group.py --images N``.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch

from umscosod.config.io import load_config
from umscosod.network.model import build_network, predict_maps
from umscosod.types import GroupFeatures, GroupTokens, ImageGroup, ImageRef

GRIDS, DIMS, SIZE = (28, 14), (37, 36), 224


def main() -> None:
    """Predict one group and print seconds and the peak of memory above the start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    count = parser.parse_args().images
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
    features = GroupFeatures(
        group=ImageGroup(name="random", images=images),
        first=first,
        second=second,
        saliency_NP=rng.random((count, GRIDS[0] ** 2)).astype(np.float32),
        pictures_NHW3=np.zeros((count, SIZE, SIZE, 3), np.uint8),
        sizes_hw=((SIZE, SIZE),) * count,
    )
    model = build_network(load_config("fast").network, *DIMS, seed=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    maps_NHW = predict_maps(model, features, torch.device("cpu"))
    seconds = time.perf_counter() - start
    above = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    dense = 2 * 4 * (count * GRIDS[0] ** 2) ** 2 / 2**20
    print(f"{len(maps_NHW)} images: {seconds:.1f} s, {above:.0f} MB above the start")
    print(f"the dense affinity and its copy would take {dense:,.0f} MB")


if __name__ == "__main__":
    main()
