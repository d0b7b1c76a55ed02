"""Implements the definition ``sod``: the arithmetic of PySODMetrics (MIT licence), in float64.

Adaptive F, adaptive E and IoU follow this tool under both definitions.

References
----------
L. Pang, PySODMetrics 1.6.2, https://github.com/lartpang/PySODMetrics. R. Achanta et al., "Frequency-tuned salient
region detection", CVPR 2009 (F-measure, adaptive threshold).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from umscosod.evaluation.histogram import LEVELS, JointHistogram, count_at_or_above, quadrant_slices
from umscosod.evaluation.scores import Curves, Float64Array
from umscosod.evaluation.structure import compute_alignment, compute_structure
from umscosod.types import BoolArray, ByteArray, IntArray

BETA2 = 0.3
EPS = float(np.spacing(1.0))
GT_LEVEL = 128
IOU_THRESHOLD = 0.5
TIE = 1e-9
"""If twice the mean is nearer than this to a level, the order of summation decides the comparison."""


def is_object(gt: ByteArray) -> BoolArray:
    """Binarise the ground truth: above 128.

    >>> is_object(np.array([128, 129], np.uint8)).tolist()
    [False, True]
    """
    return gt > GT_LEVEL


def normalise_levels(joint: JointHistogram) -> Float64Array:
    """Return the min-maxed value of each prediction level, unless the map is constant.

    Levels outside the occurring range are clipped to [0, 1]; they count no pixels.
    """
    p_V = np.arange(LEVELS) / (LEVELS - 1)
    low, high = joint.occurring_levels()
    if low != high:
        p_V = (p_V - p_V[low]) / (p_V[high] - p_V[low])
    return np.clip(p_V, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BinaryCounts:
    """Numbers of background and object pixels at each prediction level.

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
        """Number of pixels of the image."""
        return int(self.counts_LV.sum())


def compute_mae(binary: BinaryCounts) -> float:
    """Return the mean of abs(p - gt), both normalised."""
    background_V, object_V = binary.counts_LV
    return float(background_V @ binary.p_V + object_V @ (1.0 - binary.p_V)) / binary.size


def compute_precision_recall_f(foreground_TL: IntArray, area: int) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return precision, recall and F = 1.3 P R / (0.3 P + R) at each threshold; all 0 without a true positive.

    Parameters
    ----------
    foreground_TL : ndarray, int64, (T, 2)
        Background and object pixels at or above each threshold.
    area : int
        Number of object pixels.

    Examples
    --------
    One of two object pixels found, and one false positive: P = R = F = 1/2.

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
    """Return E at each threshold; background share for an empty ground truth, foreground share for a full one."""
    pixels_L = binary.counts_LV.sum(axis=1)
    size, area = int(pixels_L.sum()), int(pixels_L[1])
    covered_T = foreground_TL.sum(axis=1)
    if area in (0, size):
        return np.asarray((covered_T if area else size - covered_T) / (size - 1 + EPS), dtype=np.float64)
    return compute_alignment(foreground_TL, pixels_L, np.array([0.0, 1.0]), np.float64(area / size), eps=EPS)


def compute_curves(binary: BinaryCounts) -> Curves:
    """Return precision, recall, F and E at the 256 thresholds q >= i, q = floor(255 p)."""
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


def compute_adaptive(binary: BinaryCounts, pred: ByteArray) -> tuple[float, float]:
    """Return F and E at twice the mean of the normalised map (at most 1), p >= t.

    The map itself (its pixels that count) is needed only for ties: if a level is at the threshold, the mean is computed
    pixel by pixel in the tool's order of summation.
    """
    counts_V = binary.counts_LV.sum(axis=0)
    threshold = min(2.0 * float(counts_V @ binary.p_V) / binary.size, 1.0)
    if np.abs(binary.p_V[counts_V > 0] - threshold).min() < TIE:
        threshold = min(2.0 * float(binary.p_V[pred].mean()), 1.0)
    first_level_T = np.searchsorted(binary.p_V, np.array([threshold]), side="left")
    foreground_TL = count_at_or_above(binary.counts_LV, first_level_T)
    _, _, f_T = compute_precision_recall_f(foreground_TL, int(binary.counts_LV[1].sum()))
    return float(f_T[0]), float(compute_e(foreground_TL, binary)[0])


def compute_iou(binary: BinaryCounts) -> float:
    """Return the intersection over union of p > 0.5 and the ground truth; 0 if both are empty, as for F.

    The map is min-maxed first, so a map that is not constant always has foreground.
    """
    is_foreground_V = binary.p_V > IOU_THRESHOLD
    hits = int(binary.counts_LV[1, is_foreground_V].sum())
    union = int(binary.counts_LV[1].sum() + binary.counts_LV[0, is_foreground_V].sum())
    return hits / union if union else 0.0


def compute_s(joint: JointHistogram, p_V: Float64Array) -> tuple[float, bool]:
    """Return the S-measure, and whether the tool gives NaN (for an empty quadrant).

    Parameters
    ----------
    joint : JointHistogram
        Split one row and column after the centroid, as in MATLAB's 1-based ranges.
    p_V : ndarray, float64, (256,)
    """

    def mean_keeps_constant(quadrant: int, value: float) -> bool:
        # the tool's own mean over the same memory: it may differ by one unit in the last place
        if joint.n_ignored:
            return float(np.full(int(joint.counts_QLV[quadrant].sum()), value).mean()) == value
        part_HW = np.full(joint.shape_hw, value)[quadrant_slices(joint.shape_hw, joint.split_rc)[quadrant]]
        return float(part_HW.mean()) == value

    return compute_structure(joint, p_V, is_object(joint.gt_levels_L), eps=EPS, mean_keeps_constant=mean_keeps_constant)
