"""Eq. 1 and mask arithmetic, by hand and against dense masks."""

from __future__ import annotations

import numpy as np

from umscosod.data.masks import encode_rle
from umscosod.pseudo.proposals import (
    compute_overlap,
    coverage_levels,
    intersections,
    merge_rles,
    suppress_duplicates,
)


def test_as_many_masks_as_a_segmenter_gives_are_compared() -> None:
    rows = np.arange(300)
    shared_MM = intersections([encode_rle(np.arange(600).reshape(600, 1) // 2 == row) for row in rows])
    assert (shared_MM == 2 * np.eye(300)).all()


def test_equation_1_by_hand() -> None:
    mask = np.array([[1, 1, 0], [1, 1, 0]], dtype=bool)
    attention = np.array([[0, 1, 1], [0, 1, 1]], dtype=bool)
    assert compute_overlap(mask, attention) == 2 / 6
    assert compute_overlap(mask, mask) == 1.0
    assert compute_overlap(mask, ~mask) == 0.0
    assert compute_overlap(np.zeros((2, 2), dtype=bool), np.zeros((2, 2), dtype=bool)) == 0.0


def test_run_length_intersections_equal_dense_ones() -> None:
    masks = np.random.default_rng(2).random((7, 33, 21)) < 0.4
    masks[3] = False
    flat = masks.reshape(7, -1).astype(int)
    rles = [encode_rle(mask) for mask in masks]
    np.testing.assert_array_equal(intersections(rles), flat @ flat.T)
    assert intersections([]).shape == (0, 0)
    np.testing.assert_array_equal(merge_rles(rles), masks.any(axis=0))


def test_a_mask_equal_at_the_bound_stays_and_an_empty_one_goes() -> None:
    shared = np.array([[10, 9, 0], [9, 9, 0], [0, 0, 0]])  # IoU 0.9
    assert suppress_duplicates(shared) == [0, 1]
    assert suppress_duplicates(np.array([[100, 91], [91, 91]])) == [0]


def test_levels_by_coverage() -> None:
    # a big mask, one 90 % inside it, one 89 % inside it, and a copy of the first (no parent of it: not smaller)
    shared = np.array([[100, 9, 89, 100], [9, 10, 0, 9], [89, 0, 100, 89], [100, 9, 89, 100]])
    assert coverage_levels(shared) == [0, 1, 0, 0]


def test_depth_stops_at_subpart() -> None:
    sizes = np.array([50, 20, 10, 5])
    shared = np.minimum(sizes[:, None], sizes[None, :])
    assert coverage_levels(shared) == [0, 1, 2, 2]
    assert coverage_levels(shared[::-1, ::-1]) == [2, 2, 1, 0]
