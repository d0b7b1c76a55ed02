"""Implements the definition ``cosod``: the arithmetic of eval-co-sod, the tool of the tables in co-saliency papers.

The tool works on float32 pictures. This module computes each value once per level of the histogram, not per pixel,
also in float32. So thresholds, precision and recall agree bit for bit. Sums over pixels are float64.

References
----------
The tool: "eval-co-sod" (with Z. Zhang et al., "Gradient-induced co-saliency detection", ECCV 2020,
arXiv:2004.13364). R. Achanta et al., "Frequency-tuned salient region detection", CVPR 2009 (F-measure).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from umscosod.evaluation.histogram import LEVELS, JointHistogram, count_at_or_above
from umscosod.evaluation.scores import Curves
from umscosod.evaluation.structure import compute_alignment, compute_structure
from umscosod.types import BoolArray, ByteArray

Float32Array = npt.NDArray[np.float32]

BETA2 = 0.3
EPS = 1e-20
THRESHOLDS = 255
GT_LEVEL = 128


def make_thresholds() -> Float32Array:
    """Return the thresholds i / 254 for i = 0..254, with the float32 bits of the tool's linspace.

    The step is 1/254 in float32. The lower half counts up from 0 and the upper half down from 1, each in double and
    rounded once. A plain i / 254 differs in the last place at ten indices, which changes pixels exactly at a
    threshold.

    >>> thresholds = make_thresholds()
    >>> float(thresholds[0]), float(thresholds[127]), float(thresholds[254])
    (0.0, 0.5, 1.0)
    """
    step = float(np.float32(1.0) / np.float32(THRESHOLDS - 1))
    index = np.arange(THRESHOLDS)
    rising, falling = step * index, 1.0 - step * (THRESHOLDS - 1 - index)
    return np.where(index < (THRESHOLDS + 1) // 2, rising, falling).astype(np.float32)


THRESHOLDS_T = make_thresholds()
RAW_V: Float32Array = np.arange(LEVELS, dtype=np.float32) / np.float32(LEVELS - 1)


def is_object(gt: ByteArray) -> BoolArray:
    """Binarise the ground truth for the S-measure: at least half, that is 128 of 255.

    >>> is_object(np.array([127, 128], np.uint8)).tolist()
    [False, True]
    """
    return gt >= GT_LEVEL


def normalise_levels(joint: JointHistogram) -> Float32Array:
    """Return (p - min) / (max - min + 1e-20) of each prediction level; a constant map becomes 0."""
    low, high = joint.occurring_levels()
    span = RAW_V[high] - RAW_V[low] + np.float32(EPS)
    return np.asarray((RAW_V - RAW_V[low]) / span, dtype=np.float32)


def compute_mae(joint: JointHistogram) -> float:
    """Return the mean of abs(p - gt) of the unchanged map and ground truth (soft values are kept)."""
    errors_LV = np.abs(RAW_V[None, :] - RAW_V[joint.gt_levels_L][:, None]).astype(np.float64)
    return float((joint.counts_QLV.sum(axis=0) * errors_LV).sum() / joint.size)


def compute_curves(joint: JointHistogram) -> Curves:
    """Return precision, recall, F and E at the 255 thresholds, p >= t on the min-maxed map.

    P = tp / (n + 1e-20), R = tp / (sum gt + 1e-20), F = 1.3 P R / (0.3 P + R), 0 / 0 -> 0. A soft ground truth is
    weighted by its value. E has no special case: a ground truth of one single value gives 0.25 N / (N - 1) everywhere
    (if that value is neither 0 nor 255, the tool's float32 mean may differ from it, and its E changes by up to 1e-4).
    """
    one = np.float32
    counts_LV = joint.counts_QLV.sum(axis=0)
    y_L = RAW_V[joint.gt_levels_L]
    first_level_T = np.searchsorted(normalise_levels(joint), THRESHOLDS_T, side="left")
    foreground_TL = count_at_or_above(counts_LV, first_level_T)
    pixels_L = counts_LV.sum(axis=1)

    weight = one(pixels_L @ y_L.astype(np.float64))
    hits_T = (foreground_TL @ y_L.astype(np.float64)).astype(np.float32)
    precision_T = hits_T / (foreground_TL.sum(axis=1).astype(np.float32) + one(EPS))
    recall_T = hits_T / (weight + one(EPS))
    below_T = one(BETA2) * precision_T + recall_T
    f_T = np.divide(one(1 + BETA2) * precision_T * recall_T, below_T, out=np.zeros_like(below_T), where=below_T > 0)
    # the mean of one single value is that value; another rounding would turn the ground truth into noise
    mean_y = weight / one(joint.size) if len(y_L) > 1 else y_L[0]
    e_T = compute_alignment(foreground_TL, pixels_L, y_L, mean_y, eps=EPS)
    return Curves(
        thresholds_T=THRESHOLDS_T.astype(np.float64),
        precision_T=precision_T.astype(np.float64),
        recall_T=recall_T.astype(np.float64),
        f_T=f_T.astype(np.float64),
        e_T=e_T,
    )


def compute_s(joint: JointHistogram) -> tuple[float, bool]:
    """Return the S-measure, and whether the tool gives NaN.

    The tool gives NaN for an empty quadrant, for an object or background of one pixel, and if all values of the ground
    truth are on one side of half without being all 0 or all 255, as in a mask of 0 and 1.

    Notes
    -----
    The tool detects an empty or full mask by its mean (float32), before it thresholds the mask at half. If a mask is
    empty or full only after the threshold, the tool computes mean and deviation of no pixels.

    If a quadrant of the map has one single value strictly between 0 and 1, and the mask is constant there, the tool's
    similarity is 1 or 0, by the rounding of its float32 sum (which varies with the number of threads). Here it is 1,
    the value of the formula.
    """
    p_V = normalise_levels(joint).astype(np.float64)
    is_object_L = is_object(joint.gt_levels_L)
    score, has_empty_quadrant = compute_structure(joint, p_V, is_object_L, eps=EPS)
    area = int(joint.counts_QLV[:, is_object_L].sum())
    if area in (0, joint.size):
        weight = joint.counts_QLV.sum(axis=(0, 2)) @ RAW_V[joint.gt_levels_L].astype(np.float64)
        return score, float(np.float32(weight / joint.size)) not in (0.0, 1.0)
    return score, has_empty_quadrant or 1 in (area, joint.size - area)
