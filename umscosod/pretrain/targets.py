"""What the network is taught: maps made by hand at first, then its own maps, both snapped to the picture.

Shape suffixes: ``N`` photographs, ``P = h * w`` cells, ``H W`` pixels, ``T`` side of a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from umscosod.config import CrfConfig
from umscosod.data.images import square_picture
from umscosod.features.embedded import DESCRIPTOR_DIM, compute_descriptors
from umscosod.features.group import Whitening, fit_whitening, sharpen_saliency
from umscosod.features.starter import coarse_contrast
from umscosod.refine.crf import build_unary, infer
from umscosod.types import ByteArray, FloatArray

TARGET_SIDE = 56  # cells along a side of a target
_WORK_PX = 112  # side at which targets are made
_CELL_PX = 4  # of the descriptors: a grid of 28 x 28
_LEAST_AREA, _MOST_AREA = 0.02, 0.75  # shares of the picture between which a target is taken for an object
_CONFIDENCE = 0.95  # bound of a map's probability before it is snapped to the picture
_CRF = CrfConfig(iterations=8, gaussian_xy_px=1.5, bilateral_xy_px=20.0)  # the product's, at half its side


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Maps to learn, and how far each is trusted.

    Attributes
    ----------
    maps_NTT : ndarray, uint8, (N, T, T)
        Probability of foreground, times 255.
    weights_N : ndarray, float32, (N,), in [0, 1]
        0: no object was found.
    """

    maps_NTT: ByteArray
    weights_N: FloatArray


def describe(picture_HW3: ByteArray) -> FloatArray:
    """Descriptors of a photograph's cells: float32, (784, 36)."""
    return compute_descriptors(square_picture(picture_HW3, _WORK_PX), _CELL_PX).reshape(-1, DESCRIPTOR_DIM)


def whitening_of(pictures: Sequence[ByteArray]) -> Whitening:
    """Fit the descriptors' statistics to some of the photographs."""
    return fit_whitening(describe(picture) for picture in pictures)


def handmade_maps(pictures: Sequence[ByteArray], whitening: Whitening) -> FloatArray:
    """Contrast to the border, sharpened by what the photographs and each by itself agree on; float32, (N, 28, 28).

    `umscosod.features.group.sharpen_saliency` for photographs that have nothing in common but that the backgrounds of
    the others tell what is background.
    """
    side = _WORK_PX // _CELL_PX
    tokens, firsts = [], []
    for picture in pictures:
        descriptors_PD = describe(picture)
        tokens.append(whitening.apply(descriptors_PD))
        firsts.append(coarse_contrast(descriptors_PD.reshape(side, side, -1)))
    saliency_NP = np.stack(firsts).astype(np.float32)
    return sharpen_saliency(np.stack(tokens), saliency_NP, (side, side)).reshape(-1, side, side)


def snap(map_hw: FloatArray, picture_HW3: ByteArray) -> tuple[ByteArray, float]:
    """Snap a map to the borders of its picture by DenseCRF.

    Parameters
    ----------
    map_hw : ndarray, float, (h, w), in [0, 1]
    picture_HW3 : ndarray, uint8, (H, W, 3)

    Returns
    -------
    ndarray, uint8, (T, T)
        The mean of the map and the CRF's marginals, times 255: soft where they disagree.
    float
        Trust, in [0, 1]: how far both agree (IoU at one half), less what of it lies along the picture's border; 0 for
        what is too small or too large to be an object.
    """
    small_HW3 = square_picture(picture_HW3, _WORK_PX)
    soft_HW = cv2.resize(map_hw.astype(np.float32), (_WORK_PX, _WORK_PX), interpolation=cv2.INTER_LINEAR)
    clipped_HW = np.asarray(np.clip(soft_HW, 1.0 - _CONFIDENCE, _CONFIDENCE), np.float32)
    marginal_HW = infer(build_unary(clipped_HW), small_HW3, _CRF)[1]
    before_HW, after_HW = soft_HW >= 0.5, marginal_HW >= 0.5
    union = int((before_HW | after_HW).sum())
    trust = 0.0
    if union and _LEAST_AREA <= after_HW.mean() <= _MOST_AREA:
        border = np.concatenate([after_HW[0], after_HW[-1], after_HW[1:-1, 0], after_HW[1:-1, -1]])
        trust = int((before_HW & after_HW).sum()) / union * (1.0 - float(border.mean()))
    target_TT = cv2.resize((0.5 * (soft_HW + marginal_HW)), (TARGET_SIDE, TARGET_SIDE), interpolation=cv2.INTER_AREA)
    return np.rint(255.0 * target_TT).astype(np.uint8), trust
