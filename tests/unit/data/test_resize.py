"""Sizes: what a mask's border, a soft map's corners and a picture's channels do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umscosod.data.resize import (
    mask_share,
    resize_aligned,
    resize_centred,
    resize_grids,
    resize_mask,
    resize_picture,
    resize_saved,
)
from umscosod.errors import DataError


@settings(max_examples=150, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 120)] * 2), st.integers(0, 2**32 - 1))
def test_aligned_equals_torch(old_hw: tuple[int, int], new_hw: tuple[int, int], seed: int) -> None:
    source = np.random.default_rng(seed).random(old_hw, dtype=np.float32)
    tensor = torch.from_numpy(source)[None, None]
    expected = torch.nn.functional.interpolate(tensor, new_hw, mode="bilinear", align_corners=True)[0, 0].numpy()
    got = resize_aligned(source, new_hw)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-7)
    assert source.min() <= got.min() <= got.max() <= source.max()


def test_aligned_by_hand() -> None:
    got = resize_aligned(np.array([[0.0, 1.0], [0.5, 0.5]]), (3, 3))
    assert got.tolist() == [[0.0, 0.5, 1.0], [0.25, 0.5, 0.75], [0.5, 0.5, 0.5]]


def test_aligned_to_the_same_size_is_a_copy() -> None:
    source = np.ones((3, 3), np.float32)
    got = resize_aligned(source, (3, 3))
    assert np.array_equal(got, source)
    assert not np.shares_memory(got, source)


@pytest.mark.parametrize("size_hw", [(9, 13), (3, 2), (1, 1), (1, 7), (5, 4)])
def test_aligned_keeps_double_precision(size_hw: tuple[int, int]) -> None:
    map_HW = np.random.default_rng(0).random((5, 4))
    tensor = torch.from_numpy(map_HW)[None, None]
    expected = torch.nn.functional.interpolate(tensor, size_hw, mode="bilinear", align_corners=True)[0, 0].numpy()
    np.testing.assert_allclose(resize_aligned(map_HW, size_hw), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size_hw", [(224, 224), (225, 300), (427, 640), (1000, 750)])
def test_a_saved_map_of_ours_gives_back_what_it_was_enlarged_from(size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    map_HW = resize_aligned(rng.random((56, 56), dtype=np.float32).round(), (224, 224))
    saved_HW = (np.trunc(resize_aligned(map_HW, size_hw) * 255.0) / 255.0).astype(np.float32)
    got = resize_saved(saved_HW, (224, 224))
    assert np.array_equal(got, resize_aligned(saved_HW, (224, 224)))
    assert np.abs(got - map_HW).mean() < 0.02  # noise, at its hardest


def test_a_map_of_another_program_is_averaged_where_it_shrinks() -> None:
    thin_HW = np.zeros((600, 600), np.float32)
    thin_HW[:, 301] = 1.0  # between two samples
    assert not resize_aligned(thin_HW, (100, 100)).any()
    got = resize_saved(thin_HW, (100, 100))
    np.testing.assert_allclose(got.sum(1), 1 / 6, atol=1e-6)
    assert np.array_equal(resize_saved(thin_HW, (900, 600)), resize_aligned(thin_HW, (900, 600)))


def test_a_map_of_one_pixel_can_grow() -> None:
    for resize in (resize_aligned, resize_centred):
        assert resize(np.array([[0.3]]), (2, 1)).tolist() == [[0.3], [0.3]]


@pytest.mark.parametrize("size_hw", [(9, 13), (5, 11), (10, 4)])
def test_centred_growth_equals_torch(size_hw: tuple[int, int]) -> None:
    map_HW = np.random.default_rng(0).random((5, 4))
    tensor = torch.from_numpy(map_HW)[None, None]
    expected = torch.nn.functional.interpolate(tensor, size_hw, mode="bilinear", align_corners=False)[0, 0].numpy()
    np.testing.assert_allclose(resize_centred(map_HW, size_hw), expected, rtol=0, atol=1e-6)


def test_centred_by_hand() -> None:
    np.testing.assert_allclose(resize_centred(np.array([[0.0, 1.0]]), (1, 4)), [[0.0, 0.25, 0.75, 1.0]])
    np.testing.assert_allclose(resize_centred(np.array([[0.0, 1.0, 0.5, 0.25]]), (1, 2)), [[0.5, 0.375]])  # means


def test_centred_keeps_its_precision_and_has_nothing_to_do() -> None:
    for dtype, expected in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
        assert resize_centred(np.ones((2, 2), dtype), (3, 5)).dtype == expected
    map_HW = np.ones((2, 3))
    assert resize_centred(map_HW, (2, 3)) is map_HW


@settings(max_examples=150, deadline=None)
@given(st.tuples(*[st.integers(1, 32)] * 2), st.tuples(*[st.integers(1, 90)] * 2), st.integers(0, 2**32 - 1))
def test_grids_are_resized_as_their_channels_one_by_one(
    old_hw: tuple[int, int], new_hw: tuple[int, int], seed: int
) -> None:
    grids = np.random.default_rng(seed).random((2, *old_hw, 3), dtype=np.float32)
    got = resize_grids(grids, new_hw)
    assert (got.shape, got.dtype) == ((2, *new_hw, 3), np.float32)
    for grid, resized in zip(grids, got, strict=True):
        for channel in range(3):
            expected = resize_centred(np.ascontiguousarray(grid[..., channel]), new_hw)
            np.testing.assert_allclose(resized[..., channel], expected, rtol=0, atol=1e-6)


def test_grids_keep_their_precision_and_may_be_none() -> None:
    grids = np.ones((1, 2, 2, 3))
    assert resize_grids(grids, (2, 2)) is grids
    assert resize_grids(grids.astype(np.float16), (3, 5)).dtype == np.float32
    assert resize_grids(grids, (3, 5)).dtype == np.float64
    assert resize_grids(np.ones((0, 2, 2, 3)), (4, 4)).shape == (0, 4, 4, 3)


def test_what_are_no_grids_is_refused() -> None:
    for bad, size_hw in (
        (np.ones((2, 2, 3)), (3, 3)),
        (np.ones((1, 2, 2, 3), int), (3, 3)),
        (np.ones((1, 2, 2, 3)), (0, 3)),
    ):
        with pytest.raises(DataError, match="expects float grids"):
            resize_grids(bad, size_hw)


@pytest.mark.parametrize("resize", [resize_aligned, resize_centred, resize_saved])
def test_what_is_no_map_is_refused(resize: Callable[..., np.ndarray]) -> None:
    for bad in (np.zeros((0, 3)), np.zeros(3), np.zeros((2, 2), np.uint8)):
        with pytest.raises(DataError, match="expects a float map"):
            resize(bad, (3, 3))
    with pytest.raises(DataError, match="at least 1 pixel"):
        resize(np.zeros((3, 3)), (0, 3))


def test_a_growing_mask_keeps_its_place() -> None:
    mask = np.array([[False, True, True, False]])
    assert resize_mask(mask, (1, 8)).tolist() == [[False, False, True, True, True, True, False, False]]


def test_a_shrinking_mask_is_a_majority_vote() -> None:
    mask = np.array([[True, False, True, True, False, False]])
    assert resize_mask(mask, (1, 3)).tolist() == [[True, True, False]]  # half counts as foreground


def test_sides_that_move_in_opposite_directions() -> None:
    assert resize_mask(np.ones((4, 2), dtype=bool), (2, 5)).all()


def test_nothing_to_do_gives_the_same_array() -> None:
    mask, picture = np.ones((3, 2), dtype=bool), np.zeros((3, 2, 3), dtype=np.uint8)
    assert resize_mask(mask, (3, 2)) is mask
    assert resize_picture(picture, (3, 2)) is picture


def test_pictures_stay_uint8_and_keep_their_channels() -> None:
    picture = np.full((4, 6, 3), (10, 20, 30), dtype=np.uint8)
    for size_hw in ((2, 3), (9, 11)):
        out = resize_picture(picture, size_hw)
        assert out.dtype == np.uint8
        assert out.shape == (*size_hw, 3)
        assert (out == (10, 20, 30)).all()


@pytest.mark.parametrize("size_hw", [(28, 28), (57, 40), (120, 333)])
def test_a_grid_gets_the_share_that_a_mask_covers(size_hw):
    mask = np.random.default_rng(1).random(size_hw) < 0.3
    share = mask_share(mask, (28, 28))
    assert share.shape == (28, 28)
    assert share.mean() == pytest.approx(mask.mean(), abs=1e-6)
    assert mask_share(np.ones(size_hw, dtype=bool), (28, 28)).min() == 1.0


def test_one_pixel_of_a_large_mask_does_not_vanish_on_a_grid():
    mask = np.zeros((560, 560), dtype=bool)
    mask[25, 41] = True
    share = mask_share(mask, (28, 28))
    assert share[1, 2] == pytest.approx(1 / 400)
    assert np.count_nonzero(share) == 1
