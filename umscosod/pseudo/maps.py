"""A pseudo-label as a soft map, so that it can be refined like a network's map."""

from __future__ import annotations

import numpy as np

from umscosod.config import PseudoConfig
from umscosod.data.resize import resize_centred
from umscosod.pseudo.attention import attention_threshold
from umscosod.pseudo.manifest import HUMAN_SOURCE
from umscosod.types import FloatArray, PseudoLabel


def label_map(
    label: PseudoLabel, saliency_hw: FloatArray, size_hw: tuple[int, int], config: PseudoConfig
) -> FloatArray:
    """Average the mask with the attention, the latter raised so that its own threshold (eq. 1) becomes 0.5.

    A ViT's attention is peaked: most of an object lies far below half of its maximum. A map whose threshold is above
    0.5 already, as that of ``embedded``, stays as it is.

    Parameters
    ----------
    label : PseudoLabel
    saliency_hw : ndarray, float, (h, w), in [0, 1]
    size_hw : (int, int)
        Size of the map asked for.
    config : PseudoConfig

    Returns
    -------
    ndarray, float32, size_hw, in [0, 1]
        At least 0.5 where the resized mask is 1, at most 0.5 where it is 0; where it is between, along its border, the
        attention decides. A person's mask stays as it is, and so does a label that is a map of its own, or one that
        ``select=masks`` chose without the attention.
    """
    mask_HW = resize_centred(label.map_hw, size_hw)
    if label.source == HUMAN_SOURCE or label.is_map or config.select == "masks":
        return mask_HW.astype(np.float32)
    mode = "mass" if config.sa_binarize == "soft" else config.sa_binarize
    threshold = attention_threshold(saliency_hw, mode, config.sa_mass)
    if not np.isfinite(threshold) or threshold <= 0:
        return mask_HW.astype(np.float32)
    attention_HW = np.clip(resize_centred(saliency_hw, size_hw) / (2.0 * min(threshold, 0.5)), 0.0, 1.0)
    return np.asarray(0.5 * (mask_HW + attention_HW), np.float32)
