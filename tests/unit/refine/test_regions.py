"""Eq. 7 and 8 recomputed with plain loops over pixels and cells."""

import math

import cv2
import numpy as np
import pytest

from umscosod.config import RefineConfig
from umscosod.errors import DataError
from umscosod.refine.regions import filter_regions, group_prototype, pool_regions

GRID = (2, 3)


def tokens(seed, patches=6, dim=4):
    return np.random.default_rng(seed).normal(size=(patches, dim))


def mean_token_by_hand(mask, tokens_PD, grid_hw):
    """Sum of F over the pixels of the mask, F being constant in each cell, over the mask's area."""
    height, width = len(mask), len(mask[0])
    total, area = [0.0] * len(tokens_PD[0]), 0.0
    for y in range(height):
        for x in range(width):
            if not mask[y][x]:
                continue
            for row in range(grid_hw[0]):
                for column in range(grid_hw[1]):
                    down = min((y + 1) / height, (row + 1) / grid_hw[0]) - max(y / height, row / grid_hw[0])
                    across = min((x + 1) / width, (column + 1) / grid_hw[1]) - max(x / width, column / grid_hw[1])
                    share = max(down, 0.0) * max(across, 0.0)
                    area += share
                    for channel, value in enumerate(tokens_PD[row * grid_hw[1] + column]):
                        total[channel] += share * value
    return [value / area for value in total]


