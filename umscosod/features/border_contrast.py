"""Contrast of every cell to what is connected to the picture's border: saliency of one image, no weights.

Own implementation of the background measure of Zhu, Liang, Wei and Sun, "Saliency Optimization from Robust
Background Detection", CVPR 2014 (DOI 10.1109/CVPR.2014.360), on grid cells instead of superpixels.

Legend: ``P = h * w`` cells, row-major; ``B`` cells on the border; ``E`` edges.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from umscosod.config import EmbeddedConfig
from umscosod.types import BoolArray, FloatArray

_TINY = 1e-6  # far below one grey level: what is smaller is rounding
_REACH_SIGMAS = 5.0


def cell_positions(grid_hw: tuple[int, int]) -> FloatArray:
    """Centre every cell's row and column about 0: float64 (P, 2), in [-0.5, 0.5]; a side of one cell gives 0."""
    axes = [np.linspace(-0.5, 0.5, side) if side > 1 else np.zeros(1) for side in grid_hw]
    rows, columns = np.meshgrid(*axes, indexing="ij")
    return np.stack([rows.ravel(), columns.ravel()], 1)


def centre_prior(grid_hw: tuple[int, int], sigma: float) -> FloatArray:
    """Gaussian about the picture's centre: float64 (P,), in (0, 1]; `sigma` is a share of the side."""
    return np.asarray(np.exp(-(cell_positions(grid_hw) ** 2).sum(1) / (2.0 * sigma**2)))


def border_contrast(lab_P3: FloatArray, grid_hw: tuple[int, int], config: EmbeddedConfig) -> FloatArray:
    """Sum the colour contrast of every cell to cells that are connected to the border.

    Parameters
    ----------
    lab_P3 : ndarray, float, (P, 3)
        Mean Lab colour of every cell, L in [0, 1].
    grid_hw : (int, int)
    config : EmbeddedConfig

    Returns
    -------
    ndarray, float64, (P,), in [0, 1]
        Min-maxed; all zero for a picture of one colour.
    """
    if np.ptp(lab_P3, 0).max() < _TINY:  # rounding in the distances, summed over all cells, would make a map of it
        return np.zeros(len(lab_P3))
    distance_PP = _pairwise(lab_P3)
    background_P = _background_probability(distance_PP, grid_hw, config)
    reach_PP = np.exp(-(_pairwise(cell_positions(grid_hw)) ** 2) / (2.0 * config.contrast_reach**2))
    contrast_P = (distance_PP * reach_PP) @ background_P
    span = float(np.ptp(contrast_P))
    return (contrast_P - contrast_P.min()) / span if span > _TINY else np.zeros_like(contrast_P)


def _pairwise(points_PD: FloatArray) -> FloatArray:
    squares_P = (points_PD**2).sum(1)
    squared_PP = squares_P[:, None] + squares_P[None] - 2.0 * points_PD @ points_PD.T
    return np.asarray(np.sqrt(np.maximum(squared_PP, 0.0)))


def _background_probability(distance_PP: FloatArray, grid_hw: tuple[int, int], config: EmbeddedConfig) -> FloatArray:
    """Probability that a cell's surface is background: how much border it holds for its size."""
    grid_E2, border_E2, is_border_P = _graph(grid_hw)
    steps_E = distance_PP[grid_E2[:, 0], grid_E2[:, 1]]
    flat = np.quantile(steps_E, config.flat_step_quantile) if len(steps_E) else 0.0
    edges_E2 = np.concatenate([grid_E2, border_E2])
    weights_E = np.maximum(distance_PP[edges_E2[:, 0], edges_E2[:, 1]] - flat, 0.0) + _TINY
    count = len(is_border_P)
    both_ways = (np.r_[edges_E2[:, 0], edges_E2[:, 1]], np.r_[edges_E2[:, 1], edges_E2[:, 0]])
    graph = coo_matrix((np.r_[weights_E, weights_E], both_ways), shape=(count, count)).tocsr()
    # what lies further is another surface: at the limit the Gaussian below is 4e-6
    geodesic_PP = dijkstra(graph, limit=_REACH_SIGMAS * config.geodesic_sigma)
    same_surface_PP = np.exp(-(geodesic_PP**2) / (2.0 * config.geodesic_sigma**2))
    connectivity_P = same_surface_PP[:, is_border_P].sum(1) / np.sqrt(same_surface_PP.sum(1))
    return np.asarray(1.0 - np.exp(-(connectivity_P**2) / (2.0 * config.connectivity_sigma**2)))


@lru_cache(maxsize=8)
def _graph(grid_hw: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], BoolArray]:
    """Edges between 8-neighbours, edges between all pairs of border cells, and which cells lie on the border."""
    height, width = grid_hw
    index = np.arange(height * width).reshape(height, width)
    grid = [
        np.stack([first.ravel(), second.ravel()], 1)
        for first, second in (
            (index[:, :-1], index[:, 1:]),
            (index[:-1], index[1:]),
            (index[:-1, :-1], index[1:, 1:]),
            (index[:-1, 1:], index[1:, :-1]),
        )
    ]
    is_border = np.zeros((height, width), bool)
    is_border[[0, -1]] = True
    is_border[:, [0, -1]] = True
    border = np.flatnonzero(is_border)
    first, second = np.triu_indices(len(border), 1)
    neighbours = np.concatenate(grid)
    between = np.stack([border[first], border[second]], 1)
    # a pair that is both would be summed by the sparse matrix: leave it to the grid
    count = height * width
    is_new = ~np.isin(between.min(1) * count + between.max(1), neighbours.min(1) * count + neighbours.max(1))
    return neighbours, between[is_new], is_border.ravel()
