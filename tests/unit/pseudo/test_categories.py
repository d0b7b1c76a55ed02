"""Mask embeddings, clusters and their order, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from umscosod.pseudo.select import Category, cluster_embeddings, embed_mask, order_categories


def make(number: int, frequency: float, overlap: float = 0.5, masks: int = 1) -> Category:
    return Category(id=number, frequency=frequency, mean_overlap=overlap, masks=masks)


def test_embedding_is_the_unit_mean_weighted_by_area() -> None:
    tokens = np.array([[1, 0], [0, 1], [5, 5]], dtype=np.float16)
    got = embed_mask(tokens, np.array([[1.0, 0.5, 0.0]]))
    np.testing.assert_allclose(got, np.array([2.0, 1.0]) / np.sqrt(5))
    assert embed_mask(tokens, np.zeros((1, 3))).tolist() == [0.0, 0.0]
    assert embed_mask(np.array([[1.0], [-1.0]]), np.ones((2, 1))).tolist() == [0.0]


def test_average_linkage_by_hand() -> None:
    # On the unit circle at 0, 60 and 90 degrees: distances 0.5, 1 - cos 30 = 0.134, 1. The near pair merges first,
    # then its mean distance to the first is (0.5 + 1) / 2 = 0.75.
    angles = np.radians([0.0, 60.0, 90.0])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert cluster_embeddings(points, 0.13).tolist() == [0, 1, 2]
    assert cluster_embeddings(points, 0.14).tolist() == [0, 1, 1]
    assert cluster_embeddings(points, 0.74).tolist() == [0, 1, 1]
    assert cluster_embeddings(points, 0.751).tolist() == [0, 0, 0]


def test_few_masks() -> None:
    assert cluster_embeddings(np.zeros((0, 3)), 0.4).tolist() == []
    assert cluster_embeddings(np.ones((1, 3)), 0.4).tolist() == [0]


def test_a_zero_embedding_is_alone_and_duplicates_are_together() -> None:
    points = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert cluster_embeddings(points, 0.45).tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_masks_does_not_change_the_clusters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(30, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    order = rng.permutation(30)
    straight, shuffled = cluster_embeddings(points, 0.4), cluster_embeddings(points[order], 0.4)
    same = straight[order][:, None] == straight[order][None, :]
    np.testing.assert_array_equal(same, shuffled[:, None] == shuffled[None, :])


def test_order_and_its_ties() -> None:
    rows = [
        make(0, 0.5, 0.9, 9),
        make(1, 1.0, 0.2, 3),
        make(2, 1.0, 0.2, 5),
        make(3, 1.0, 0.4, 1),
        make(4, 1.0, 0.2 + 1e-12, 5),
    ]
    # frequency first; then overlap; then masks; 2 and 4 tie but for rounding: the lower id
    assert [one.id for one in order_categories(rows[::-1])] == [3, 2, 4, 1, 0]
