"""How much masks share: with the attention (eq. 1), and with each other.

Suffixes: ``M`` masks of one image, ``H W`` pixels, ``h w`` the token grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from umscosod.data.masks import decode_rle
from umscosod.types import BoolArray, FloatArray

RunLengths = dict[str, Any]
"""COCO's compressed run lengths: ``{"size": [h, w], "counts": text}``."""


def compute_overlap(mask_HW: BoolArray, attention_HW: BoolArray) -> float:
    """Overlap of a mask with the attention's set, eq. 1: in [0, 1], 0 if both are empty.

    Examples
    --------
    One patch shared, three in all:

    >>> compute_overlap(np.array([True, True, False]), np.array([False, True, True])).__round__(4)
    0.3333
    """
    union = int(np.count_nonzero(mask_HW | attention_HW))
    return int(np.count_nonzero(mask_HW & attention_HW)) / union if union else 0.0


def compute_soft_overlap(mask_hw: FloatArray, saliency_hw: FloatArray) -> float:
    """Eq. 1 without a threshold: sum of minima over sum of maxima, in [0, 1]; equals it on binary maps.

    Examples
    --------
    >>> compute_soft_overlap(np.array([1.0, 1.0]), np.array([0.5, 0.0]))
    0.25
    """
    top = float(np.maximum(mask_hw, saliency_hw).sum(dtype=np.float64))
    return float(np.minimum(mask_hw, saliency_hw).sum(dtype=np.float64)) / top if top > 0 else 0.0


def pool_to_grid(mask_HW: BoolArray, grid_hw: tuple[int, int]) -> FloatArray:
    """Compute the share of every grid cell that a mask covers: float32, (h, w), in [0, 1].

    Exact for any two sizes; nothing vanishes, however small.

    Examples
    --------
    >>> pool_to_grid(np.array([[True, False, False]]), (1, 2)).round(2).astype(str).tolist()
    [['0.67', '0.0']]
    """
    height, width = mask_HW.shape
    if (height, width) == grid_hw:
        return mask_HW.astype(np.float32)
    rows_hH = _cell_shares(height, grid_hw[0])
    cols_wW = _cell_shares(width, grid_hw[1])
    pooled_hw: FloatArray = (rows_hH @ mask_HW.astype(np.float32) @ cols_wW.T).clip(0.0, 1.0)
    return pooled_hw


def _cell_shares(pixels: int, cells: int) -> FloatArray:
    """Share of each cell that each pixel fills along one axis: float32, (cells, pixels), rows sum to 1."""
    starts = np.arange(cells)[:, None] * (pixels / cells)
    ends = starts + pixels / cells
    pixel = np.arange(pixels)[None, :]
    shared = np.minimum(ends, pixel + 1) - np.maximum(starts, pixel)
    shares: FloatArray = (np.maximum(shared, 0.0) * (cells / pixels)).astype(np.float32)
    return shares


def merge_rles(rles: Sequence[RunLengths]) -> BoolArray:
    """Union of masks of one size: bool, (H, W)."""
    return decode_rle(coco.merge(list(rles)))


def intersections(rles: Sequence[RunLengths]) -> npt.NDArray[np.int64]:
    """Count the pixels that each pair of masks shares: int64, (M, M), areas on the diagonal.

    Exact, and 100 x faster than dense masks at photo size, because it walks run lengths.
    """
    if not rles:
        return np.zeros((0, 0), dtype=np.int64)
    # one by one: pycocotools counts the masks that it is given in 8 bits
    areas_M = np.array([coco.area(rle) for rle in rles], dtype=np.float64)
    # with every mask declared a crowd, pycocotools divides the intersection by the first mask's own area
    shares_MM = np.asarray(coco.iou(list(rles), list(rles), [1] * len(rles)), dtype=np.float64)
    shared_MM: npt.NDArray[np.int64] = np.rint(np.nan_to_num(shares_MM) * areas_M[:, None]).astype(np.int64)
    return shared_MM


def suppress_duplicates(shared_MM: npt.NDArray[np.int64], nms_iou: float) -> list[int]:
    """Indices of the masks kept when of two with a larger IoU only the first stays."""
    areas_M = np.diagonal(shared_MM)
    kept: list[int] = []
    for index in range(len(areas_M)):
        shared = shared_MM[index, kept]
        union = areas_M[index] + areas_M[kept] - shared
        if areas_M[index] > 0 and not (shared > nms_iou * union).any():
            kept.append(index)
    return kept


def coverage_levels(shared_MM: npt.NDArray[np.int64], coverage: float) -> list[int]:
    """Level of each mask: 0 whole, 1 part, 2 subpart.

    b is a parent of a if it covers at least `coverage` of a while a covers less than that of b; the parent is the
    smallest such (of equals the first); the level is the depth, at most 2. A parent is always larger than its
    child, so there are no cycles.

    References
    ----------
    HASSOD (arXiv 2402.03311), Sec. 3.2.

    Examples
    --------
    Areas 10, 4 and 2, each inside the one before:

    >>> coverage_levels(np.array([[10, 4, 2], [4, 4, 2], [2, 2, 2]]), 0.9)
    [0, 1, 2]
    """
    areas_M = np.diagonal(shared_MM)
    levels = [0] * len(areas_M)
    for child in np.argsort(-areas_M, kind="stable"):
        is_parent = (shared_MM[child] >= coverage * areas_M[child]) & (shared_MM[child] < coverage * areas_M)
        if is_parent.any():
            candidates = np.flatnonzero(is_parent)
            parent = int(candidates[np.argmin(areas_M[candidates])])
            levels[int(child)] = min(levels[parent] + 1, 2)
    return levels
