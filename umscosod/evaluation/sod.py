"""The definition ``sod``: the arithmetic of PySODMetrics (MIT licence), in float64.

Adaptive F and E and the IoU are by this tool's rules under both definitions.

References
----------
L. Pang, PySODMetrics 1.6.2, https://github.com/lartpang/PySODMetrics. R. Achanta et al., "Frequency-tuned salient
region detection", CVPR 2009 (F-measure, adaptive threshold).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from umscosod.evaluation.histogram import LEVELS, IntArray, JointHistogram, count_at_or_above, quadrant_slices
from umscosod.evaluation.scores import Curves, Float64Array
from umscosod.evaluation.structure import compute_alignment, compute_structure
from umscosod.types import BoolArray, ByteArray

BETA2 = 0.3
EPS = float(np.spacing(1.0))
GT_LEVEL = 128
IOU_THRESHOLD = 0.5
TIE = 1e-9
"""Twice the mean is compared with the levels; nearer than this to one, the order of summation decides."""


def is_object(gt: ByteArray) -> BoolArray:
    """Ground truth: above 128.

    >>> is_object(np.array([128, 129], np.uint8)).tolist()
    [False, True]
    """
    return gt > GT_LEVEL


def normalise_levels(joint: JointHistogram) -> Float64Array:
    """Min-maxed value of each prediction level, unless the map is constant.

    Levels outside the range that occurs are clipped to [0, 1]; they count no pixels.
    """
    p_V = np.arange(LEVELS) / (LEVELS - 1)
    low, high = joint.occurring_levels()
    if low != high:
        p_V = (p_V - p_V[low]) / (p_V[high] - p_V[low])
    return np.clip(p_V, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BinaryCounts:
    """Pixels of background and object at each prediction level.

    Attributes
    ----------
    counts_LV : ndarray, int64, (2, 256)
        Background, then object.
    p_V : ndarray, float64, (256,)
        From `normalise_levels`.
    """

    counts_LV: IntArray
    p_V: Float64Array

    @classmethod
    def from_histogram(cls, joint: JointHistogram) -> BinaryCounts:
        """Sum the quadrants and binarise the ground truth."""
        counts_LV = joint.counts_QLV.sum(axis=0)
        is_object_L = is_object(joint.gt_levels_L)
        both = np.stack([counts_LV[~is_object_L].sum(axis=0), counts_LV[is_object_L].sum(axis=0)])
        return cls(counts_LV=both, p_V=normalise_levels(joint))

    @property
    def size(self) -> int:
        """Pixels of the image."""
        return int(self.counts_LV.sum())


def compute_mae(binary: BinaryCounts) -> float:
    """Mean of abs(p - gt), both normalised."""
    background_V, object_V = binary.counts_LV
    return float(background_V @ binary.p_V + object_V @ (1.0 - binary.p_V)) / binary.size


def compute_precision_recall_f(foreground_TL: IntArray, area: int) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Precision, recall and F = 1.3 P R / (0.3 P + R) at each threshold; all 0 where nothing is hit.

    Parameters
    ----------
    foreground_TL : ndarray, int64, (T, 2)
        Background and object pixels at or above each threshold.
    area : int
        Object pixels.

    Examples
    --------
    One of two object pixels hit, and one miss: P = R = F = 1/2.

    >>> [round(float(value[0]), 6) for value in compute_precision_recall_f(np.array([[1, 1]]), 2)]
    [0.5, 0.5, 0.5]
    """
    hits_T = foreground_TL[:, 1]
    precision_T = hits_T / np.maximum(foreground_TL.sum(axis=1), 1)
    recall_T = hits_T / max(area, 1)
    above_T = (1.0 + BETA2) * precision_T * recall_T
    f_T = above_T / np.where(above_T == 0.0, 1.0, BETA2 * precision_T + recall_T)
    return precision_T, recall_T, f_T


def compute_e(foreground_TL: IntArray, binary: BinaryCounts) -> Float64Array:
    """E at each threshold; an empty ground truth scores the background share, a full one the foreground share."""
    pixels_L = binary.counts_LV.sum(axis=1)
    size, area = int(pixels_L.sum()), int(pixels_L[1])
    covered_T = foreground_TL.sum(axis=1)
    if area in (0, size):
        return np.asarray((covered_T if area else size - covered_T) / (size - 1 + EPS), dtype=np.float64)
    return compute_alignment(foreground_TL, pixels_L, np.array([0.0, 1.0]), np.float64(area / size), eps=EPS)


def compute_curves(binary: BinaryCounts) -> Curves:
    """Precision, recall, F and E at the 256 thresholds q >= i, q = 255 p cut down to whole numbers."""
    q_V = (binary.p_V * (LEVELS - 1)).astype(np.uint8)
    first_level_T = np.searchsorted(q_V, np.arange(LEVELS), side="left")
    foreground_TL = count_at_or_above(binary.counts_LV, first_level_T)
    precision_T, recall_T, f_T = compute_precision_recall_f(foreground_TL, int(binary.counts_LV[1].sum()))
    return Curves(
        thresholds_T=np.arange(LEVELS) / (LEVELS - 1),
        precision_T=precision_T,
        recall_T=recall_T,
        f_T=f_T,
        e_T=compute_e(foreground_TL, binary),
    )


def compute_adaptive(binary: BinaryCounts, pred_HW: ByteArray) -> tuple[float, float]:
    """F and E at twice the mean of the normalised map (at most 1), p >= t.

    The map itself is needed for ties only: where a level lies at the threshold, the mean is taken pixel by pixel in
    the tool's order of summation.
    """
    counts_V = binary.counts_LV.sum(axis=0)
    threshold = min(2.0 * float(counts_V @ binary.p_V) / binary.size, 1.0)
    if np.abs(binary.p_V[counts_V > 0] - threshold).min() < TIE:
        threshold = min(2.0 * float(binary.p_V[pred_HW].mean()), 1.0)
    first_level_T = np.searchsorted(binary.p_V, np.array([threshold]), side="left")
    foreground_TL = count_at_or_above(binary.counts_LV, first_level_T)
    _, _, f_T = compute_precision_recall_f(foreground_TL, int(binary.counts_LV[1].sum()))
    return float(f_T[0]), float(compute_e(foreground_TL, binary)[0])


def compute_iou(binary: BinaryCounts) -> float:
    """Intersection over union of p > 0.5 and the ground truth; 0 where both are empty, as F is.

    The map is min-maxed first, so a map that is not constant always has foreground.
    """
    is_foreground_V = binary.p_V > IOU_THRESHOLD
    hits = int(binary.counts_LV[1, is_foreground_V].sum())
    union = int(binary.counts_LV[1].sum() + binary.counts_LV[0, is_foreground_V].sum())
    return hits / union if union else 0.0


def compute_s(joint: JointHistogram, p_V: Float64Array) -> tuple[float, bool]:
    """S-measure, and whether the tool says NaN: an empty quadrant.

    Parameters
    ----------
    joint : JointHistogram
        Split one row and column behind the centroid, as MATLAB's 1-based ranges do.
    p_V : ndarray, float64, (256,)
    """

    def mean_keeps_constant(quadrant: int, value: float) -> bool:
        # the tool's own mean over the same piece of memory: it may be one unit in the last place off
        part_HW = np.full(joint.shape_hw, value)[quadrant_slices(joint.shape_hw, joint.split_rc)[quadrant]]
        return float(part_HW.mean()) == value

    return compute_structure(joint, p_V, is_object(joint.gt_levels_L), eps=EPS, mean_keeps_constant=mean_keeps_constant)
