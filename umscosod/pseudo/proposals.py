"""Instance masks of an image, whoever makes them; and the default maker, which needs only a backbone (spec B3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy import ndimage

from umscosod.config import PseudoConfig
from umscosod.data.masks import encode_rle
from umscosod.errors import DataError
from umscosod.pseudo.overlap import coverage_levels, intersections, suppress_duplicates
from umscosod.pseudo.regions import LabelMap, merge_patches
from umscosod.types import BoolArray, GroupFeatures


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskProposal:
    """One class-agnostic instance mask.

    Attributes
    ----------
    mask_hw : ndarray, bool, (h, w)
        On the token grid or at the image's own size; all masks of an image have one size.
    score : float
        The maker's trust in it, in [0, 1]; 1 where the maker gives none.
    level : int
        0 whole, 1 part, 2 subpart.
    source : str
        ``hac`` or ``coco-json``.
    """

    mask_hw: BoolArray
    score: float
    level: int
    source: str

    def __post_init__(self) -> None:
        if self.mask_hw.ndim != 2 or self.mask_hw.dtype != np.bool_:
            raise DataError(f"a proposal needs a 2-D bool mask, got {self.mask_hw.dtype} {self.mask_hw.shape}")


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
    return config.min_area_share <= share <= config.max_area_share and share > 0 and corners <= config.max_corners


def drop_duplicates(proposals: Sequence[MaskProposal], config: PseudoConfig, *, relevel: bool) -> list[MaskProposal]:
    """Of near-equal masks keep the first; on request replace the levels by those of mutual coverage."""
    shared_MM = intersections([encode_rle(proposal.mask_hw) for proposal in proposals])
    kept = suppress_duplicates(shared_MM, config.nms_iou)
    if not relevel:
        return [proposals[index] for index in kept]
    levels = coverage_levels(shared_MM[np.ix_(kept, kept)], config.parent_coverage)
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
        return drop_duplicates(proposals, self.config, relevel=True)


def _filled_regions(map_hw: LabelMap) -> list[BoolArray]:
    """Regions of a label map in label order, each with its holes filled."""
    regions = []
    for label, box in enumerate(ndimage.find_objects(map_hw + 1)):
        mask_hw = np.zeros(map_hw.shape, dtype=bool)
        mask_hw[box] = ndimage.binary_fill_holes(map_hw[box] == label)
        regions.append(mask_hw)
    return regions
