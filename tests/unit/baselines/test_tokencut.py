"""Normalised cuts: a graph solved by hand, two solvers, which side is the object."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.baselines import tokencut
from umscosod.baselines.tokencut import cut_image, second_eigenvector, tokencut_maps


def rows(tokens: np.ndarray) -> np.ndarray:
    flat = tokens.reshape(-1, tokens.shape[-1])
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


def test_a_path_of_three_by_hand() -> None:
    """W = [[1,1,e],[1,1,1],[e,1,1]], e = 0: D = diag(2, 3, 2); y = (1, 0, -1) has lambda = 1 - 1/2."""
    graph = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    vector = second_eigenvector(graph)
    np.testing.assert_allclose(vector / vector[0], [1.0, 0.0, -1.0], atol=1e-9)
    degrees = np.diag(graph.sum(1))
    np.testing.assert_allclose((degrees - graph) @ vector, 0.5 * degrees @ vector, atol=1e-9)


def test_both_solvers_find_the_vector_of_the_dense_generalised_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.linalg import eigh

    generator = np.random.default_rng(0)
    points = generator.normal(size=(100, 3)) + np.repeat([[0.0], [2.0]], [30, 70], 0)
    graph = np.exp(-((points[:, None] - points[None]) ** 2).sum(-1))
    degrees = np.diag(graph.sum(1))
    oracle = eigh(degrees - graph, degrees, subset_by_index=[1, 1])[1][:, 0]
    sparse = second_eigenvector(graph)
    monkeypatch.setattr(tokencut, "_DENSE", 1000)
    dense = second_eigenvector(graph)
    for vector in (sparse, dense):
        assert abs(np.corrcoef(vector, oracle)[0, 1]) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("grid", [6, 12])  # below and above the number of patches that are solved densely
def test_the_object_on_a_plain_background_is_found(grid: int) -> None:
    tokens = paint(grid, {(1, 1, 3, 4): 1})
    map_hw = cut_image(rows(tokens), (grid, grid))
    np.testing.assert_array_equal(map_hw >= 0.5, box(grid, 1, 1, 3, 4))
    assert map_hw.dtype == np.float32
    assert 0.0 <= map_hw.min() <= map_hw.max() <= 1.0


def test_only_the_region_of_the_strongest_patch_is_the_object() -> None:
    tokens = paint(6, {(1, 1, 3, 3): 1, (4, 4, 5, 5): 1})
    np.testing.assert_array_equal(cut_image(rows(tokens), (6, 6)) >= 0.5, box(6, 1, 1, 3, 3))


def test_a_side_with_the_corners_is_background(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = paint(6, {(1, 0, 5, 6): 1})  # the larger side, without corners; the smaller one has the larger magnitude
    np.testing.assert_array_equal(cut_image(rows(tokens), (6, 6)) >= 0.5, box(6, 1, 0, 5, 6))
    monkeypatch.setattr(tokencut, "MAX_CORNERS", 4)  # as published
    published = cut_image(rows(tokens), (6, 6)) >= 0.5
    assert published.any()
    assert not published[box(6, 1, 0, 5, 6)].any()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_equal_patches_give_zeros(level: float) -> None:
    maps = tokencut_maps(make_features([np.full((3, 3, 4), level)], [np.zeros((3, 3))]))
    assert maps.shape == (1, 3, 3)
    assert not maps.any()


def test_an_image_is_cut_by_itself() -> None:
    tokens = [paint(6, {(1, 1, 3, 3): 1}), paint(6, {(2, 2, 5, 5): 2})]
    together = tokencut_maps(make_features(tokens, [np.zeros((6, 6))] * 2))
    alone = tokencut_maps(make_features(tokens[1:], [np.zeros((6, 6))]))
    np.testing.assert_array_equal(together[1], alone[0])
