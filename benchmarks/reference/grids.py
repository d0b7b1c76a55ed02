"""Token grids resized channel by channel."""

from __future__ import annotations

import numpy as np

from umscosod.data.resize import resize_centred
from umscosod.types import FloatArray


def resize_grids(grids_NhwC: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """As `umscosod.data.resize.resize_grids`, by a loop over images and channels."""
    channels = range(grids_NhwC.shape[3])
    resized = [
        np.stack([resize_centred(np.ascontiguousarray(grid[..., channel]), size_hw) for channel in channels], -1)
        for grid in grids_NhwC
    ]
    return np.stack(resized)
