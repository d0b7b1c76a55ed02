"""Moving masks, maps and pictures between map size, CRF size and the image's own size."""

from __future__ import annotations

import cv2
import numpy as np

from umscosod.types import BoolArray, ByteArray, FloatArray

_HALF = 0.5  # a pixel belongs to the side that covers at least half of it: geometry, not a setting


def _interpolation(old_hw: tuple[int, ...], new_hw: tuple[int, int]) -> int:
    """Area means where both sides shrink (bilinear would skip pixels), bilinear elsewhere."""
    shrinks = new_hw[0] <= old_hw[0] and new_hw[1] <= old_hw[1]
    return cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR


def resize_mask(mask_HW: BoolArray, size_hw: tuple[int, int]) -> BoolArray:
    """Resize a mask: interpolate it as 0/1 floats, then keep what is at least half covered.

    Parameters
    ----------
    mask_HW : ndarray, bool, (H, W)
    size_hw : (int, int)
        Height and width wanted.

    Returns
    -------
    ndarray, bool, size_hw
        Pixel centres are kept in place (half-pixel convention). The same array where the size already fits.
        Smoother borders than nearest neighbour gives. Shrinking may lose a region thinner than half a pixel.
    """
    if mask_HW.shape == size_hw:
        return mask_HW
    soft_HW = cv2.resize(
        mask_HW.astype(np.float32), (size_hw[1], size_hw[0]), interpolation=_interpolation(mask_HW.shape, size_hw)
    )
    return np.asarray(soft_HW >= _HALF)


def resize_picture(picture_HW3: ByteArray, size_hw: tuple[int, int]) -> ByteArray:
    """Resize a picture in 8 bits; the same array where the size already fits.

    Parameters
    ----------
    picture_HW3 : ndarray, uint8, (H, W, 3)
    size_hw : (int, int)

    Returns
    -------
    ndarray, uint8, (size_hw, 3)
    """
    if picture_HW3.shape[:2] == size_hw:
        return picture_HW3
    out = cv2.resize(
        picture_HW3, (size_hw[1], size_hw[0]), interpolation=_interpolation(picture_HW3.shape[:2], size_hw)
    )
    return np.asarray(out, dtype=np.uint8)


def _lerp(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower neighbour, upper neighbour and weight of the upper one, with both end points held in place."""
    position = np.arange(new) * ((old - 1) / (new - 1)) if new > 1 else np.zeros(1)
    lower = np.minimum(position.astype(np.int64), old - 1)
    return lower, np.minimum(lower + 1, old - 1), position - lower


def resize_map(map_HW: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Bilinear resize with the corner pixels held in place (align_corners), as saved soft maps are.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W)
    size_hw : (int, int)

    Returns
    -------
    ndarray, float64, size_hw
        Within the range of the input. An output side of one pixel takes the first row or column.

    Examples
    --------
    >>> resize_map(np.array([[0.0, 1.0]]), (1, 3)).tolist()
    [[0.0, 0.5, 1.0]]
    """
    values = map_HW.astype(np.float64, copy=False)
    top, bottom, down = _lerp(values.shape[0], size_hw[0])
    left, right, across = _lerp(values.shape[1], size_hw[1])
    rows = values[top] + (values[bottom] - values[top]) * down[:, None]
    return np.asarray(rows[:, left] + (rows[:, right] - rows[:, left]) * across)
