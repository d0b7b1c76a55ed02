from __future__ import annotations

import numpy as np
import pytest

from umscosod.evaluation.histogram import compute_centroid, compute_joint_histogram, quadrant_slices


@pytest.mark.parametrize("split", [(0, 0), (3, 4), (9, 7), (9, 0)])
def test_counts_equal_a_loop_over_the_pixels(split):
    rng = np.random.default_rng(2)
    pred = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    gt = rng.choice(np.array([0, 100, 255], np.uint8), (9, 7))
    joint = compute_joint_histogram(pred, gt, split)
    wanted = np.zeros((4, 256, 256), int)
    for row in range(9):
        for column in range(7):
            quadrant = 2 * (row >= split[0]) + (column >= split[1])
            wanted[quadrant, gt[row, column], pred[row, column]] += 1
    assert joint.gt_levels_L.tolist() == [0, 100, 255]
    assert np.array_equal(joint.counts_QLV, wanted[:, [0, 100, 255]])
    assert joint.size == joint.counts_QLV.sum() == 63


def test_quadrants_cover_the_picture_once():
    cover = np.zeros((5, 8), int)
    for part in quadrant_slices((5, 8), (2, 3)):
        cover[part] += 1
    assert (cover == 1).all()


def test_halves_of_a_centroid_round_to_even():
    mask = np.zeros((10, 10), bool)
    mask[2:4, 3:5] = True  # 2.5, 3.5
    for single in (True, False):
        assert compute_centroid(mask, single_precision=single) == (2, 4)
    assert compute_centroid(np.zeros((5, 8), bool), single_precision=False) == (2, 4)
