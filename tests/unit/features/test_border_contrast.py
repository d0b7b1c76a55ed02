"""Contrast to the border: a thing in the middle stands out, a surface that reaches the border does not."""

from __future__ import annotations

import numpy as np
import pytest

from umscosod.features.embedded import _graph, border_contrast, cell_positions, centre_prior


def lab(light_hw: list[list[float]]) -> tuple[np.ndarray, tuple[int, int]]:
    light = np.array(light_hw)
    return np.stack([light.ravel(), np.zeros(light.size), np.zeros(light.size)], 1), light.shape


def test_positions_are_centred_and_a_single_row_lies_at_zero() -> None:
    assert cell_positions((1, 3)).tolist() == [[0.0, -0.5], [0.0, 0.0], [0.0, 0.5]]
    assert cell_positions((1, 1)).tolist() == [[0.0, 0.0]]


def test_the_prior_is_a_gaussian_about_the_centre() -> None:
    np.testing.assert_allclose(centre_prior((1, 3)), [np.exp(-2.0), 1.0, np.exp(-2.0)])


def test_a_dark_cell_inside_a_light_picture_has_all_the_contrast() -> None:
    light = np.ones((7, 7))
    light[3, 3] = 0.0
    got = border_contrast(*lab(light.tolist())).reshape(7, 7)
    assert got[3, 3] == 1.0
    assert np.delete(got.ravel(), 24).max() < 0.1


def test_of_two_dark_spots_the_one_that_touches_the_border_stands_out_less() -> None:
    light = np.ones((12, 12))
    light[5:7, 5:7] = 0.0
    light[0:2, 5:7] = 0.0
    got = border_contrast(*lab(light.tolist())).reshape(12, 12)
    assert got[5:7, 5:7].min() > got[0:2, 5:7].max()


def test_mirroring_the_picture_mirrors_the_map() -> None:
    light = np.random.default_rng(0).random((6, 5))
    plain = border_contrast(*lab(light.tolist())).reshape(6, 5)
    mirrored = border_contrast(*lab(light[:, ::-1].tolist())).reshape(6, 5)
    np.testing.assert_allclose(mirrored[:, ::-1], plain, atol=1e-9)


@pytest.mark.parametrize("grid_hw", [(1, 1), (1, 4), (3, 1), (2, 2), (5, 5), (28, 28)])
@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.37, -0.21, 0.63)])
def test_one_colour_has_no_contrast(grid_hw: tuple[int, int], colour: tuple[float, float, float]) -> None:
    cells = np.tile(colour, (grid_hw[0] * grid_hw[1], 1))
    assert border_contrast(cells, grid_hw).tolist() == [0.0] * len(cells)


@pytest.mark.parametrize("grid_hw", [(1, 2), (2, 2), (1, 7), (4, 3)])
def test_small_grids_give_finite_maps_in_range(grid_hw: tuple[int, int]) -> None:
    cells = np.random.default_rng(0).random((grid_hw[0] * grid_hw[1], 3))
    got = border_contrast(cells, grid_hw)
    assert np.isfinite(got).all()
    assert got.min() >= 0.0
    assert got.max() <= 1.0


@pytest.mark.parametrize("grid_hw", [(1, 1), (1, 3), (2, 2), (3, 4)])
def test_no_edge_occurs_twice(grid_hw: tuple[int, int]) -> None:
    neighbours, between, is_border = _graph(grid_hw)
    edges = [tuple(sorted(edge)) for edge in np.concatenate([neighbours, between]).tolist()]
    assert len(set(edges)) == len(edges)
    border = int(is_border.sum())
    pairs = {edge for edge in edges if is_border[edge[0]] and is_border[edge[1]]}
    assert len(pairs) == border * (border - 1) // 2  # every two border cells are joined


def test_two_calls_give_equal_bits() -> None:
    light = np.ones((12, 12))
    light[4:8, 4:8] = 0.6
    light += np.random.default_rng(3).normal(size=light.shape) / 50
    cells, grid_hw = lab(light.tolist())
    base = border_contrast(cells, grid_hw)
    assert base.tobytes() == border_contrast(cells, grid_hw).tobytes()
