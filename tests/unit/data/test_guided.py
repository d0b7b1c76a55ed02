"""The guided filter: what it leaves as it is, and whose borders it takes."""

import numpy as np
import pytest
import skimage.data

from umscosod.data.guided import upsample_guided
from umscosod.data.resize import resize_centred, resize_picture


def photograph(height=96, width=128):
    return resize_picture(skimage.data.coffee(), (height, width))


@pytest.mark.parametrize("small_hw", [(48, 64), (16, 21), (5, 5), (96, 128)])
def test_a_level_map_stays_level(small_hw):
    np.testing.assert_allclose(upsample_guided(np.full(small_hw, 0.3), photograph(), 4), 0.3, atol=1e-9)


def test_a_map_that_is_linear_in_the_colours_comes_back_at_full_size():
    picture = photograph()
    weights = np.array([0.5, -0.2, 0.4])
    small = resize_picture(picture, (48, 64)) / 255.0 @ weights + 0.1
    wanted = picture / 255.0 @ weights + 0.1
    missed = np.abs(upsample_guided(small, picture, 4) - wanted).mean()
    assert missed < 0.1 * np.abs(resize_centred(small, (96, 128)) - wanted).mean()


def test_it_is_linear_in_the_map():
    first, second = np.random.default_rng(0).random((2, 24, 32))
    joined = upsample_guided(2.0 * first - second, photograph(), 4)
    np.testing.assert_allclose(
        joined, 2.0 * upsample_guided(first, photograph(), 4) - upsample_guided(second, photograph(), 4), atol=1e-9
    )


def test_borders_are_those_of_the_picture():
    rows, columns = np.mgrid[:96, :96]
    inside = np.hypot(rows - 45, columns - 50) < 30.5
    picture = np.where(inside[..., None], (200, 90, 40), (40, 110, 160)).astype(np.uint8)
    small = resize_centred(np.roll(inside, 1, axis=1).astype(float), (48, 48))  # half a cell aside
    found, plain = upsample_guided(small, picture, 4) > 0.5, resize_centred(small, (96, 96)) > 0.5
    assert (plain != inside).sum() > 100
    assert (found != inside).sum() < 0.2 * (plain != inside).sum()


@pytest.mark.parametrize("level", [0, 255])
def test_a_picture_of_one_colour_leaves_a_smooth_map(level):
    small = np.zeros((24, 24))
    small[3:21, 3:21] = 1.0
    found = upsample_guided(small, np.full((48, 48, 3), level, np.uint8), 4)
    assert found.shape == (48, 48)
    assert found.min() >= -1e-9
    assert found.max() <= 1.0 + 1e-9
    assert found[24, 24] > 0.9
    assert found[0, 0] < 0.25
