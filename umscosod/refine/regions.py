"""Stage 3b of RRBE: keep the components that look like the group's object (eq. 7, 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from umscosod.config import RefineConfig
from umscosod.device import map_on_cores
from umscosod.errors import DataError
from umscosod.types import BoolArray, FloatArray, Region

_NEIGHBOURS = np.ones((3, 3), np.bool_)  # of a pixel in a component: 8, diagonal ones too (spec A7)


def _overlaps(pixels: int, cells: int) -> sparse.csr_array:
    """Length of pixel p that lies in cell c, when both cut the same side evenly: (pixels, cells)."""
    edges_pixel = np.arange(pixels + 1, dtype=np.float64) * cells
    edges_cell = np.arange(cells + 1, dtype=np.float64) * pixels
    upper = np.minimum(edges_pixel[1:, None], edges_cell[None, 1:])
    lower = np.maximum(edges_pixel[:-1, None], edges_cell[None, :-1])
    return sparse.csr_array(np.maximum(upper - lower, 0.0) / cells)


@lru_cache(maxsize=8)
def _pixel_to_cell(size_hw: tuple[int, int], grid_hw: tuple[int, int]) -> sparse.csr_array:
    """Area of each pixel that lies in each grid cell, (H * W, P); each row sums to one pixel."""
    rows = _overlaps(size_hw[0], grid_hw[0])
    columns = _overlaps(size_hw[1], grid_hw[1])
    return sparse.csr_array(sparse.kron(rows, columns, format="csr"))


def pool_regions(labels_HW: npt.NDArray[np.integer], count: int, grid_hw: tuple[int, int]) -> FloatArray:
    """Area of each region in each cell of the token grid, by exact integration.

    Parameters
    ----------
    labels_HW : ndarray, int, (H, W)
        0 is background, 1..count are regions.
    count : int
    grid_hw : (int, int)
        Any grid: H and W need not be multiples of it, and it may be finer than the pixels.

    Returns
    -------
    ndarray, float64, (count, P), >= 0
        Row k sums to the area of region k + 1 in pixels, so no region ever vanishes.

    Examples
    --------
    Three pixels over two cells: the middle one is shared.

    >>> pool_regions(np.array([[1, 1, 0]]), 1, (1, 2)).tolist()
    [[1.5, 0.5]]
    """
    flat = labels_HW.ravel()
    pixels = np.flatnonzero(flat)
    indicator = sparse.csr_array(
        (np.ones(pixels.size), (flat[pixels].astype(np.int64) - 1, pixels)), shape=(count, flat.size)
    )
    size_hw = (labels_HW.shape[0], labels_HW.shape[1])
    return np.asarray((indicator @ _pixel_to_cell(size_hw, grid_hw)).toarray())


def _check_tokens(tokens_PD: FloatArray, grid_hw: tuple[int, int]) -> None:
    if tokens_PD.ndim != 2 or tokens_PD.shape[0] != grid_hw[0] * grid_hw[1]:
        raise DataError(
            f"region tokens: expected {grid_hw[0] * grid_hw[1]} rows for grid {grid_hw}, got {tokens_PD.shape}"
        )
    if not np.isfinite(tokens_PD).all():
        raise DataError(
            "region tokens hold NaN or infinite values; clear the feature cache and encode the images again"
        )


def _region_means(weights_KP: FloatArray, tokens_PD: FloatArray) -> FloatArray:
    """Area-weighted mean token of each region, (K, D): one product for all regions of an image."""
    return np.asarray((weights_KP @ tokens_PD.astype(np.float64)) / weights_KP.sum(axis=1, keepdims=True))


def _cosines(features_KD: FloatArray, prototype_D: FloatArray) -> FloatArray:
    """Cosine of each row with the prototype, in [-1, 1]; 0 where either has no length."""
    lengths = np.linalg.norm(features_KD, axis=1) * np.linalg.norm(prototype_D)
    dots = features_KD @ prototype_D
    cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return np.asarray(np.clip(cosines, -1.0, 1.0))


def group_prototype(
    masks: Sequence[BoolArray], tokens_NPD: FloatArray, grid_hw: tuple[int, int], *, skip_empty: bool = True
) -> FloatArray | None:
    """Feature of the group's object: the mean over images of the mean token under each mask.

    Parameters
    ----------
    masks : sequence of ndarray, bool, (H, W)
        One per image, any sizes.
    tokens_NPD : ndarray, float, (N, P, D)
    grid_hw : (int, int)
    skip_empty : bool
        Leave images with an empty mask out of the mean. Off, as published: one such image makes the mean 0/0.

    Returns
    -------
    ndarray, float64, (D,), or None
        None where every mask is empty. Zeros, whose cosine with anything is 0, where the mean is 0/0. The same bits
        for any order of the images, and for a group in which each image is doubled.

    Raises
    ------
    DataError
        Counts or grid do not fit, or tokens are not finite.

    References
    ----------
    Paper, eq. 7.

    Examples
    --------
    >>> masks = [np.array([[True, False]]), np.array([[False, False]])]
    >>> group_prototype(masks, np.array([[[1.0, 3.0], [9.0, 9.0]], [[5.0, 5.0], [5.0, 5.0]]]), (1, 2)).tolist()
    [1.0, 3.0]
    """
    if len(masks) != len(tokens_NPD):
        raise DataError(f"group prototype: {len(masks)} masks but tokens of {len(tokens_NPD)} images")

    def mean_of(index: int) -> FloatArray | None:
        _check_tokens(tokens_NPD[index], grid_hw)
        if not masks[index].any():
            return None
        weights_1P = pool_regions(masks[index].astype(np.uint8), 1, grid_hw)
        return np.asarray(_region_means(weights_1P, tokens_NPD[index])[0])

    means = [mean_D for mean_D in map_on_cores(mean_of, range(len(masks))) if mean_D is not None]
    if not means:
        return None
    if not skip_empty and len(means) < len(masks):
        return np.zeros(tokens_NPD.shape[2])  # NaN would pass no test of eq. 8 either, but spread further
    # fsum rounds once, whatever the order: permuting a group then permutes its masks, bit for bit.
    return np.array([math.fsum(column) for column in np.stack(means, axis=1).tolist()]) / len(means)


def filter_regions(
    mask_HW: BoolArray,
    tokens_PD: FloatArray,
    grid_hw: tuple[int, int],
    prototype: FloatArray | None,
    config: RefineConfig,
) -> tuple[BoolArray, tuple[Region, ...]]:
    """Keep the connected components whose mean token points where the group's prototype does.

    Parameters
    ----------
    mask_HW : ndarray, bool, (H, W)
    tokens_PD : ndarray, float, (P, D)
    grid_hw : (int, int)
    prototype : ndarray, float, (D,), or None
        From `group_prototype`. None: components are judged by size alone and their similarity is given as 0.
    config : RefineConfig
        Reads sim_th, keep_best and drop_regions_smaller_than.

    Returns
    -------
    mask_HW : ndarray, bool, (H, W)
        Union of the kept components; empty for an empty mask.
    regions : tuple of Region
        All components, in reading order of their first pixel.

    Raises
    ------
    DataError
        Tokens do not fit the grid, are not finite, or are of another width than the prototype.

    Notes
    -----
    * A component at exactly ``sim_th`` goes (eq. 8 is strict).
    * ``drop_regions_smaller_than`` comes first and is final: ``keep_best`` picks among what is big enough.
    * Each component is area-pooled to the grid, so that one far smaller than a patch still has a feature.

    References
    ----------
    Paper, eq. 8.
    """
    _check_tokens(tokens_PD, grid_hw)
    if prototype is not None and prototype.shape != (tokens_PD.shape[1],):
        raise DataError(f"region tokens are {tokens_PD.shape[1]} wide, the group prototype has shape {prototype.shape}")
    labels_HW, count = ndimage.label(mask_HW, structure=_NEIGHBOURS)
    if count == 0:
        return np.zeros(mask_HW.shape, dtype=np.bool_), ()
    area_K = np.bincount(labels_HW.ravel(), minlength=count + 1)[1:]
    is_big_K = np.asarray(area_K >= config.drop_regions_smaller_than * mask_HW.size)
    if prototype is None:
        similarity_K: FloatArray = np.zeros(count)
        kept_K = is_big_K
    else:
        weights_KP = pool_regions(labels_HW, count, grid_hw)
        similarity_K = _cosines(_region_means(weights_KP, tokens_PD), prototype)
        kept_K = is_big_K & (similarity_K > config.sim_th)
        if config.keep_best and is_big_K.any():
            candidates = np.flatnonzero(is_big_K)
            # Highest similarity, then largest, then first in reading order (lexsort's last key leads).
            order = np.lexsort((candidates, -area_K[candidates], -similarity_K[candidates]))
            kept_K[candidates[order[0]]] = True
    regions = tuple(
        Region(area_px=int(area), similarity=float(similarity), is_kept=bool(kept))
        for area, similarity, kept in zip(area_K, similarity_K, kept_K, strict=True)
    )
    return np.concatenate([[False], kept_K])[labels_HW], regions
