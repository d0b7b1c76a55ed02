"""Soft maps and their logits: two maps as one."""

from __future__ import annotations

import numpy as np

from umscosod.types import FloatArray

_SURE = 1e-3  # maps are taken in [_SURE, 1 - _SURE], so that a logit is finite; below the 1 / 255 of a saved map


def blend_maps(own_NHW: FloatArray, other_NHW: FloatArray, share: float) -> FloatArray:
    """Mean of two soft maps in logits, the other's brought to the size of our own: neither counts more for being surer.

    Parameters
    ----------
    own_NHW, other_NHW : ndarray, float, (N, H, W), in [0, 1]
        Own ones say how sure a map of this group is to be.
    share : float
        Of the other, in [0, 1].

    Returns
    -------
    ndarray, float32, (N, H, W), in [0, 1]
        sigmoid((1 - share) logit own + share (r_own / r_other) logit other), with r the root mean square of logits
        over the group, so that a network that has learnt nothing yet cannot outvote a label; own maps as they are
        where the other's are 0.5 all over.

    Examples
    --------
    >>> own, other = np.array([[[0.6, 0.4]]]), np.array([[[0.01, 0.99]]])
    >>> blend_maps(own, other, 0.25).astype(float).round(2).tolist()  # no 0.45: it is sure, but counts a quarter
    [[[0.55, 0.45]]]
    """
    own, other = logit(own_NHW), logit(other_NHW)
    size, other_size = (float(np.sqrt((logits**2).mean())) for logits in (own, other))
    if other_size <= 0.0:
        return own_NHW.astype(np.float32)
    return sigmoid((1.0 - share) * own + share * size / other_size * other).astype(np.float32)


def logit(maps: FloatArray) -> FloatArray:
    """Logits of maps in [0, 1], float64; those nearer to 0 or 1 than 0.001 count as 0.001 and 0.999."""
    inside = np.clip(maps.astype(np.float64), _SURE, 1.0 - _SURE)
    return np.asarray(np.log(inside / (1.0 - inside)))


def sigmoid(logits: FloatArray) -> FloatArray:
    """1 / (1 + exp(-logits)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
