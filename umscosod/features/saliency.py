"""The self-attention map of an image (spec A1.1).

Suffixes: ``A`` attention heads, ``P`` patches.
"""

from __future__ import annotations

import numpy as np

from umscosod.errors import DataError
from umscosod.types import FloatArray


def saliency_from_attention(attn_AP: FloatArray) -> FloatArray:
    """Average the heads and stretch to the full range.

    Parameters
    ----------
    attn_AP : ndarray, float, (A, P), >= 0

    Returns
    -------
    ndarray, float32, (P,), in [0, 1]
        All zeros where the mean is constant: such a map prefers no patch.

    Raises
    ------
    DataError
        Wrong rank, or NaN or infinity.

    Examples
    --------
    >>> saliency_from_attention(np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 6.0]])).tolist()
    [0.0, 0.25, 1.0]
    """
    if attn_AP.ndim != 2 or attn_AP.size == 0 or not np.isfinite(attn_AP).all():
        raise DataError(f"attention must be finite and (heads, patches), got shape {attn_AP.shape}")
    mean_P = np.asarray(attn_AP, dtype=np.float64).mean(axis=0)
    low, high = float(mean_P.min()), float(mean_P.max())
    if high <= low:
        return np.zeros(mean_P.shape, dtype=np.float32)
    saliency_P: FloatArray = ((mean_P - low) / (high - low)).astype(np.float32)
    return saliency_P
