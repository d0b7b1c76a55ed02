"""Cues that one mask gives by itself: its form, its place and how it parts the image. Higher speaks for the mask.

Suffixes: ``P`` patches, ``D`` token width, ``H W`` pixels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from umscosod.config import ConfidenceConfig
from umscosod.types import BoolArray, ByteArray, FloatArray

_DISC = 2.0 * math.sqrt(math.pi)  # perimeter of a disc over the root of its area


def mask_cues(mask_HW: BoolArray, picture_HW3: ByteArray, config: ConfidenceConfig) -> dict[str, float]:
    """Every cue of this file that needs no tokens, by name; the mask must be neither empty nor full."""
    return {
        "inner_sides": inner_sides(mask_HW, config.touch_share),
        "inner_outline": inner_outline(mask_HW),
        "compactness": compactness(mask_HW),
        "wholeness": wholeness(mask_HW),
        "size": math.log(float(mask_HW.mean())),
        "centrality": centrality(mask_HW),
        "colour_contrast": colour_contrast(mask_HW, picture_HW3, config),
    }


def inner_sides(mask_HW: BoolArray, touch_share: float) -> float:
    """Minus the number of the image's sides that the mask touches along more than a share of their length.

    Backgrounds reach from side to side; an object that does is cut off.

    Examples
    --------
    >>> inner_sides(np.array([[True, False], [True, False]]), 0.6)
    -1.0
    """
    sides = (mask_HW[0], mask_HW[-1], mask_HW[:, 0], mask_HW[:, -1])
    return -float(sum(side.mean() > touch_share for side in sides))


def inner_outline(mask_HW: BoolArray) -> float:
    """Minus the share of the mask's outline that is the frame of the image; in [-1, 0].

    Examples
    --------
    A 1 x 2 mask in a corner of a 2 x 3 image: three of its six sides of pixels are frame.

    >>> inner_outline(np.array([[True, True, False], [False, False, False]]))
    -0.5
    """
    frame = sum(int(side.sum()) for side in (mask_HW[0], mask_HW[-1], mask_HW[:, 0], mask_HW[:, -1]))
    return -frame / max(1, frame + _inner_edges(mask_HW))


def compactness(mask_HW: BoolArray) -> float:
    """Perimeter of a disc of the mask's area over the mask's outline inside the image; capped at 1.

    Examples
    --------
    A square of 2 x 2 pixels has an outline of 8; a disc of its area 2 sqrt(4 pi) = 7.09.

    >>> mask_HW = np.zeros((4, 4), bool)
    >>> mask_HW[1:3, 1:3] = True
    >>> round(compactness(mask_HW), 3)
    0.886
    """
    return min(1.0, _DISC * math.sqrt(float(mask_HW.sum())) / max(1, _inner_edges(mask_HW)))


def wholeness(mask_HW: BoolArray) -> float:
    """Share of the mask that its largest connected component holds (8 neighbours); 0 for an empty mask.

    Examples
    --------
    >>> wholeness(np.array([[True, True, True, False, True]]))
    0.75
    """
    labels_HW, count = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    areas = np.bincount(labels_HW.ravel())[1:]
    return float(areas.max() / areas.sum()) if count else 0.0


def centrality(mask_HW: BoolArray) -> float:
    """Minus the distance of the mask's centre from the image's, in sides of the image; in [-0.71, 0].

    Examples
    --------
    >>> centrality(np.array([[True, False]]))
    -0.25
    """
    rows, columns = np.nonzero(mask_HW)
    height, width = mask_HW.shape
    return -math.hypot((rows.mean() + 0.5) / height - 0.5, (columns.mean() + 0.5) / width - 0.5)


def colour_contrast(mask_HW: BoolArray, picture_HW3: ByteArray, config: ConfidenceConfig) -> float:
    """How unlike the colours inside the mask are to those of a ring around it.

    Returns
    -------
    float
        1 - Bhattacharyya coefficient of two CIELAB histograms: 0 for equal colours, 1 where none is shared, and 0
        where there is no ring.

    Examples
    --------
    >>> picture_HW3 = np.zeros((1, 40, 3), np.uint8)
    >>> picture_HW3[:, :20] = 255
    >>> mask_HW = np.arange(40)[None] < 20
    >>> colour_contrast(mask_HW, picture_HW3, ConfidenceConfig())
    1.0
    """
    width = max(1, round(config.ring_share * max(mask_HW.shape)))
    kernel = np.ones((2 * width + 1,) * 2, np.uint8)
    ring_HW = cv2.dilate(mask_HW.astype(np.uint8), kernel).astype(bool) & ~mask_HW
    if not ring_HW.any() or not mask_HW.any():
        return 0.0
    lab_HW3 = cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2LAB).astype(np.int64)
    inside, ring = (_histogram(lab_HW3[where], config.colour_bins) for where in (mask_HW, ring_HW))
    return min(1.0, max(0.0, 1.0 - float(np.sqrt(inside * ring).sum())))


def separation(tokens_PD: FloatArray, share_P: FloatArray) -> float:
    """How cleanly the mask parts the image's own tokens.

    Returns
    -------
    float
        Correlation of the mask with the tokens' projection on the difference of the two means, in [-1, 1]; 0 for an
        empty or a full mask.

    Examples
    --------
    >>> round(separation(np.array([[1.0], [1.0], [-2.0]]), np.array([1.0, 1.0, 0.0])), 6)
    1.0
    """
    if not 0.0 < share_P.sum() < len(share_P):
        return 0.0
    inside_D = share_P @ tokens_PD / share_P.sum()
    outside_D = (1.0 - share_P) @ tokens_PD / (1.0 - share_P).sum()
    return correlation(tokens_PD @ (inside_D - outside_D), share_P)


def correlation(first_P: FloatArray, second_P: FloatArray) -> float:
    """Pearson's correlation; 0 where either is constant.

    Examples
    --------
    >>> correlation(np.array([0.0, 1.0]), np.array([5.0, 3.0])), correlation(np.zeros(2), np.ones(2))
    (-1.0, 0.0)
    """
    first_P, second_P = first_P - first_P.mean(), second_P - second_P.mean()
    norm = math.sqrt(float((first_P**2).sum()) * float((second_P**2).sum()))
    return float(np.clip(first_P @ second_P / norm, -1.0, 1.0)) if norm > 0.0 else 0.0


def _inner_edges(mask_HW: BoolArray) -> int:
    """Sides of pixels between inside and outside."""
    across = np.count_nonzero(mask_HW[:, 1:] != mask_HW[:, :-1])
    return int(across + np.count_nonzero(mask_HW[1:] != mask_HW[:-1]))


def _histogram(colours_R3: npt.NDArray[np.int64], bins: int) -> FloatArray:
    index_R3 = colours_R3 * bins // 256
    flat = (index_R3[:, 0] * bins + index_R3[:, 1]) * bins + index_R3[:, 2]
    return np.asarray(np.bincount(flat, minlength=bins**3) / len(flat))
