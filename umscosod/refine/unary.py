"""What DenseCRF starts from: how likely each pixel is foreground, and what that costs as an energy."""

from __future__ import annotations

import numpy as np

from umscosod.config import CrfConfig
from umscosod.data.resize import resize_centred, resize_mask
from umscosod.errors import DataError
from umscosod.types import BoolArray, FloatArray

_UNDECIDED = 0.5  # probability of a pixel for which neither label speaks


def _shift_to_half(map_HW: FloatArray, threshold: float) -> FloatArray:
    """Compute sigmoid(logit M - logit th): float64, (H, W); exactly 0.5 where M equals th, at 0 and 1 too.

    Written without logarithms, M (1 - th) / (M (1 - th) + th (1 - M)), which is finite for every M and th in [0, 1].
    """
    values = map_HW.astype(np.float64, copy=False)
    level = min(max(threshold, 0.0), 1.0)
    for_HW, against_HW = values * (1.0 - level), level * (1.0 - values)
    total_HW = for_HW + against_HW
    return np.asarray(np.divide(for_HW, total_HW, out=np.full_like(values, _UNDECIDED), where=total_HW > 0.0))


def foreground_probability(
    map_HW: FloatArray, mask_HW: BoolArray, threshold: float, size_hw: tuple[int, int], config: CrfConfig
) -> FloatArray:
    """How likely each pixel is foreground, before it is known how the picture looks there.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
    mask_HW : ndarray, bool, (H, W)
        Union of the regions kept.
    threshold : float
        Level of the map from which a pixel is foreground, from `effective_threshold`.
    size_hw : (int, int)
        Size wanted.
    config : CrfConfig
        Reads unary and confidence, c.

    Returns
    -------
    ndarray, float64, size_hw, in [1 - c, c]
        ``soft``: sigmoid(logit M - logit threshold), so 0.5 at the threshold and rising with M, clipped to [1 - c, c];
        1 - c in the regions dropped, which are the pixels that reach the threshold outside the mask; then resized
        with pixel centres in place. ``hard``: c inside the mask, 1 - c outside; the mask is what is resized, so that
        no pixel is in between.

    Raises
    ------
    DataError
        Map and mask differ in shape.

    Examples
    --------
    Odds of 9 against the threshold's 1; the third pixel is of a region that was dropped.

    >>> map_HW, mask_HW = np.array([[0.9, 0.5, 0.9, 0.0]]), np.array([[True, True, False, False]])
    >>> foreground_probability(map_HW, mask_HW, 0.5, (1, 4), CrfConfig(confidence=0.95)).round(2).tolist()
    [[0.9, 0.5, 0.05, 0.05]]
    >>> foreground_probability(map_HW, mask_HW, 0.5, (1, 4), CrfConfig(unary="hard")).round(2).tolist()
    [[0.98, 0.98, 0.02, 0.02]]
    """
    if map_HW.shape != mask_HW.shape:
        raise DataError(f"the CRF's map and mask must be of one size, got {map_HW.shape} and {mask_HW.shape}")
    low, high = 1.0 - config.confidence, config.confidence
    if config.unary == "hard":
        return np.where(resize_mask(mask_HW, size_hw), high, low)
    is_dropped_HW = (map_HW.astype(np.float64, copy=False) >= threshold) & ~mask_HW
    soft_HW = np.clip(_shift_to_half(map_HW, threshold), low, high)
    return resize_centred(np.where(is_dropped_HW, low, soft_HW), size_hw)


def build_unary(probability_HW: FloatArray) -> FloatArray:
    """Energies of the two labels, -log p.

    Parameters
    ----------
    probability_HW : ndarray, float, (H, W), in (0, 1)
        Of foreground, from `foreground_probability`.

    Returns
    -------
    ndarray, float32, (2, H * W), C-contiguous
        Row 0 background, row 1 foreground; row-major pixels.

    Examples
    --------
    >>> np.exp(-build_unary(np.array([[0.75, 0.5]]))).round(2).tolist()
    [[0.25, 0.5], [0.75, 0.5]]
    """
    flat = probability_HW.astype(np.float64, copy=False).ravel()
    return np.asarray(-np.log(np.stack([1.0 - flat, flat])), dtype=np.float32)
