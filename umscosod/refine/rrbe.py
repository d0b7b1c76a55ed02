"""Stage 3, RRBE: from a group's soft maps to its masks (eq. 6-8, then DenseCRF).

Torch-free: numpy in, numpy out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np

from umscosod.config import RefineConfig
from umscosod.data.resize import resize_aligned, resize_mask
from umscosod.device import map_on_cores
from umscosod.errors import DataError
from umscosod.refine.crf import CrfInput
from umscosod.refine.crf_pool import Refiner, begin_masks
from umscosod.refine.regions import filter_regions, group_prototype
from umscosod.types import BoolArray, ByteArray, FloatArray, RefinedMask, Region

logger = logging.getLogger(__name__)

EMPTY_SHARE = 0.95  # of max(M), from which pixels are kept where nothing reaches the threshold


def check_map(map_HW: FloatArray, name: str = "map") -> None:
    """Refuse what no threshold can be trusted on.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W)
    name : str
        How the message calls it, for example ``"map 3 of the group"``.

    Raises
    ------
    DataError
        Not 2-D, empty, not finite, or outside [0, 1].
    """
    if map_HW.ndim != 2 or map_HW.size == 0:
        raise DataError(f"{name} must be 2-D with at least one pixel, got shape {map_HW.shape}")
    low, high = float(map_HW.min()), float(map_HW.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int(np.count_nonzero(~np.isfinite(map_HW)))
        raise DataError(
            f"{name} holds {bad} of {map_HW.size} values that are NaN or infinite; "
            "the network or its input has overflowed: train again in float32 or from an earlier checkpoint"
        )
    if low < 0.0 or high > 1.0:
        raise DataError(f"{name} must lie in [0, 1], got [{low:g}, {high:g}]; divide 8-bit maps by 255")


def map_confidence(map_HW: FloatArray) -> float:
    """Mean of the map over the pixels that reach its mean: how sure a map is of its own foreground.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]

    Returns
    -------
    float
        In [0, 1]. A constant map scores its constant, an all-zero map 0.

    Raises
    ------
    DataError
        See `check_map`.

    Notes
    -----
    A pixel equal to the mean counts. Sums run in float64.

    References
    ----------
    Paper, eq. 6 (conf).

    Examples
    --------
    The mean is 0.5; two pixels reach it, with a mean of 0.9.

    >>> round(map_confidence(np.array([[1.0, 0.8], [0.2, 0.0]])), 6)
    0.9
    """
    check_map(map_HW)
    values = map_HW.astype(np.float64, copy=False)
    # Rounding may lift the mean of a constant map above its every pixel; the maximum always passes.
    mean = min(float(values.mean()), float(values.max()))
    return float(values[values >= mean].mean())


def mean_uncertainty(maps: Iterable[FloatArray]) -> float:
    """Mean lack of confidence over a set of maps: the centre b_bar of eq. 6.

    Parameters
    ----------
    maps : iterable of ndarray, float, (H, W), in [0, 1]
        Any sizes; read once, so a generator will do.

    Returns
    -------
    float
        b_bar = mean of 1 - conf, in [0, 1]; exactly the same for any order of the maps; 0 without any map.

    Raises
    ------
    DataError
        One that `check_map` refuses.

    References
    ----------
    Paper, eq. 6 (mean of B_M over the training set).

    Examples
    --------
    >>> round(mean_uncertainty([np.full((2, 2), 0.75), np.full((3, 1), 0.25)]), 6)
    0.5
    """
    return mean_of(uncertainties(maps))


def uncertainties(maps: Iterable[FloatArray]) -> list[float]:
    """Lack of confidence of each map, 1 - conf; raises DataError for one that `check_map` refuses."""
    return [1.0 - map_confidence(map_HW) for map_HW in maps]


def mean_of(lacks: Iterable[float]) -> float:
    """Mean of `uncertainties`: exactly the same for any order; 0 of none."""
    listed = list(lacks)
    return math.fsum(listed) / len(listed) if listed else 0.0


def adaptive_threshold(map_HW: FloatArray, b_bar: float, config: RefineConfig) -> float:
    """Threshold of one map: raised where the map is less confident than usual, lowered where more.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
    b_bar : float
        From `mean_uncertainty`.
    config : RefineConfig
        Reads adaptive, th0, alpha_c and th_clamp.

    Returns
    -------
    float
        th0 + alpha_c ((1 - conf) - b_bar), clamped to th_clamp; plain th0 where ``adaptive`` is off.

    Raises
    ------
    DataError
        See `check_map`.

    References
    ----------
    Paper, eq. 6. The clamp is ours: unclamped the threshold can exceed 1.

    Examples
    --------
    conf is 0.9, so the map lacks 0.1, which is 0.2 less than usual.

    >>> round(adaptive_threshold(np.array([[1.0, 0.8], [0.2, 0.0]]), 0.3, RefineConfig(alpha_c=1.0)), 6)
    0.3
    """
    if not config.adaptive:
        return config.th0
    low, high = config.th_clamp
    threshold = config.th0 + config.alpha_c * ((1.0 - map_confidence(map_HW)) - b_bar)
    return min(max(threshold, low), high)


def binarize(map_HW: FloatArray, threshold: float, config: RefineConfig) -> BoolArray:
    """Foreground of a map, with a rule for maps that nowhere reach the threshold.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
    threshold : float
        A pixel equal to it is foreground.
    config : RefineConfig
        Reads empty_floor.

    Returns
    -------
    ndarray, bool, (H, W)
        M >= threshold. Where that is empty: M >= `EMPTY_SHARE` * max(M) if max(M) > empty_floor, else all false.

    Raises
    ------
    DataError
        See `check_map`.

    References
    ----------
    Paper, eq. 6 (G_i). The rule for empty masks is ours.

    Examples
    --------
    >>> binarize(np.array([[0.40, 0.39, 0.10]]), 0.5, RefineConfig()).tolist()
    [[True, True, False]]
    """
    check_map(map_HW)
    # float64 on both sides: numpy would otherwise round the threshold to the map's precision first.
    values = map_HW.astype(np.float64, copy=False)
    mask_HW: BoolArray = values >= threshold
    peak = float(values.max())
    if not mask_HW.any() and peak > config.empty_floor:
        mask_HW = values >= EMPTY_SHARE * peak
    return mask_HW


def effective_threshold(map_HW: FloatArray, mask_HW: BoolArray, threshold: float) -> float:
    """Level that separates a map's mask from the rest: lower than the threshold where the rule for empty masks held.

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
    mask_HW : ndarray, bool, (H, W)
        From `binarize` with the same threshold, before regions are dropped.
    threshold : float

    Returns
    -------
    float
        The threshold where the map reaches it, or where the mask is empty; else the smallest value inside the mask.

    Examples
    --------
    >>> map_HW = np.array([[0.40, 0.39, 0.10]])
    >>> effective_threshold(map_HW, binarize(map_HW, 0.5, RefineConfig()), 0.5)
    0.39
    """
    return min(threshold, float(map_HW[mask_HW].min())) if mask_HW.any() else threshold


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

    def of_image(index: int) -> tuple[BoolArray, tuple[Region, ...]]:
        return filter_regions(masks[index], tokens_NPD[index], grid_hw, prototype, config)

    kept, regions = zip(*map_on_cores(of_image, range(len(masks))), strict=True)
    return list(kept), list(regions)


def refine_group(
    maps_NHW: FloatArray,
    pictures_NHW3: ByteArray,
    tokens_NPD: FloatArray,
    grid_hw: tuple[int, int],
    sizes_hw: Sequence[tuple[int, int]],
    config: RefineConfig,
    b_bar: float | None = None,
    pool: Refiner | None = None,
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
    pool : Refiner, optional
        From `umscosod.refine.crf_pool.open_pool`: DenseCRF of several images at once, or on a GPU.

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
    return begin_refining(maps_NHW, pictures_NHW3, tokens_NPD, grid_hw, sizes_hw, config, b_bar, pool)()


def begin_refining(
    maps_NHW: FloatArray,
    pictures_NHW3: ByteArray,
    tokens_NPD: FloatArray,
    grid_hw: tuple[int, int],
    sizes_hw: Sequence[tuple[int, int]],
    config: RefineConfig,
    b_bar: float | None = None,
    pool: Refiner | None = None,
) -> Callable[[], list[RefinedMask]]:
    """Begin `refine_group`: what is returned waits for DenseCRF, at which a pool is then at work."""
    _check_group(maps_NHW, pictures_NHW3, tokens_NPD, sizes_hw)
    if not config.enabled:
        # float64: numpy would otherwise round th0 to the map's precision first
        masks = [
            np.asarray(resize_aligned(map_HW.astype(np.float64), size) >= config.th0)
            for map_HW, size in zip(maps_NHW, sizes_hw, strict=True)
        ]
        return lambda: [RefinedMask(mask_HW=mask_HW, threshold=config.th0, regions=(), crf=False) for mask_HW in masks]
    centre = mean_uncertainty(maps_NHW) if b_bar is None else b_bar
    thresholds = [adaptive_threshold(map_HW, centre, config) for map_HW in maps_NHW]
    masks = [binarize(map_HW, th, config) for map_HW, th in zip(maps_NHW, thresholds, strict=True)]
    levels = [effective_threshold(*parts) for parts in zip(maps_NHW, masks, thresholds, strict=True)]
    masks, regions = _filter_group(masks, tokens_NPD, grid_hw, config)
    starts = [
        CrfInput(map_HW=map_HW, mask_HW=mask_HW, threshold=level, picture_HW3=picture_HW3)
        for map_HW, mask_HW, level, picture_HW3 in zip(maps_NHW, masks, levels, pictures_NHW3, strict=True)
    ]
    snapped = begin_masks(starts, config.crf, pool)

    def finish() -> list[RefinedMask]:
        refined = []
        for index, (before_HW, (after_HW, did_run, failure)) in enumerate(zip(masks, snapped(), strict=True)):
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

    return finish
