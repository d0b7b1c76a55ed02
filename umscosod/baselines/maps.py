"""Maps of the baselines: what they share, and the baseline ``attention`` itself.

Suffixes: ``N`` images, ``P`` patches, ``h w`` the token grid.
"""

from __future__ import annotations

import numpy as np

from umscosod.pseudo.select import attention_threshold
from umscosod.types import BoolArray, FloatArray, GroupFeatures

_DECISION = 0.5
_BELOW = float(np.nextafter(np.float32(_DECISION), np.float32(0)))


def piecewise_rescale(values_P: FloatArray, low: float, level: float, high: float) -> FloatArray:
    """Map values to [0, 1] in two straight pieces: `low` to 0, `level` to 0.5, `high` to 1.

    Parameters
    ----------
    values_P : ndarray, float, any shape
        What lies outside [low, high] is clipped.
    low, level, high : float
        In that order; equal ones make a step, and a value at `level` counts as decided.

    Returns
    -------
    ndarray, float32, same shape

    Examples
    --------
    >>> piecewise_rescale(np.array([0.0, 1.0, 2.0, 6.0, 10.0]), 0.0, 2.0, 10.0).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    values = np.clip(np.asarray(values_P, np.float64), low, high)
    up = (values - level) / (high - level) if high > level else np.ones_like(values)
    down = (values - low) / (level - low) if level > low else np.zeros_like(values)
    return np.where(values >= level, _DECISION * (1.0 + up), np.minimum(_DECISION * down, _BELOW)).astype(np.float32)


def average_with_evidence(mask_P: BoolArray, evidence_P: FloatArray) -> FloatArray:
    """Average a mask with its evidence, as soft maps of pseudo-labels do: at least 0.5 in the mask, less outside.

    Parameters
    ----------
    mask_P : ndarray, bool, any shape
    evidence_P : ndarray, float, same shape, in [0, 1]

    Returns
    -------
    ndarray, float32, same shape, in [0, 1]

    Examples
    --------
    >>> average_with_evidence(np.array([True, True, False]), np.array([1.0, 0.5, 0.4])).round(2).tolist()
    [1.0, 0.75, 0.20000000298023224]
    """
    mean_P = _DECISION * (mask_P + np.asarray(evidence_P, np.float32))
    return np.where(mask_P, mean_P, np.minimum(mean_P, np.float32(_BELOW))).astype(np.float32)


def attention_maps(features: GroupFeatures) -> FloatArray:
    """Bring each image's attention to a scale on which its own threshold is 0.5.

    Parameters
    ----------
    features : GroupFeatures
        The attention is `features.saliency_NP` as it stands.

    Returns
    -------
    ndarray, float32, (N, h, w), in [0, 1]
        Zeros where the attention is constant.

    References
    ----------
    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021 (arXiv 2104.14294): patches that
    hold 60 % of the mass.
    """
    maps = []
    for saliency_P in np.asarray(features.saliency_NP, np.float64):
        threshold = attention_threshold(saliency_P)
        is_flat = np.ptp(saliency_P) <= 0 or not np.isfinite(threshold)
        map_P = np.zeros(len(saliency_P), np.float32) if is_flat else piecewise_rescale(saliency_P, 0.0, threshold, 1.0)
        maps.append(map_P.reshape(features.first.grid_hw))
    return np.stack(maps)
