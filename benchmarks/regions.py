"""Merging of patches into regions, beside the published form.

Run ``python -m benchmarks.regions``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.reference import regions as plain
from benchmarks.rows import Given, Row, show, times_in_turn
from umscosod.config import PseudoConfig
from umscosod.pseudo.regions import LabelMap, merge_patches
from umscosod.types import FloatArray

WIDTH = 64
THRESHOLDS = PseudoConfig().hac_thresholds


def smooth_keys(side: int) -> FloatArray:
    """Random keys that vary as a picture does: regions of all sizes."""
    noise = np.random.default_rng(0).normal(size=(side, side, WIDTH))
    blurred = np.stack([cv2.GaussianBlur(noise[..., channel], (0, 0), side / 15) for channel in range(WIDTH)], -1)
    return np.asarray(blurred / blurred.std() + 0.5 * noise).reshape(side * side, WIDTH)


def rows(given: Given) -> Iterator[Row]:
    """Measure, and see that the regions are the same."""
    side = 30 if given.is_quick else 60
    keys_PK, grid_hw = smooth_keys(side), (side, side)
    found: dict[str, Sequence[LabelMap]] = {}

    def merge(name: str, way: Callable[..., Sequence[LabelMap]]) -> None:
        found[name] = way(keys_PK, grid_hw, THRESHOLDS)

    ways = {
        "ours": partial(merge, "ours", merge_patches),
        "published": partial(merge, "published", plain.merge_patches),
    }
    seconds = times_in_turn(ways, 1)
    same = all(np.array_equal(one, other) for one, other in zip(*found.values(), strict=True))
    assert same, "regions differ"
    yield Row(
        name=f"regions of {side} x {side} tokens: published form, ours",
        target=30 if side == 60 else None,
        figure=seconds["published"].processor / seconds["ours"].processor,
        detail=f"the same {', '.join(str(one.max() + 1) for one in found['ours'])} regions",
    )


if __name__ == "__main__":
    show(rows(Given(images=Path())))
