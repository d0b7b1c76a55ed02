"""Computes one joint histogram per image, which holds all that the measures need of a prediction and ground truth.

A prediction of 8-bit grey has 256 levels, so every threshold of the F- and E-measure, every mean and every
deviation of the S-measure is a sum over a small table instead of over the pixels.

Legend: ``Q = 4`` quadrants around the centroid of the ground truth (upper left, upper right, lower left, lower
right), ``L`` grey levels that occur in the ground truth, ``V = 256`` grey levels of the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from umscosod.errors import DataError
from umscosod.types import BoolArray, ByteArray, IntArray

LEVELS = 256
Slices = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True, slots=True)
class JointHistogram:
    """Counts of (quadrant, ground-truth level, prediction level) in one image.

    Attributes
    ----------
    counts_QLV : ndarray, int64, (4, L, 256)
        Pixels; an empty quadrant is all zero.
    gt_levels_L : ndarray, uint8, (L,)
        The levels that occur in the ground truth, ascending.
    shape_hw : (int, int)
    split_rc : (int, int)
        First row of the lower quadrants and first column of the right quadrants.
    n_ignored : int
        Pixels that are not counted, as if the image did not have them.
    """

    counts_QLV: IntArray
    gt_levels_L: ByteArray
    shape_hw: tuple[int, int]
    split_rc: tuple[int, int]
    n_ignored: int = 0

    @property
    def size(self) -> int:
        """Number of pixels that are counted."""
        return self.shape_hw[0] * self.shape_hw[1] - self.n_ignored

    def occurring_levels(self) -> tuple[int, int]:
        """Return the lowest and highest prediction level that occurs."""
        present = np.flatnonzero(self.counts_QLV.any(axis=(0, 1)))
        return int(present[0]), int(present[-1])


def quadrant_slices(shape_hw: tuple[int, int], split_rc: tuple[int, int]) -> tuple[Slices, Slices, Slices, Slices]:
    """Return the row and column slices of the four quadrants, in the order of the histogram.

    >>> quadrant_slices((4, 6), (1, 2))[1]
    (slice(0, 1, None), slice(2, 6, None))
    """
    (height, width), (row, column) = shape_hw, split_rc
    upper, lower = slice(0, row), slice(row, height)
    left, right = slice(0, column), slice(column, width)
    return (upper, left), (upper, right), (lower, left), (lower, right)


def check_pair(pred_HW: ByteArray, gt_HW: ByteArray) -> None:
    """Refuse a pair that cannot be compared pixel by pixel.

    Raises
    ------
    DataError
        They are not two non-empty 8-bit grey pictures of one size.
    """
    for name, picture in (("prediction", pred_HW), ("ground truth", gt_HW)):
        if picture.dtype != np.uint8 or picture.ndim != 2 or picture.size == 0:
            raise DataError(f"{name} must be uint8 of shape (H, W), got {picture.dtype} {picture.shape}")
    if pred_HW.shape != gt_HW.shape:
        raise DataError(
            f"prediction {pred_HW.shape} and ground truth {gt_HW.shape} differ in size; resize the prediction first"
        )


def compute_centroid(is_object_HW: BoolArray, *, single_precision: bool) -> tuple[int, int]:
    """Return row and column of the centroid of an object, 0-based, halves rounded to even.

    Parameters
    ----------
    is_object_HW : ndarray, bool, (H, W)
        If no pixel is set, the result is the centre of the picture.
    single_precision : bool
        Divide in float32, as a tool with float32 masks does. This matters only for ties: an exact 176.4999999 is 176.5
        in float32.

    Examples
    --------
    >>> mask = np.zeros((4, 6), bool)
    >>> mask[1, 1:4] = True
    >>> compute_centroid(mask, single_precision=False)
    (1, 2)
    """
    height, width = is_object_HW.shape
    per_row = np.count_nonzero(is_object_HW, axis=1)
    per_column = np.count_nonzero(is_object_HW, axis=0)
    area = int(per_row.sum())
    if area == 0:
        return int(np.rint(height / 2)), int(np.rint(width / 2))
    moments = (int(per_row @ np.arange(height)), int(per_column @ np.arange(width)))
    if single_precision:
        row, column = (int(np.rint(np.float32(moment) / np.float32(area))) for moment in moments)
    else:
        row, column = (int(np.rint(moment / area)) for moment in moments)
    return row, column


def compute_joint_histogram(
    pred_HW: ByteArray, gt_HW: ByteArray, split_rc: tuple[int, int], ignored_HW: BoolArray | None = None
) -> JointHistogram:
    """Count the pixels of each quadrant, ground-truth level and prediction level.

    Parameters
    ----------
    pred_HW, gt_HW : ndarray, uint8, (H, W)
        Checked by `check_pair`.
    split_rc : (int, int)
        First row and column of the lower and right quadrants, from 0 to H or W: at 0, H or W two quadrants are empty.
    ignored_HW : ndarray, bool, (H, W), optional
        Pixels to leave out; at least one other is needed.

    Examples
    --------
    >>> pred = np.array([[0, 255], [7, 7]], np.uint8)
    >>> gt = np.array([[0, 255], [0, 0]], np.uint8)
    >>> joint = compute_joint_histogram(pred, gt, (1, 1))
    >>> joint.gt_levels_L.tolist(), joint.counts_QLV.shape, int(joint.counts_QLV[1, 1, 255])
    ([0, 255], (4, 2, 256), 1)
    """
    codes_HW = gt_HW.astype(np.uint16) * np.uint16(LEVELS)
    codes_HW += pred_HW
    bins = LEVELS * LEVELS
    if ignored_HW is not None:
        codes_HW = np.where(ignored_HW, np.uint32(bins), codes_HW)  # one more bin, cut off below
    shape_hw = (gt_HW.shape[0], gt_HW.shape[1])
    quadrants = quadrant_slices(shape_hw, split_rc)
    # Of all levels at once: to look first which of the ground truth's occur costs as much as the counting itself.
    counts = [np.bincount(codes_HW[part].ravel(), minlength=bins)[:bins].reshape(LEVELS, LEVELS) for part in quadrants]
    gt_levels_L = np.flatnonzero(sum(count_LV.sum(axis=1) for count_LV in counts)).astype(np.uint8)
    return JointHistogram(
        counts_QLV=np.stack([count_LV[gt_levels_L] for count_LV in counts]).astype(np.int64, copy=False),
        gt_levels_L=gt_levels_L,
        shape_hw=shape_hw,
        split_rc=split_rc,
        n_ignored=0 if ignored_HW is None else int(np.count_nonzero(ignored_HW)),
    )


def count_at_or_above(counts_LV: IntArray, first_level_T: npt.NDArray[np.integer[Any]]) -> IntArray:
    """Count the pixels of each ground-truth level whose prediction level is at least the given one.

    Parameters
    ----------
    counts_LV : ndarray, int64, (L, V)
    first_level_T : ndarray, int, (T,)
        From 0 to V; V means none.

    Returns
    -------
    ndarray, int64, (T, L)

    Examples
    --------
    >>> count_at_or_above(np.array([[5, 0, 2]]), np.array([0, 1, 3])).ravel().tolist()
    [7, 2, 0]
    """
    at_or_above_LV = np.zeros((counts_LV.shape[0], counts_LV.shape[1] + 1), dtype=np.int64)
    at_or_above_LV[:, :-1] = np.cumsum(counts_LV[:, ::-1], axis=1)[:, ::-1]
    return np.ascontiguousarray(at_or_above_LV[:, first_level_T].T)
