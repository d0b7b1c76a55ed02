"""Sizes: what the mask's border and the soft map's corners do."""

import numpy as np
import pytest
import torch

from umscosod.refine.resize import resize_map, resize_mask, resize_picture


@pytest.mark.parametrize("size_hw", [(9, 13), (3, 2), (1, 1), (1, 7), (5, 4)])
def test_maps_are_resized_as_saved_soft_maps_are(size_hw):
    map_HW = np.random.default_rng(0).random((5, 4))
    reference = torch.nn.functional.interpolate(
        torch.from_numpy(map_HW)[None, None], size=size_hw, mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(resize_map(map_HW, size_hw), reference[0, 0].numpy(), atol=1e-12)


def test_a_map_of_one_pixel_can_grow():
    assert resize_map(np.array([[0.3]]), (2, 2)).tolist() == [[0.3, 0.3], [0.3, 0.3]]


def test_a_growing_mask_keeps_its_place():
    mask = np.array([[False, True, True, False]])
    assert resize_mask(mask, (1, 8)).tolist() == [[False, False, True, True, True, True, False, False]]


def test_a_shrinking_mask_is_a_majority_vote():
    mask = np.array([[True, False, True, True, False, False]])
    assert resize_mask(mask, (1, 3)).tolist() == [[True, True, False]]  # half counts as foreground


def test_sides_that_move_in_opposite_directions():
    assert resize_mask(np.ones((4, 2), dtype=bool), (2, 5)).all()


def test_nothing_to_do_gives_the_same_array():
    mask, picture = np.ones((3, 2), dtype=bool), np.zeros((3, 2, 3), dtype=np.uint8)
    assert resize_mask(mask, (3, 2)) is mask
    assert resize_picture(picture, (3, 2)) is picture


def test_pictures_stay_uint8_and_keep_their_channels():
    picture = np.full((4, 6, 3), (10, 20, 30), dtype=np.uint8)
    for size_hw in ((2, 3), (9, 11)):
        out = resize_picture(picture, size_hw)
        assert out.dtype == np.uint8
        assert out.shape == (*size_hw, 3)
        assert (out == (10, 20, 30)).all()
