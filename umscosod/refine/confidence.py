"""How far a mask can be trusted, from cues that need no ground truth."""

from __future__ import annotations

import math

from umscosod.data.resize import resize_mask
from umscosod.types import BoolArray, FloatArray


def mask_confidence(map_HW: FloatArray, mask_HW: BoolArray, other_HW: BoolArray | None = None) -> float:
    """Combine the map's contrast at the mask with the agreement of a second opinion.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
        The soft map the mask came from.
    mask_HW : ndarray, bool, (any height, any width)
    other_HW : ndarray, bool, (any height, any width), optional
        The mask of the other maker (pseudo-label or network).

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
