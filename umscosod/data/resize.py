"""Resizes maps, masks and pictures by two conventions.

`resize_aligned` keeps the corner pixels in place; soft maps are saved so, as in the benchmarks' code. The other
functions keep pixel centres in place (half-pixel convention), so that a mask stays on its picture. `resize_grids` is
`resize_centred` for many channels at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from umscosod.errors import DataError
from umscosod.types import BoolArray, ByteArray, FloatArray

LEAST_SIDE_PX = 8
"""Least side of a mask or map of another size than its image: smaller ones do not locate the object."""
_MISSED = 1 / 3  # our own maps: at most 0.21 (DINOv2, hard maps of ``paper``); object masks: at least 0.6
_HALF = 0.5  # a pixel belongs to the side that covers at least half of it: geometry, not a setting


def is_same_aspect(first_hw: tuple[int, ...], second_hw: tuple[int, ...]) -> bool:
    """Whether one size is the other, scaled and rounded: each side differs by less than a pixel of the smaller one.

    Examples
    --------
    >>> is_same_aspect((213, 320), (427, 640)), is_same_aspect((640, 427), (427, 640)), is_same_aspect((1, 1), (1, 2))
    (True, False, False)
    """
    small, large = sorted((first_hw, second_hw))
    return abs(small[0] * large[1] - large[0] * small[1]) < min(large)  # both differences, times the other side


def resize_aligned(map_HW: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Resize a map bilinearly with its corner pixels on the corners of the result.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W)
    size_hw : (int, int)
        Target height and width; a size smaller than (H, W) skips pixels (no averaging).

    Returns
    -------
    ndarray, float32 or float64, size_hw
        A new array in the map's own precision, at least float32. It equals torch's
        ``interpolate(mode="bilinear", align_corners=True)`` up to the last bits. A side of length 1 takes the first
        pixel. Values never leave the range of `map_HW`.

    Raises
    ------
    DataError
        `map_HW` is empty, not float or not 2-D, or a target side is below 1.

    Examples
    --------
    >>> resize_aligned(np.array([[0.0, 1.0]]), (1, 5)).tolist()
    [[0.0, 0.25, 0.5, 0.75, 1.0]]
    """
    values = _check(map_HW, size_hw)
    if values.shape == tuple(size_hw):
        return values.copy()
    left, right, across_W = _neighbours(values.shape[1], size_hw[1], values.dtype)
    wide_HW = values[:, left] * (1 - across_W) + values[:, right] * across_W
    top, bottom, down_H = _neighbours(values.shape[0], size_hw[0], values.dtype)
    resized_HW = wide_HW[top] * (1 - down_H[:, None]) + wide_HW[bottom] * down_H[:, None]
    return np.asarray(np.clip(resized_HW, values.min(), values.max()))  # rounding may exceed the range by one bit


