"""Masks to choose from: clustered from keys; how masks overlap.

Suffixes: ``M`` masks of one image, ``H W`` pixels, ``h w`` the token grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco
from scipy import ndimage

from umscosod.config import PseudoConfig
from umscosod.data.masks import decode_rle, encode_rle
from umscosod.pseudo.regions import LabelMap, merge_patches
from umscosod.types import BoolArray, GroupFeatures

MAX_AREA_SHARE = 0.8  # largest mask, as a share of the image
MAX_CORNERS = 2  # masks that hold more corners of the image than this are background
NMS_IOU = 0.9  # of two masks with a larger IoU only the first is kept
PARENT_COVERAGE = 0.9  # share of a mask that its parent covers: gives whole, part, subpart (HASSOD)

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
    return np.asarray(np.rint(np.nan_to_num(shares_MM) * areas_M[:, None]), dtype=np.int64)


def suppress_duplicates(shared_MM: npt.NDArray[np.int64]) -> list[int]:
    """Indices of the masks kept when of two with an IoU above `NMS_IOU` only the first stays."""
    areas_M = np.diagonal(shared_MM)
    kept: list[int] = []
    for index in range(len(areas_M)):
        shared = shared_MM[index, kept]
        union = areas_M[index] + areas_M[kept] - shared
        if areas_M[index] > 0 and not (shared > NMS_IOU * union).any():
            kept.append(index)
    return kept


def coverage_levels(shared_MM: npt.NDArray[np.int64]) -> list[int]:
    """Level of each mask: 0 whole, 1 part, 2 subpart.

    b is a parent of a if it covers at least `PARENT_COVERAGE` of a while a covers less than that of b; the parent is
    the smallest such (of equals the first); the level is the depth, at most 2. A parent is always larger than its
    child, so there are no cycles.

    References
    ----------
    HASSOD (arXiv 2402.03311), Sec. 3.2.

    Examples
    --------
    Areas 10, 4 and 2, each inside the one before:

    >>> coverage_levels(np.array([[10, 4, 2], [4, 4, 2], [2, 2, 2]]))
    [0, 1, 2]
    """
    areas_M = np.diagonal(shared_MM)
    levels = [0] * len(areas_M)
    for child in np.argsort(-areas_M, kind="stable"):
        is_parent = (shared_MM[child] >= PARENT_COVERAGE * areas_M[child]) & (
            shared_MM[child] < PARENT_COVERAGE * areas_M
        )
        if is_parent.any():
            candidates = np.flatnonzero(is_parent)
            parent = int(candidates[np.argmin(areas_M[candidates])])
            levels[int(child)] = min(levels[parent] + 1, 2)
    return levels


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskProposal:
    """One class-agnostic instance mask.

    Attributes
    ----------
    mask_hw : ndarray, bool, (h, w)
        On the token grid or at the image's own size; all masks of an image have one size.
    score : float
        The source's score of it, in [0, 1]; 1 where the source gives none.
    level : int
        0 whole, 1 part, 2 subpart.
    source : str
        ``hac`` or ``coco-json``.
    """

    mask_hw: BoolArray
    score: float
    level: int
    source: str


class MaskProposer(Protocol):
    """Anything that finds masks in an image of a group."""

    def propose(self, features: GroupFeatures, index: int) -> list[MaskProposal]:
        """Find the masks of image `index`; an empty list if there are none. Equal inputs give equal masks."""
        ...


def is_sound_mask(mask_hw: BoolArray, config: PseudoConfig) -> bool:
    """Whether a mask may be an object: neither tiny nor nearly everything, and not in most corners of the image.

    Examples
    --------
    >>> frame = np.ones((9, 9), dtype=bool)
    >>> frame[2:-2, 2:-2] = False
    >>> is_sound_mask(frame, PseudoConfig()), is_sound_mask(~frame, PseudoConfig())
    (False, True)
    """
    share = float(np.count_nonzero(mask_hw)) / mask_hw.size
    corners = int(np.count_nonzero(mask_hw[[0, 0, -1, -1], [0, -1, 0, -1]]))
    return config.min_area_share <= share <= MAX_AREA_SHARE and share > 0 and corners <= MAX_CORNERS


def drop_duplicates(proposals: Sequence[MaskProposal], *, relevel: bool) -> list[MaskProposal]:
    """Of near-equal masks keep the first; on request replace the levels by those of mutual coverage."""
    shared_MM = intersections([encode_rle(proposal.mask_hw) for proposal in proposals])
    kept = suppress_duplicates(shared_MM)
    if not relevel:
        return [proposals[index] for index in kept]
    levels = coverage_levels(shared_MM[np.ix_(kept, kept)])
    return [replace(proposals[index], level=level) for index, level in zip(kept, levels, strict=True)]


class HacProposer:
    """Masks by hierarchical adaptive clustering on the tokens' own grid (the fast profile of spec B3).

    The keys come from the pass already made for the features, so no image is encoded twice; no CRF runs here.
    Regions of all thresholds are pooled, holes filled, unsound ones and duplicates dropped.

    Parameters
    ----------
    config : PseudoConfig
    """

    def __init__(self, config: PseudoConfig) -> None:
        self.config = config

    def propose(self, features: GroupFeatures, index: int) -> list[MaskProposal]:
        """Cluster image `index`; masks on the grid of the first stream, finest partition first.

        Returns
        -------
        list of MaskProposal
            Score 1, source ``hac``; empty where no region is sound.
        """
        stream = features.first
        maps = merge_patches(stream.keys_NPK[index], stream.grid_hw, self.config.hac_thresholds)
        proposals = [
            MaskProposal(mask_hw=mask_hw, score=1.0, level=0, source="hac")
            for map_hw in maps
            for mask_hw in _filled_regions(map_hw)
            if is_sound_mask(mask_hw, self.config)
        ]
        return drop_duplicates(proposals, relevel=True)


def _filled_regions(map_hw: LabelMap) -> list[BoolArray]:
    """Regions of a label map in label order, each with its holes filled."""
    regions = []
    for label, box in enumerate(ndimage.find_objects(map_hw + 1)):
        mask_hw = np.zeros(map_hw.shape, dtype=bool)
        mask_hw[box] = ndimage.binary_fill_holes(map_hw[box] == label)
        regions.append(mask_hw)
    return regions