def cosine_by_hand(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize("size_hw", [(4, 6), (5, 7), (2, 3), (1, 2), (9, 4)])
def test_eq_7_by_hand(size_hw):
    rng = np.random.default_rng(3)
    masks = [rng.random(size_hw) < 0.5 for _ in range(3)]
    masks[1][:] = False  # an empty image is left out, not averaged in as 0 / 0
    masks[0][0, 0] = masks[2][0, 0] = True
    tokens_NPD = np.stack([tokens(seed) for seed in range(3)])
    means = [mean_token_by_hand(masks[i].tolist(), tokens_NPD[i].tolist(), GRID) for i in (0, 2)]
    expected = [(a + b) / 2 for a, b in zip(*means, strict=True)]
    np.testing.assert_allclose(group_prototype(masks, tokens_NPD, GRID), expected, atol=1e-12)


def test_images_weigh_the_same_whatever_their_area():
    masks = [np.array([[True, True, True]]), np.array([[True, False, False]])]
    tokens_NPD = np.array([[[2.0]] * 3, [[4.0]] * 3])
    assert group_prototype(masks, tokens_NPD, (1, 3)).tolist() == [3.0]


def test_a_group_of_empty_masks_has_no_prototype():
    assert group_prototype([np.zeros((4, 4), dtype=bool)] * 2, np.zeros((2, 6, 4)), GRID) is None


def test_an_empty_mask_that_is_not_skipped_leaves_its_group_without_similarity():
    """As published: the mean of eq. 7 is 0/0, and no component passes eq. 8; but nothing is NaN."""
    rng = np.random.default_rng(0)
    masks = [rng.random((4, 6)) < 0.5 for _ in range(2)] + [np.zeros((4, 6), dtype=bool)]
    tokens_NPD = np.stack([tokens(seed) for seed in range(3)])
    prototype = group_prototype(masks, tokens_NPD, GRID, skip_empty=False)
    assert prototype.tolist() == [0.0] * tokens_NPD.shape[2]
    config = RefineConfig(skip_empty=False, keep_best=False)
    kept, regions = filter_regions(masks[0], tokens_NPD[0], GRID, prototype, config)
    assert not kept.any()
    assert {region.similarity for region in regions} == {0.0}
    whole = group_prototype(masks[:2], tokens_NPD[:2], GRID, skip_empty=False)
    np.testing.assert_array_equal(whole, group_prototype(masks, tokens_NPD, GRID))


def test_eq_8_by_hand():
    mask = np.array([[1, 0, 0, 0, 1, 1], [0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 1]], dtype=bool)
    parts = np.array([[1, 0, 0, 0, 2, 2], [0, 1, 0, 0, 2, 0], [0, 0, 0, 0, 0, 0], [3, 3, 3, 0, 0, 4]])
    tokens_PD, prototype = tokens(5), tokens(6)[0]
    cosines = [
        cosine_by_hand(mean_token_by_hand((parts == k).tolist(), tokens_PD.tolist(), GRID), prototype)
        for k in (1, 2, 3, 4)
    ]
    middle = (sorted(cosines)[1] + sorted(cosines)[2]) / 2
    config = RefineConfig(sim_th=middle, keep_best=False)
    kept_HW, regions = filter_regions(mask, tokens_PD, GRID, prototype, config)
    np.testing.assert_allclose([region.similarity for region in regions], cosines, atol=1e-12)
    assert [region.area_px for region in regions] == [2, 3, 3, 1]
    assert [region.is_kept for region in regions] == [cosine > middle for cosine in cosines]
    expected = np.isin(parts, [k for k, cosine in enumerate(cosines, 1) if cosine > middle])
    np.testing.assert_array_equal(kept_HW, expected)


def test_diagonal_pixels_join():
    mask = np.array([[True, False], [False, True]])
    arguments = (mask, np.ones((1, 1)), (1, 1), np.ones(1))
    assert len(filter_regions(*arguments, RefineConfig())[1]) == 1


# Three columns, three regions, whose cosines with the prototype (1, 0) are 0.6, 0.8 and -1.
COLUMNS = np.array([[True, False, True, False, True]])
COSINES = np.array([[3.0, 4.0], [0.0, 1.0], [4.0, 3.0], [0.0, 1.0], [-1.0, 0.0]])
EAST = np.array([1.0, 0.0])


def kept(mask=COLUMNS, tokens_PD=COSINES, prototype=EAST, **settings):
    regions = filter_regions(mask, tokens_PD, (1, 5), prototype, RefineConfig(**settings))[1]
    return [region.is_kept for region in regions]


def test_a_region_at_the_bound_goes():
    assert kept(sim_th=0.6) == [False, True, False]
    assert kept(sim_th=0.59) == [True, True, False]


def test_keep_best():
    assert kept(sim_th=0.9, keep_best=False) == [False, False, False]
    assert kept(sim_th=0.9, keep_best=True) == [False, True, False]


def test_keep_best_prefers_the_larger_then_the_first():
    same = np.ones((5, 2))
    assert kept(mask=np.array([[1, 0, 1, 1, 0]], dtype=bool), tokens_PD=same, sim_th=1.0) == [False, True]
    assert kept(tokens_PD=same, sim_th=1.0) == [True, False, False]


def test_small_regions_go_and_the_best_of_the_rest_stays():
    mask = np.array([[1, 1, 0, 1, 0]], dtype=bool)
    tokens_PD = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert kept(mask, tokens_PD) == [False, True]
    assert kept(mask, tokens_PD, drop_regions_smaller_than=0.4) == [True, False]  # 2 of 5 pixels: not smaller
    assert kept(mask, tokens_PD, drop_regions_smaller_than=0.41) == [False, False]


def test_without_a_prototype_size_alone_decides():
    mask = np.array([[1, 1, 0, 1, 0]], dtype=bool)
    assert kept(mask, prototype=None, drop_regions_smaller_than=0.3) == [True, False]


def test_features_without_length_have_similarity_zero():
    _, regions = filter_regions(COLUMNS, np.zeros((5, 2)), (1, 5), EAST, RefineConfig())
    assert [region.similarity for region in regions] == [0.0, 0.0, 0.0]


def test_an_empty_mask_stays_empty():
    mask, regions = filter_regions(np.zeros((4, 6), dtype=bool), tokens(0), GRID, tokens(0)[0], RefineConfig())
    assert not mask.any()
    assert regions == ()


def test_a_region_of_one_pixel_has_a_feature():
    mask = np.zeros((224, 224), dtype=bool)
    mask[100, 37] = True
    tokens_PD = tokens(1, patches=784)
    cell = (100 // 8) * 28 + 37 // 8
    _, regions = filter_regions(mask, tokens_PD, (28, 28), tokens_PD[cell], RefineConfig())
    assert regions[0].similarity == pytest.approx(1.0)


@pytest.mark.parametrize(("size_hw", "grid_hw"), [((12, 8), (3, 4)), ((11, 13), (3, 5)), ((7, 5), (7, 5))])
def test_pooling_equals_opencvs_area_mean(size_hw, grid_hw):
    mask = np.random.default_rng(0).random(size_hw) < 0.4
    pooled = pool_regions(mask.astype(np.int32), 1, grid_hw).reshape(grid_hw)
    cell = size_hw[0] * size_hw[1] / (grid_hw[0] * grid_hw[1])
    area = cv2.resize(mask.astype(np.float32), grid_hw[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(pooled / cell, area, atol=1e-5)


@pytest.mark.parametrize("grid_hw", [(1, 1), (3, 4), (28, 28), (50, 61)])
def test_every_region_keeps_its_area(grid_hw):
    labels = np.arange(1, 36).reshape(5, 7) % 6
    pooled = pool_regions(labels, 5, grid_hw)
    np.testing.assert_allclose(pooled.sum(axis=1), np.bincount(labels.ravel())[1:], rtol=1e-12)
    assert (pooled >= 0).all()


def test_tokens_that_do_not_fit_are_refused():
    mask = np.ones((4, 6), dtype=bool)
    with pytest.raises(DataError, match="expected 6 rows"):
        filter_regions(mask, tokens(0, patches=5), GRID, None, RefineConfig())
    with pytest.raises(DataError, match="4 wide"):
        filter_regions(mask, tokens(0), GRID, np.ones(3), RefineConfig())
    with pytest.raises(DataError, match="NaN"):
        group_prototype([mask], np.full((1, 6, 4), np.nan), GRID)
    with pytest.raises(DataError, match="1 masks but tokens of 2"):
        group_prototype([mask], np.zeros((2, 6, 4)), GRID)