def resize_saved(map_HW: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Resize a map from a file: one of ours gives back what it was enlarged from, another is averaged as it shrinks.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
    size_hw : (int, int)

    Returns
    -------
    ndarray, float32 or float64, size_hw
        `resize_aligned`, by which our maps were enlarged. Where the map shrinks and holds what its pixels at the
        wanted size, enlarged again, miss by more than a third: `resize_centred`, whose area means miss nothing.

    Raises
    ------
    DataError
        As `resize_aligned`.

    Examples
    --------
    Every second column is white; of an enlarged ramp the corners are enough.

    >>> resize_saved(np.array([[0.0, 1.0, 0.0, 1.0]]), (1, 2)).tolist()
    [[0.5, 0.5]]
    >>> resize_saved(np.array([[0.25, 0.5, 0.75, 1.0]]), (1, 2)).tolist()
    [[0.25, 1.0]]
    """
    sampled_HW = resize_aligned(map_HW, size_hw)
    height, width = map_HW.shape
    if size_hw[0] > height or size_hw[1] > width:
        return sampled_HW
    missed_HW = np.abs(resize_aligned(sampled_HW, (height, width)) - map_HW)
    return sampled_HW if missed_HW.max() <= _MISSED else resize_centred(map_HW, size_hw)


def resize_centred(map_HW: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Resize a map with pixel centres in place: bilinear; area means if both sides shrink.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W)
    size_hw : (int, int)

    Returns
    -------
    ndarray, float32 or float64, size_hw
        In the map's own precision, at least float32; the same array if the size is equal.

    Raises
    ------
    DataError
        As `resize_aligned`.

    Examples
    --------
    >>> resize_centred(np.array([[0.0, 1.0]]), (1, 4)).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    """
    return _resize(_check(map_HW, size_hw), size_hw)


def resize_grids(grids_NhwC: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Resize every channel of some grids as `resize_centred` does one, by two small matrix products.

    Parameters
    ----------
    grids_NhwC : ndarray, float, (N, h, w, C)
    size_hw : (int, int)

    Returns
    -------
    ndarray, float32 or float64, (N, size_hw, C)
        In the grids' own precision, at least float32; the same array if the size is equal and the precision stays.
        For sides up to 32 equal to `resize_centred`, but for 1e-6 of the values' range: OpenCV places the centres of
        some sizes in float32.

    Raises
    ------
    DataError
        The grids are not float or not 4-D, or a side is below 1.

    Examples
    --------
    Two channels of a grid of two columns:

    >>> resize_grids(np.array([[[[0.0, 4.0], [1.0, 8.0]]]]), (1, 4)).tolist()
    [[[[0.0, 4.0], [0.25, 5.0], [0.75, 7.0], [1.0, 8.0]]]]
    """
    if grids_NhwC.ndim != 4 or grids_NhwC.dtype.kind != "f" or min(*grids_NhwC.shape[1:3], *size_hw) < 1:
        raise DataError(
            f"resizing expects float grids (N, h, w, C) and sides of at least 1, got {grids_NhwC.dtype} "
            f"{grids_NhwC.shape} and {size_hw}"
        )
    values = grids_NhwC.astype(np.promote_types(grids_NhwC.dtype, np.float32), copy=False)
    count, height, width, channels = values.shape
    if (height, width) == tuple(size_hw):
        return values
    shrinks = size_hw[0] <= height and size_hw[1] <= width
    down = _side_weights(height, size_hw[0], shrinks=shrinks).astype(values.dtype)
    across = _side_weights(width, size_hw[1], shrinks=shrinks).astype(values.dtype)
    tall = down @ values.reshape(count, height, width * channels)
    return np.asarray(across @ tall.reshape(count, size_hw[0], width, channels))


@lru_cache(maxsize=64)
def _side_weights(old: int, new: int, *, shrinks: bool) -> npt.NDArray[np.float64]:
    """Weights of the old cells of a side in each new one: by covered length, or linear between centres; (new, old)."""
    index = np.arange(old)
    if shrinks:
        edges = np.arange(new + 1) * (old / new)
        covered = np.minimum(edges[1:, None], index + 1) - np.maximum(edges[:-1, None], index)
        weights = np.maximum(covered, 0.0) * (new / old)
    else:
        centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        weights = np.maximum(1.0 - np.abs(centres[:, None] - index), 0.0)
    weights.flags.writeable = False  # it is shared by all callers
    return np.asarray(weights)


def resize_mask(mask_HW: BoolArray, size_hw: tuple[int, int]) -> BoolArray:
    """Resize a mask: interpolate it as 0/1 with `resize_centred`, then keep pixels that are at least half covered.

    Parameters
    ----------
    mask_HW : ndarray, bool, (H, W)
    size_hw : (int, int)

    Returns
    -------
    ndarray, bool, size_hw
        The same array if the size is equal. Borders are smoother than with nearest neighbour. Shrinking may lose a
        region thinner than half a pixel.
    """
    if mask_HW.shape == size_hw:
        return mask_HW
    return np.asarray(resize_centred(mask_HW.astype(np.float32), size_hw) >= _HALF)


def mask_share(mask_HW: BoolArray, grid_hw: tuple[int, int]) -> FloatArray:
    """Share of every cell of a grid that a mask covers: float64, (h, w), in [0, 1].

    Exact where the grid is no finer than the mask, however small the mask; else interpolated.

    Examples
    --------
    >>> mask_share(np.array([[True, True, True, False]]), (1, 2)).tolist()
    [[1.0, 0.5]]
    """
    if mask_HW.all() or not mask_HW.any():  # filled in, not resized: averaging ones may round
        return np.full(grid_hw, float(mask_HW.any()))
    return resize_centred(mask_HW.astype(np.float64), grid_hw)


def resize_picture(picture_HW3: ByteArray, size_hw: tuple[int, int]) -> ByteArray:
    """Resize a picture in 8 bits, pixel centres in place; the same array if the size is equal.

    Parameters
    ----------
    picture_HW3 : ndarray, uint8, (H, W, 3)
    size_hw : (int, int)

    Returns
    -------
    ndarray, uint8, (size_hw, 3)
    """
    return _resize(picture_HW3, size_hw)


def _check(map_HW: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Refuse a bad map or size; return the map in at least float32, as the same array if possible."""
    if map_HW.ndim != 2 or map_HW.size == 0 or map_HW.dtype.kind != "f":
        raise DataError(f"resizing expects a float map (H, W), got {map_HW.dtype} {map_HW.shape}")
    if min(size_hw) < 1:
        raise DataError(f"resizing expects sides of at least 1 pixel, got {size_hw}")
    return map_HW.astype(np.promote_types(map_HW.dtype, np.float32), copy=False)


def _resize(array: npt.NDArray[Any], size_hw: tuple[int, int]) -> npt.NDArray[Any]:
    """Resize with pixel centres in place: area means if both sides shrink (no skipped pixels), else bilinear."""
    old_hw = array.shape[:2]
    if old_hw == tuple(size_hw):
        return array
    shrinks = size_hw[0] <= old_hw[0] and size_hw[1] <= old_hw[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(array, (size_hw[1], size_hw[0]), interpolation=method))


def _neighbours(
    old: int, new: int, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[Any]]:
    """Return two source indices per target index of one side, and the weight of the second, rounded as in torch."""
    step = dtype.type(old - 1) / dtype.type(new - 1) if new > 1 else dtype.type(0)
    position = np.arange(new, dtype=dtype) * step
    first = np.minimum(position.astype(np.intp), old - 1)
    second = np.minimum(first + 1, old - 1)
    return first, second, position - first.astype(dtype)
