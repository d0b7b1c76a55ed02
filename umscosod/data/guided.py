"""A small map carried to the size of its picture by the picture itself: the guided filter.

Shape suffixes: ``h w`` the small map, ``H W`` the picture, ``K`` statistics of a window.
"""

from __future__ import annotations

import cv2
import numpy as np

from umscosod.data.resize import resize_centred, resize_picture
from umscosod.types import ByteArray, FloatArray

EPSILON = 1e-4  # variance of colours in [0, 1] below which a window is flat and takes the mean of its map


def upsample_guided(map_hw: FloatArray, picture_HW3: ByteArray, radius_px: int) -> FloatArray:
    """Enlarge a map so that its borders follow those of a picture.

    In each window of the small map the values are fitted by a linear function of the picture's colours; the mean of
    the functions that cover a pixel, enlarged, is applied to the colours at full size.

    Parameters
    ----------
    map_hw : ndarray, float, (h, w)
    picture_HW3 : ndarray, uint8, (H, W, 3)
        At least as large as the map.
    radius_px : int
        Of a window, in pixels of the small map.

    Returns
    -------
    ndarray, float64, (H, W)
        May leave the range of `map_hw`. It is linear in `map_hw`.

    References
    ----------
    He, Sun and Tang, "Guided Image Filtering", ECCV 2010 (DOI 10.1007/978-3-642-15549-9_1), with a guide of three
    channels; at low resolution: He and Sun, "Fast Guided Filter", arXiv 1505.00996.

    Examples
    --------
    A map whose border lies somewhere in its third column; the picture says where:

    >>> picture = np.zeros((8, 8, 3), np.uint8)
    >>> picture[:, 5:] = 255
    >>> abs(upsample_guided(np.array([[0.0, 0.0, 0.5, 1.0]] * 4), picture, 4)[0]).round(2).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    """
    values_hw = map_hw.astype(np.float64, copy=False)
    colour_hw3 = resize_picture(picture_HW3, (values_hw.shape[0], values_hw.shape[1])) / 255.0
    first, second = np.triu_indices(3)
    products_hw6 = colour_hw3[..., first] * colour_hw3[..., second]
    maps_hwK = np.dstack([colour_hw3, values_hw, colour_hw3 * values_hw[..., None], products_hw6])
    means_hwK = _window_means(maps_hwK, radius_px)
    mean_hw3, mean_hw = means_hwK[..., :3], means_hwK[..., 3]
    covariance_hw3 = means_hwK[..., 4:7] - mean_hw3 * mean_hw[..., None]
    scatter_hw33 = np.empty((*mean_hw.shape, 3, 3))
    scatter_hw33[..., first, second] = means_hwK[..., 7:] - mean_hw3[..., first] * mean_hw3[..., second]
    scatter_hw33[..., second, first] = scatter_hw33[..., first, second]
    slope_hw3 = np.linalg.solve(scatter_hw33 + EPSILON * np.eye(3), covariance_hw3[..., None])[..., 0]
    offset_hw = mean_hw - (slope_hw3 * mean_hw3).sum(-1)
    linear_hw4 = _window_means(np.dstack([slope_hw3, offset_hw]), radius_px)
    size_hw = picture_HW3.shape[:2]
    *slopes, offset_HW = (resize_centred(linear_hw4[..., channel], size_hw) for channel in range(4))
    return offset_HW + sum(slope * (picture_HW3[..., channel] / 255.0) for channel, slope in enumerate(slopes))


def _window_means(maps_hwK: FloatArray, radius_px: int) -> FloatArray:
    side = 2 * radius_px + 1
    return np.asarray(cv2.blur(maps_hwK, (side, side), borderType=cv2.BORDER_REFLECT))
