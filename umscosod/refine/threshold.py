"""How far a mask can be trusted, from cues that need no ground truth."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from umscosod.config import RefineConfig
from umscosod.data.resize import resize_mask
from umscosod.errors import DataError
from umscosod.types import BoolArray, FloatArray

EMPTY_SHARE = 0.95  # of max(M), from which pixels are kept where nothing reaches the threshold


def mask_confidence(map_HW: FloatArray, mask_HW: BoolArray, other_HW: BoolArray | None = None) -> float:
    """Combine the map's contrast at the mask with the agreement of a second opinion.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
        The soft map the mask came from.
    mask_HW : ndarray, bool, (any height, any width)
    other_HW : ndarray, bool, (any height, any width), optional
        The mask of the other source (pseudo-label or network).

    Returns
    -------
    float
        In [0, 1]: the mean of the map inside the mask minus the mean outside, clipped at 0; with a second opinion the
        geometric mean of that and the two masks' IoU. 0 for an empty or a full mask.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.array([[True, False]])
    >>> mask_confidence(np.array([[0.9, 0.1]]), mask), mask_confidence(np.array([[0.9, 0.1]]), mask, ~mask)
    (0.8, 0.0)
    """
    inside_HW = resize_mask(mask_HW, (map_HW.shape[0], map_HW.shape[1]))
    if not inside_HW.any() or inside_HW.all():
        return 0.0
    contrast = max(0.0, float(map_HW[inside_HW].mean()) - float(map_HW[~inside_HW].mean()))
    if other_HW is None:
        return min(1.0, contrast)
    second_HW = resize_mask(other_HW, (map_HW.shape[0], map_HW.shape[1]))
    agreement = float((inside_HW & second_HW).sum() / (inside_HW | second_HW).sum())
    return min(1.0, math.sqrt(contrast * agreement))


def check_map(map_HW: FloatArray, name: str = "map") -> None:
    """Refuse what no threshold can be trusted on.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W)
    name : str
        How the message calls it, for example ``"map 3 of the group"``.

    Raises
    ------
    DataError
        Not 2-D, empty, not finite, or outside [0, 1].
    """
    if map_HW.ndim != 2 or map_HW.size == 0:
        raise DataError(f"{name} must be 2-D with at least one pixel, got shape {map_HW.shape}")
    low, high = float(map_HW.min()), float(map_HW.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int(np.count_nonzero(~np.isfinite(map_HW)))
        raise DataError(
            f"{name} holds {bad} of {map_HW.size} values that are NaN or infinite; "
            "the network or its input has overflowed: train again in float32 or from an earlier checkpoint"
        )
    if low < 0.0 or high > 1.0:
        raise DataError(f"{name} must lie in [0, 1], got [{low:g}, {high:g}]; divide 8-bit maps by 255")


def map_confidence(map_HW: FloatArray) -> float:
    """Mean of the map over the pixels that reach its mean: how sure a map is of its own foreground.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]

    Returns
    -------
    float
        In [0, 1]. A constant map scores its constant, an all-zero map 0.

    Raises
    ------
    DataError
        See `check_map`.

    Notes
    -----
    A pixel equal to the mean counts. Sums run in float64.

    References
    ----------
    Paper, eq. 6 (conf).

    Examples
    --------
    The mean is 0.5; two pixels reach it, with a mean of 0.9.

    >>> round(map_confidence(np.array([[1.0, 0.8], [0.2, 0.0]])), 6)
    0.9
    """
    check_map(map_HW)
    values = map_HW.astype(np.float64, copy=False)
    # Rounding may lift the mean of a constant map above its every pixel; the maximum always passes.
    mean = min(float(values.mean()), float(values.max()))
    return float(values[values >= mean].mean())


def compute_b_bar(maps: Iterable[FloatArray]) -> float:
    """Mean lack of confidence over a set of maps: the centre of eq. 6.

    Parameters
    ----------
    maps : iterable of ndarray, float, (H, W), in [0, 1]
        Soft maps of the training set, any sizes; read once, so a generator will do.

    Returns
    -------
    float
        b_bar = mean of 1 - conf, in [0, 1]; exactly the same for any order of the maps.

    Raises
    ------
    DataError
        No map at all, or one that `check_map` refuses.

    References
    ----------
    Paper, eq. 6 (mean of B_M over the training set).

    Examples
    --------
    >>> round(compute_b_bar([np.full((2, 2), 0.75), np.full((3, 1), 0.25)]), 6)
    0.5
    """
    lacks = [1.0 - map_confidence(map_HW) for map_HW in maps]
    if not lacks:
        raise DataError("compute_b_bar needs at least one map, got none; pass the soft maps of the training set")
    return math.fsum(lacks) / len(lacks)


def adaptive_threshold(map_HW: FloatArray, b_bar: float, config: RefineConfig) -> float:
    """Threshold of one map: raised where the map is less confident than usual, lowered where more.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
    b_bar : float
        From `compute_b_bar`.
    config : RefineConfig
        Reads adaptive, th0, alpha_c and th_clamp.

    Returns
    -------
    float
        th0 + alpha_c ((1 - conf) - b_bar), clamped to th_clamp; plain th0 where ``adaptive`` is off.

    Raises
    ------
    DataError
        See `check_map`.

    References
    ----------
    Paper, eq. 6. The clamp is ours: unclamped the threshold can exceed 1.

    Examples
    --------
    conf is 0.9, so the map lacks 0.1, which is 0.2 less than usual.

    >>> round(adaptive_threshold(np.array([[1.0, 0.8], [0.2, 0.0]]), 0.3, RefineConfig(alpha_c=1.0)), 6)
    0.3
    """
    if not config.adaptive:
        return config.th0
    low, high = config.th_clamp
    threshold = config.th0 + config.alpha_c * ((1.0 - map_confidence(map_HW)) - b_bar)
    return min(max(threshold, low), high)


def binarize(map_HW: FloatArray, threshold: float, config: RefineConfig) -> BoolArray:
    """Foreground of a map, with a rule for maps that nowhere reach the threshold.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
    threshold : float
        A pixel equal to it is foreground.
    config : RefineConfig
        Reads empty_floor.

    Returns
    -------
    ndarray, bool, (H, W)
        M >= threshold. Where that is empty: M >= `EMPTY_SHARE` * max(M) if max(M) > empty_floor, else all false.

    Raises
    ------
    DataError
        See `check_map`.

    References
    ----------
    Paper, eq. 6 (G_i). The rule for empty masks is ours.

    Examples
    --------
    >>> binarize(np.array([[0.40, 0.39, 0.10]]), 0.5, RefineConfig()).tolist()
    [[True, True, False]]
    """
    check_map(map_HW)
    # float64 on both sides: numpy would otherwise round the threshold to the map's precision first.
    values = map_HW.astype(np.float64, copy=False)
    mask_HW: BoolArray = values >= threshold
    peak = float(values.max())
    if not mask_HW.any() and peak > config.empty_floor:
        mask_HW = values >= EMPTY_SHARE * peak
    return mask_HW


def effective_threshold(map_HW: FloatArray, mask_HW: BoolArray, threshold: float) -> float:
    """Level that separates a map's mask from the rest: lower than the threshold where the rule for empty masks held.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
    mask_HW : ndarray, bool, (H, W)
        From `binarize` with the same threshold, before regions are dropped.
    threshold : float

    Returns
    -------
    float
        The threshold where the map reaches it, or where the mask is empty; else the smallest value inside the mask.

    Examples
    --------
    >>> map_HW = np.array([[0.40, 0.39, 0.10]])
    >>> effective_threshold(map_HW, binarize(map_HW, 0.5, RefineConfig()), 0.5)
    0.39
    """
    return min(threshold, float(map_HW[mask_HW].min())) if mask_HW.any() else threshold
