"""Tiny groups of random features for the network's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from umscosod.types import GroupFeatures, GroupTokens, ImageGroup, ImageRef


@pytest.fixture
def make_features() -> Callable[..., GroupFeatures]:
    """Build a seeded group of `count` images of 12 px, with 3x3 and 2x2 tokens."""

    def build(count: int, *, seed: int = 0, dim_first: int = 8, dim_second: int = 8, size: int = 12) -> GroupFeatures:
        rng = np.random.default_rng(seed)

        def stream(grid: int, dim: int, name: str) -> GroupTokens:
            tokens = rng.standard_normal((count, grid * grid, dim)).astype(np.float16)
            attention = rng.random((count, 1, grid * grid)).astype(np.float16)
            return GroupTokens(
                tokens_NPD=tokens, keys_NPK=tokens, attn_NAP=attention, grid_hw=(grid, grid), backbone_id=name
            )

        images = tuple(ImageRef(id=f"g/{i}.png", path=Path(f"g/{i}.png"), output=f"g/{i}.png") for i in range(count))
        first, second = stream(3, dim_first, "first"), stream(2, dim_second, "second")
        return GroupFeatures(
            group=ImageGroup(name="g", images=images),
            first=first,
            second=second,
            saliency_NP=rng.random((count, 9)).astype(np.float32),
            pictures_NHW3=rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
            sizes_hw=((size, size),) * count,
        )

    return build
