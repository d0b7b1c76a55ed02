"""Descriptors of cells, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from umscosod.features.embedded import DESCRIPTOR_DIM, ORIENTATIONS, cell_means, compute_descriptors, to_lab
from umscosod.types import ByteArray

GRADIENTS = slice(6, 6 + 3 * ORIENTATIONS)


def plain(colour: tuple[int, int, int], size: int = 32) -> ByteArray:
    return np.full((size, size, 3), colour, np.uint8)


def stripes(size: int, period: int) -> ByteArray:
    """Vertical stripes: light changes along x alone."""
    row = np.where(np.arange(size) // period % 2, 255, 0).astype(np.uint8)
    return np.repeat(np.tile(row, (size, 1))[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("colour", "lab"), [((0, 0, 0), (0, 0, 0)), ((255, 255, 255), (1, 0, 0)), ((255, 0, 0), (0.5324, 0.6257, 0.5251))]
)
def test_lab_of_known_colours(colour: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    got = to_lab(plain(colour, 2))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0, 0], lab, atol=1e-3)


def test_cell_means_keep_channels_apart() -> None:
    values = np.stack([np.arange(16.0).reshape(4, 4), np.ones((4, 4))], -1)
    got = cell_means(values, 2)
    assert got[..., 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert got[..., 1].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_a_cell_of_two_greys_has_their_mean_and_deviation() -> None:
    got = compute_descriptors(stripes(32, 4), 8)  # half of every cell black, half white: L is 0 or 1
    np.testing.assert_allclose(got[..., 0], 0.5, atol=1e-3)
    np.testing.assert_allclose(got[..., 3], 0.5, atol=1e-3)
    np.testing.assert_allclose(got[..., 4:6], 0.0, atol=2e-3)


def test_stripes_have_one_orientation_and_their_transpose_the_other() -> None:
    upright = compute_descriptors(stripes(64, 4), 8)[..., GRADIENTS].reshape(8, 8, 3, ORIENTATIONS)
    flat = compute_descriptors(stripes(64, 4).transpose(1, 0, 2), 8)[..., GRADIENTS]
    finest = upright[2:-2, 2:-2, 0]
    assert (finest[..., 0] > 0.1).all()
    np.testing.assert_allclose(finest[..., 1:], 0.0, atol=1e-3)
    finest = flat.reshape(8, 8, 3, ORIENTATIONS)[2:-2, 2:-2, 0]
    assert (finest[..., ORIENTATIONS // 2] > 0.1).all()
    np.testing.assert_allclose(finest[..., :3], 0.0, atol=1e-3)


@pytest.mark.parametrize(("size", "cell"), [(8, 8), (16, 8), (1, 1), (32, 8)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (90, 120, 30)])
def test_one_colour_gives_equal_finite_cells_without_gradients(
    colour: tuple[int, int, int], size: int, cell: int
) -> None:
    got = compute_descriptors(plain(colour, size), cell)
    assert got.dtype == np.float32
    assert got.shape == (size // cell, size // cell, DESCRIPTOR_DIM)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got, np.broadcast_to(got[0, 0], got.shape))
    np.testing.assert_allclose(got[..., GRADIENTS], 0.0, atol=1e-3)


def test_a_picture_need_not_be_square() -> None:
    assert compute_descriptors(np.zeros((16, 40, 3), np.uint8), 8).shape == (2, 5, DESCRIPTOR_DIM)


def test_two_calls_give_equal_bits() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (48, 32, 3), dtype=np.uint8)
    assert compute_descriptors(picture, 8).tobytes() == compute_descriptors(picture, 8).tobytes()
