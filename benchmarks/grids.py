"""Token grids brought to the grid of the other stream: two small matrix products beside a loop over channels.

Run ``python -m benchmarks.grids``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.reference import grids as plain
from benchmarks.rows import Given, Row, show, times_in_turn
from umscosod.data.resize import resize_grids
from umscosod.device import one_blas_thread

IMAGES, OLD, NEW, WIDTH = 20, (16, 16), (28, 28), 384
NAME = f"{IMAGES} grids of 16 x 16 tokens to 28 x 28: a loop over {WIDTH} channels, ours"


def rows(given: Given) -> Iterator[Row]:
    """Measure."""
    grids = np.random.default_rng(0).random((IMAGES, *OLD, WIDTH), dtype=np.float32)
    apart = float(np.abs(resize_grids(grids, NEW) - plain.resize_grids(grids, NEW)).max())
    assert apart <= 1e-6, f"grids differ by {apart:.1e}"
    ways = {"ours": partial(resize_grids, grids, NEW), "loop": partial(plain.resize_grids, grids, NEW)}
    with one_blas_thread():
        seconds = times_in_turn(ways, 2 if given.is_quick else 10)
    yield Row(
        name=NAME,
        figure=seconds["loop"].processor / seconds["ours"].processor,
        detail=f"largest difference {apart:.0e}",
    )


if __name__ == "__main__":
    show(rows(Given(images=Path())))
