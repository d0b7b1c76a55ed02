"""Computes S-measure and E-measure of one pair.

References
----------
D.-P. Fan et al., "Enhanced-alignment measure for binary foreground map evaluation", IJCAI 2018, arXiv:1805.10421.
D.-P. Fan et al., "Structure-measure: a new way to evaluate foreground maps", ICCV 2017, arXiv:1708.00786.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from umscosod.evaluation.histogram import JointHistogram
from umscosod.types import BoolArray, FloatArray, IntArray


def compute_alignment(
    foreground_TL: npt.NDArray[np.integer[Any]],
    pixels_L: npt.NDArray[np.integer[Any]],
    y_L: FloatArray,
    mean_y: np.floating[Any],
    *,
    eps: float,
) -> npt.NDArray[np.float64]:
    """Compute the E-measure at each threshold.

    With a and b the mean-free binary map and ground truth: x = 2ab / (a^2 + b^2 + eps), and E is the sum of
    (x + 1)^2 / 4 over the N pixels, divided by (N - 1 + eps). Pixels with the same ground-truth level on the same side
    of the threshold have the same x, so there are 2 L terms.

    Parameters
    ----------
    foreground_TL : ndarray, int, (T, L)
        Pixels of each ground-truth level at or above each threshold.
    pixels_L : ndarray, int, (L,)
        All pixels of each level.
    y_L : ndarray, float, (L,)
        Value of each level. The terms are computed in this dtype: if the map covers nearly everything, the
        cancellation in 1 - mean is part of a tool's result. The sum over them is float64.
    mean_y : floating
        Mean of the ground truth, of the same dtype.
    eps : float

    Returns
    -------
    ndarray, float64, (T,)
        In [0, N / (N - 1)]. For an image of a single pixel it is divided by `eps`: meaningless, as in both tools.

    Examples
    --------
    Two pixels, a perfect map: x = 1 at both, so 2 / (2 - 1).

    >>> perfect = np.array([[0, 1]])
    >>> compute_alignment(perfect, np.array([1, 1]), np.array([0.0, 1.0]), np.float64(0.5), eps=0.0)
    array([2.])
    """
    dtype = y_L.dtype.type
    size = int(pixels_L.sum())
    mean_T = foreground_TL.sum(axis=1).astype(dtype) / dtype(size)
    a_TS = np.stack([dtype(0) - mean_T, dtype(1) - mean_T], axis=1)
    b_L = (y_L - mean_y).astype(dtype)
    a_TS1, b_11L = a_TS[:, :, None], b_L[None, None, :]
    squares = b_11L * b_11L + a_TS1 * a_TS1 + dtype(eps)
    # 0 / 0 occurs only with eps = 0, if map and ground truth are both constant: x is 0 there
    aligned = np.divide(2 * b_11L * a_TS1, squares, out=np.zeros_like(squares), where=squares > 0)
    enhanced_TSL = (aligned + 1) * (aligned + 1) / 4
    counts_TSL = np.stack([pixels_L - foreground_TL, foreground_TL], axis=1)
    total_T = np.einsum("tsl,tsl->t", enhanced_TSL.astype(np.float64), counts_TSL.astype(np.float64))
    return np.asarray(total_T / (size - 1 + eps), dtype=np.float64)


Float64Array = npt.NDArray[np.float64]
MeanKeepsConstant = Callable[[int, float], bool]
"""``(quadrant, value)``: whether the mean over a quadrant of one single value equals that value exactly."""

OBJECT_SHARE = 0.5


def always_keeps_constant(quadrant: int, value: float) -> bool:
    """Return True, as in exact arithmetic: the mean of equal values is that value."""
    return True


def compute_structure(
    joint: JointHistogram,
    p_V: Float64Array,
    is_object_L: BoolArray,
    *,
    eps: float,
    mean_keeps_constant: MeanKeepsConstant = always_keeps_constant,
) -> tuple[float, bool]:
    """Compute the S-measure of one image, and whether it has an empty quadrant.

    Parameters
    ----------
    joint : JointHistogram
        Split at the centroid of the binary ground truth.
    p_V : ndarray, float64, (256,)
        Value in [0, 1] of each prediction level.
    is_object_L : ndarray, bool, (L,)
        True for the ground-truth levels of the object.
    eps : float
        Added to denominators.
    mean_keeps_constant : callable
        See `compute_similarity`.

    Returns
    -------
    (float, bool)
        S >= 0. Without an object 1 - mean(p), with only object mean(p) (in both cases no quadrant is empty).

    Notes
    -----
    Empty quadrants have weight 0, and the deviation of a one-pixel object or background is 0; in the tools one or both
    of these become NaN.
    """
    object_V = joint.counts_QLV[:, is_object_L].sum(axis=(0, 1))
    background_V = joint.counts_QLV[:, ~is_object_L].sum(axis=(0, 1))
    share = float(object_V.sum()) / joint.size
    if share in (0.0, 1.0):
        mean = float((object_V + background_V) @ p_V) / joint.size
        return (mean if share == 1.0 else 1.0 - mean), False
    of_object = share * compute_object_score(object_V, p_V, eps)
    of_object += (1.0 - share) * compute_object_score(background_V, 1.0 - p_V, eps)
    of_region, has_empty_quadrant = 0.0, False
    for quadrant, counts_LV in enumerate(joint.counts_QLV):
        area = int(counts_LV.sum())
        if area == 0:
            has_empty_quadrant = True
            continue
        similarity = compute_similarity(
            counts_LV[is_object_L].sum(axis=0),
            counts_LV[~is_object_L].sum(axis=0),
            p_V,
            eps=eps,
            mean_keeps_constant=partial(mean_keeps_constant, quadrant),
        )
        of_region += area / joint.size * similarity
    return max(0.0, OBJECT_SHARE * of_object + (1.0 - OBJECT_SHARE) * of_region), has_empty_quadrant


def compute_object_score(counts_V: IntArray, values_V: Float64Array, eps: float) -> float:
    """Return 2 m / (m^2 + 1 + sd + eps) over some pixels; sd is unbiased, and 0 for a single pixel.

    >>> round(compute_object_score(np.array([1, 1]), np.array([0.0, 1.0]), 0.0), 3)  # m = 1/2, sd = 0.7071
    0.511
    """
    count = int(counts_V.sum())
    mean = float(counts_V @ values_V) / count
    deviation = 0.0
    if count > 1:
        deviation = float(np.sqrt(counts_V @ (values_V - mean) ** 2 / (count - 1)))
    return 2.0 * mean / (mean * mean + 1.0 + deviation + eps)


def compute_similarity(
    object_V: IntArray,
    background_V: IntArray,
    p_V: Float64Array,
    *,
    eps: float,
    mean_keeps_constant: Callable[[float], bool],
) -> float:
    """Compute the structural similarity of map and mask in one quadrant.

    4 m_x m_y s_xy / ((m_x^2 + m_y^2)(s_x^2 + s_y^2) + eps), x the map and y the mask. If the numerator is 0, the result
    is 1 if the denominator is 0 too, else 0.

    Parameters
    ----------
    object_V, background_V : ndarray, int64, (256,)
        Number of pixels at each level; at least one in all.
    p_V : ndarray, float64, (256,)
    eps : float
    mean_keeps_constant : callable
        Used only if map and mask are both constant. Then the formula gives 1, but a tool whose mean of equal values is
        off by one unit in the last place gets a deviation and gives 0.

    Examples
    --------
    A map equal to its mask:

    >>> fg, bg = np.array([0, 2]), np.array([2, 0])
    >>> compute_similarity(fg, bg, np.array([0.0, 1.0]), eps=0.0, mean_keeps_constant=lambda value: True)
    1.0
    """
    counts_V = object_V + background_V
    area, area_object = int(counts_V.sum()), int(object_V.sum())
    levels = np.flatnonzero(counts_V)
    mask_is_constant = area_object in (0, area)
    if len(levels) == 1:
        value = float(p_V[levels[0]])
        return 1.0 if mask_is_constant and mean_keeps_constant(value) else 0.0
    if mask_is_constant:
        return 0.0
    mean_x = float(counts_V @ p_V) / area
    mean_y = area_object / area
    below = area - 1 + eps
    variance_x = float(counts_V @ (p_V - mean_x) ** 2) / below
    variance_y = (area_object * (1.0 - mean_y) ** 2 + (area - area_object) * mean_y**2) / below
    covariance = float(object_V @ (p_V - mean_x)) / below
    numerator = 4.0 * mean_x * mean_y * covariance
    return numerator / ((mean_x**2 + mean_y**2) * (variance_x + variance_y) + eps)
