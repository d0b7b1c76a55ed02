"""E-measure from counts: enhanced alignment of a binary map with its ground truth.

References
----------
D.-P. Fan et al., "Enhanced-alignment measure for binary foreground map evaluation", IJCAI 2018, arXiv:1805.10421.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from umscosod.types import FloatArray


def compute_alignment(
    foreground_TL: npt.NDArray[np.integer[Any]],
    pixels_L: npt.NDArray[np.integer[Any]],
    y_L: FloatArray,
    mean_y: np.floating[Any],
    *,
    eps: float,
) -> npt.NDArray[np.float64]:
    """E-measure at each threshold.

    With a and b the mean-free binary map and ground truth: x = 2ab / (a^2 + b^2 + eps), and the sum of (x + 1)^2 / 4
    over the N pixels / (N - 1 + eps). Pixels that share the ground-truth level and the side of the threshold share
    x, so there are 2 L terms.

    Parameters
    ----------
    foreground_TL : ndarray, int, (T, L)
        Pixels of each ground-truth level at or above each threshold.
    pixels_L : ndarray, int, (L,)
        All pixels of each level.
    y_L : ndarray, float, (L,)
        Value of each level. The terms are computed in this dtype: where the map covers nearly everything, the
        cancellation in 1 - mean is part of a tool's number. The sum over them is float64.
    mean_y : floating
        Mean of the ground truth, of the same dtype.
    eps : float

    Returns
    -------
    ndarray, float64, (T,)
        In [0, N / (N - 1)]. An image of a single pixel divides by `eps`: meaningless, as in both tools.

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
    # only a caller with eps = 0 can meet 0 / 0, where map and ground truth are both constant: x is 0 there
    aligned = np.divide(2 * b_11L * a_TS1, squares, out=np.zeros_like(squares), where=squares > 0)
    enhanced_TSL = (aligned + 1) * (aligned + 1) / 4
    counts_TSL = np.stack([pixels_L - foreground_TL, foreground_TL], axis=1)
    total_T = np.einsum("tsl,tsl->t", enhanced_TSL.astype(np.float64), counts_TSL.astype(np.float64))
    return np.asarray(total_T / (size - 1 + eps), dtype=np.float64)
