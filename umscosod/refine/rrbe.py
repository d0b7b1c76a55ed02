"""Stage 3, RRBE: from a group's soft maps to its masks (eq. 6-8, then DenseCRF).

Torch-free: numpy in, numpy out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import numpy as np

from umscosod.config import RefineConfig
from umscosod.data.resize import resize_aligned, resize_mask
from umscosod.errors import DataError
from umscosod.refine.crf import CrfInput
from umscosod.refine.crf_pool import CrfPool, refine_masks
from umscosod.refine.regions import filter_regions, group_prototype
from umscosod.refine.threshold import adaptive_threshold, binarize, check_map, effective_threshold, mean_uncertainty
from umscosod.types import BoolArray, ByteArray, FloatArray, RefinedMask, Region

logger = logging.getLogger(__name__)


@cache
def _warn_once(message: str) -> None:
    """A run over thousands of groups must not drown its log."""
    logger.warning("%s", message)


def _check_group(
    maps_NHW: FloatArray, pictures_NHW3: ByteArray, tokens_NPD: FloatArray, sizes_hw: Sequence[tuple[int, int]]
) -> None:
    counts = (len(maps_NHW), len(pictures_NHW3), len(tokens_NPD), len(sizes_hw))
    if len(set(counts)) != 1 or counts[0] == 0:
        raise DataError(
            f"refine_group: maps, pictures, tokens and sizes must be of the same images, at least one; got {counts}"
        )
    for index, map_HW in enumerate(maps_NHW):
        check_map(map_HW, f"map {index} of the group")


def _filter_group(
    masks: list[BoolArray], tokens_NPD: FloatArray, grid_hw: tuple[int, int], config: RefineConfig
) -> tuple[list[BoolArray], list[tuple[Region, ...]]]:
    """Eq. 7 and 8 over the group; the rule on small regions holds with and without them."""
    if not config.region_filter and config.drop_regions_smaller_than == 0.0:
        return masks, [()] * len(masks)
    prototype = None
    if config.region_filter:
        prototype = group_prototype(masks, tokens_NPD, grid_hw, skip_empty=config.skip_empty)
        if prototype is not None and not config.skip_empty and not prototype.any():
            _warn_once(
                "refine.skip_empty is off: an empty mask makes the prototype of its whole group 0/0 (eq. 7), so that "
                "no component of the group has a similarity"
            )
    filtered = [
        filter_regions(mask_HW, tokens_PD, grid_hw, prototype, config)
        for mask_HW, tokens_PD in zip(masks, tokens_NPD, strict=True)
    ]
    return [mask_HW for mask_HW, _ in filtered], [regions for _, regions in filtered]


def refine_group(
    maps_NHW: FloatArray,
    pictures_NHW3: ByteArray,
    tokens_NPD: FloatArray,
    grid_hw: tuple[int, int],
    sizes_hw: Sequence[tuple[int, int]],
    config: RefineConfig,
    b_bar: float | None = None,
    pool: CrfPool | None = None,
) -> list[RefinedMask]:
    """Threshold each map, drop what is unlike the group, and snap the borders to the picture.

    Parameters
    ----------
    maps_NHW : ndarray, float, (N, H, W), in [0, 1]
        Soft co-saliency maps at network size.
    pictures_NHW3 : ndarray, uint8, (N, H', W', 3)
        RGB pictures, whole and stretched as the maps are.
    tokens_NPD : ndarray, float, (N, P, D)
        Region features (spec A7, F_enhanced): the first backbone's patch tokens.
    grid_hw : (int, int)
    sizes_hw : sequence of (int, int)
        Own height and width of each image.
    config : RefineConfig
        ``adaptive``, ``region_filter`` and ``crf.enabled`` switch the three parts one by one; ``enabled`` off leaves
        the map, enlarged as saved soft maps are, at ``th0``.
    b_bar : float, optional
        From `mean_uncertainty` over the training set. None: over the maps of this group.
    pool : CrfPool, optional
        From `open_pool`: DenseCRF of several images at once.

    Returns
    -------
    list of RefinedMask
        In the order given, each at its image's own size; ``crf`` is False where DenseCRF was off, missing, had
        nothing to do, or erased the whole mask while ``keep_best`` is on (the mask before it stays then).
        Permuting the images permutes the masks, bit for bit.

    Raises
    ------
    DataError
        Counts differ, the group is empty, a map is not finite or leaves [0, 1], tokens do not fit the grid, or a
        picture is not uint8 RGB.

    References
    ----------
    Paper, sec. 2.3, eq. 6-8.
    """
    _check_group(maps_NHW, pictures_NHW3, tokens_NPD, sizes_hw)
    if not config.enabled:
        # float64: numpy would otherwise round th0 to the map's precision first
        masks = [
            np.asarray(resize_aligned(map_HW.astype(np.float64), size) >= config.th0)
            for map_HW, size in zip(maps_NHW, sizes_hw, strict=True)
        ]
        return [RefinedMask(mask_HW=mask_HW, threshold=config.th0, regions=(), crf=False) for mask_HW in masks]
    centre = mean_uncertainty(maps_NHW) if b_bar is None else b_bar
    thresholds = [adaptive_threshold(map_HW, centre, config) for map_HW in maps_NHW]
    masks = [binarize(map_HW, th, config) for map_HW, th in zip(maps_NHW, thresholds, strict=True)]
    levels = [effective_threshold(*parts) for parts in zip(maps_NHW, masks, thresholds, strict=True)]
    masks, regions = _filter_group(masks, tokens_NPD, grid_hw, config)
    starts = [
        CrfInput(map_HW=map_HW, mask_HW=mask_HW, threshold=level, picture_HW3=picture_HW3)
        for map_HW, mask_HW, level, picture_HW3 in zip(maps_NHW, masks, levels, pictures_NHW3, strict=True)
    ]
    snapped = refine_masks(starts, config.crf, pool)
    refined = []
    for index, (before_HW, (after_HW, did_run, failure)) in enumerate(zip(masks, snapped, strict=True)):
        # Smoothing can wipe out an object of a few hundred pixels: with keep_best, the image's best region stays.
        is_erased = config.keep_best and did_run and not after_HW.any()
        refined.append(
            RefinedMask(
                mask_HW=resize_mask(before_HW if is_erased else after_HW, sizes_hw[index]),
                threshold=thresholds[index],
                regions=regions[index],
                crf=did_run and not is_erased,
                failure=failure,
            )
        )
    return refined
