"""Peer ``attention``: the self-attention map of each image, cut by a rule of its own.

Suffixes: ``N`` images, ``P`` patches, ``h w`` the token grid.
"""

from __future__ import annotations

import numpy as np

from umscosod.baselines.maps import ramp
from umscosod.config import AttentionConfig
from umscosod.pseudo.attention import attention_threshold
from umscosod.types import FloatArray, GroupFeatures


def attention_maps(features: GroupFeatures, config: AttentionConfig) -> FloatArray:
    """Bring each image's attention to a scale on which its own threshold is 0.5.

    Parameters
    ----------
    features : GroupFeatures
        The attention is `features.saliency_NP` as it stands.
    config : AttentionConfig

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
        threshold = attention_threshold(saliency_P, config.binarize, config.mass)
        is_flat = np.ptp(saliency_P) <= 0 or not np.isfinite(threshold)
        map_P = np.zeros(len(saliency_P), np.float32) if is_flat else ramp(saliency_P, 0.0, threshold, 1.0)
        maps.append(map_P.reshape(features.first.grid_hw))
    return np.stack(maps)
