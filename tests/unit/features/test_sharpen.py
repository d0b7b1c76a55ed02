"""Sharpening: the group agrees on what is foreground, and nothing comes out of nothing."""

from __future__ import annotations

import numpy as np
import pytest

from umscosod.features import group as sharpening
from umscosod.features.group import append_map, minmax, sharpen_saliency

GRID = (6, 6)


def group(count: int = 3, seed: int = 0, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens whose channel 0 marks a 3 x 3 object at another place per image, a blurred guess at it, and the truth."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((count, *GRID), bool)
    for index in range(count):
        row, column = rng.integers(0, 4, 2)
        truth[index, row : row + 3, column : column + 3] = True
    truth_NP = truth.reshape(count, -1)
    tokens = rng.normal(size=(count, truth_NP.shape[1], 4)) * noise
    tokens[..., 0] += 2.0 * truth_NP
    guess = np.clip(0.6 * truth_NP + 0.5 * rng.random(truth_NP.shape), 0, 1)
    return tokens.astype(np.float32), guess.astype(np.float32), truth_NP


def test_the_map_gets_closer_to_the_object_than_the_guess_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpening, "SMOOTH_CELLS", 1e-3)  # none: a grid of 6 x 6 is all border to a Gaussian of 1
    monkeypatch.setattr(sharpening, "SLOPE", 3.0)
    tokens, guess, truth = group()
    sharpened = sharpen_saliency(tokens, guess, GRID)
    assert sharpened.dtype == np.float32
    assert np.abs(sharpened - truth).mean() < 0.6 * np.abs(minmax(guess) - truth).mean()
    assert sharpened[truth].min() > sharpened[~truth].max()


def test_the_group_repairs_a_guess_that_is_wrong_in_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {}
    for weight in (0.0, 1.0):  # the group's classifier alone, the image's own alone
        monkeypatch.setattr(sharpening, "IMAGE_WEIGHT", weight)
        maps = []
        for seed in range(5):
            tokens, guess, truth = group(5, seed)
            guess[0] = np.random.default_rng(seed).random(36)  # says nothing about the object
            maps.append(np.abs(sharpen_saliency(tokens, guess, GRID)[0] - truth[0]).mean())
        errors[weight] = np.mean(maps)
    assert errors[0.0] < 0.5 * errors[1.0]


@pytest.mark.parametrize("seed", range(3))
def test_permuting_the_images_permutes_the_maps(seed: int) -> None:
    tokens, guess, _ = group(5, seed)
    order = np.random.default_rng(seed).permutation(5)
    plain = sharpen_saliency(tokens, guess, GRID)
    np.testing.assert_allclose(sharpen_saliency(tokens[order], guess[order], GRID), plain[order], atol=1e-5)


def test_every_map_of_a_group_of_any_size_spans_zero_to_one() -> None:
    for count in (1, 2, 5):
        tokens, guess, _ = group(count)
        sharpened = sharpen_saliency(tokens, guess, GRID)
        assert sharpened.shape == (count, 36)
        assert sharpened.min(1).tolist() == [0.0] * count
        assert sharpened.max(1).tolist() == [1.0] * count


def test_two_calls_give_equal_bits() -> None:
    tokens, guess, _ = group()
    assert sharpen_saliency(tokens, guess, GRID).tobytes() == (sharpen_saliency(tokens, guess, GRID).tobytes())


@pytest.mark.parametrize("grid_hw", [(1, 1), (1, 2), (2, 2), (6, 6)])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_picture_of_one_colour_gets_no_map_out_of_the_centre_prior(grid_hw: tuple[int, int], level: float) -> None:
    patches = grid_hw[0] * grid_hw[1]
    tokens = np.full((1, patches, 4), 0.7, np.float32)
    got = sharpen_saliency(tokens, np.full((1, patches), level, np.float32), grid_hw)
    assert got.tolist() == [[0.0] * patches]


def test_a_blank_picture_among_others_stays_blank_and_harms_none() -> None:
    tokens, guess, truth = group()
    blank = np.full((1, 36, 4), -0.1, np.float32)
    got = sharpen_saliency(
        np.concatenate([tokens, blank]), np.concatenate([guess, np.zeros((1, 36), np.float32)]), GRID
    )
    assert not got[3].any()
    assert all(map_P[inside].mean() > map_P[~inside].mean() + 0.3 for map_P, inside in zip(got, truth, strict=False))


@pytest.mark.parametrize("grid_hw", [(1, 1), (1, 2), (2, 2), (3, 1)])
def test_tiny_grids_give_finite_maps(grid_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    patches = grid_hw[0] * grid_hw[1]
    got = sharpen_saliency(rng.normal(size=(2, patches, 3)).astype(np.float32), rng.random((2, patches)), grid_hw)
    assert np.isfinite(got).all()
    assert got.min() >= 0
    assert got.max() <= 1


def test_equal_tokens_under_an_uneven_map_stay_finite() -> None:
    guess = np.random.default_rng(0).random((2, 36))
    assert np.isfinite(sharpen_saliency(np.full((2, 36, 3), 0.3, np.float32), guess, GRID)).all()


def test_a_score_far_below_zero_gives_no_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpening, "SMOOTH_CELLS", 1e-3)
    monkeypatch.setattr(sharpening, "SLOPE", 1e6)
    tokens, guess, truth = group()
    got = sharpen_saliency(tokens, guess, GRID)
    assert np.isfinite(got).all()
    assert got[truth].min() > got[~truth].max()


def test_the_map_becomes_one_more_channel_between_minus_and_plus_its_weight() -> None:
    got = append_map(np.zeros((1, 3, 2), np.float16), np.array([[0.0, 0.5, 1.0]], np.float32), 6.0)
    assert got[0, :, 2].tolist() == [-6.0, 0.0, 6.0]
    assert not got[..., :2].any()
    assert got.dtype == np.float32


def test_minmax_stretches_rows_one_by_one() -> None:
    assert minmax(np.array([[2.0, 4.0], [-1.0, -1.0], [0.0, -8.0]])).tolist() == [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
