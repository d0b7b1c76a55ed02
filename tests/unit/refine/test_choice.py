"""Agreement of masks across a group: consistent sets win, empty sets count nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umscosod.config import RefineConfig
from umscosod.refine.choice import group_agreement

CONFIG = RefineConfig()
GRID = (6, 6)


def group(count: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Masks of a 3 x 3 object and tokens whose channel 0 marks it."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        mask = np.zeros(GRID, bool)
        row, column = rng.integers(0, 4, 2)
        mask[row : row + 3, column : column + 3] = True
        masks.append(mask)
    tokens = rng.normal(size=(count, 36, 5)) * 0.2
    tokens[..., 0] += np.stack(masks).reshape(count, 36)
    return masks, tokens


def elsewhere(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Half of the masks mark the object, half all the rest."""
    return [mask if index % 4 < 2 else ~mask for index, mask in enumerate(masks)]


@pytest.mark.parametrize("seed", range(3))
def test_masks_of_one_thing_agree_more_than_masks_of_two(seed: int) -> None:
    masks, tokens = group(8, seed)
    shifted = [np.roll(mask, 3, axis=(0, 1)) for mask in masks]
    same = group_agreement(masks, tokens, GRID, CONFIG)
    assert same > 0.8
    assert group_agreement(elsewhere(masks), tokens, GRID, CONFIG) < same - 0.5
    assert group_agreement(shifted, tokens, GRID, CONFIG) < same - 0.2


def test_perfect_prediction_is_one_at_any_mask_size() -> None:
    masks, tokens = group(4)
    tokens[...] = 0.0
    tokens[..., 0] = np.stack(masks).reshape(4, 36)
    big = [np.kron(mask, np.ones((5, 7), bool)) for mask in masks]
    assert group_agreement(masks, tokens, GRID, CONFIG) == pytest.approx(1.0)
    assert group_agreement(big, tokens, GRID, CONFIG) == pytest.approx(1.0, abs=1e-6)


def test_masks_that_one_half_inverts_agree_negatively() -> None:
    masks, tokens = group(4)
    assert group_agreement([m if i % 2 else ~m for i, m in enumerate(masks)], tokens, GRID, CONFIG) < -0.8


def test_a_group_of_one_is_judged_by_itself() -> None:
    masks, tokens = group(1)
    assert group_agreement(masks, tokens, GRID, CONFIG) > 0.8
    assert group_agreement([np.zeros(GRID, bool)], tokens, GRID, CONFIG) == 0.0


@pytest.mark.parametrize("size_hw", [(6, 6), (37, 53), (100, 75), (333, 500), (3, 2)])
@pytest.mark.parametrize("is_full", [False, True])
def test_empty_and_full_masks_count_exactly_nothing(size_hw: tuple[int, int], is_full: bool) -> None:
    _, tokens = group(3)
    assert group_agreement([np.full(size_hw, is_full)] * 3, tokens, GRID, CONFIG) == 0.0


def test_an_empty_mask_among_others_counts_zero_in_the_mean() -> None:
    masks, tokens = group(3)
    masks[1] = np.zeros(GRID, bool)  # images 0 and 2 then have nothing that predicts them
    assert group_agreement(masks, tokens, GRID, CONFIG) == 0.0
    four, tokens = group(4)
    four[1] = np.zeros((333, 500), bool)
    full = group_agreement(four, tokens, GRID, CONFIG)
    assert 0.5 < full <= 0.75  # one of four is zero


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from([(1, 1), (1, 2), (3, 4)]), st.booleans())
def test_any_masks_give_a_finite_number_between_minus_one_and_one(
    seed: int, count: int, grid_hw: tuple[int, int], is_flat: bool
) -> None:
    rng = np.random.default_rng(seed)
    masks = [rng.random(rng.integers(1, 12, 2)) < rng.random() for _ in range(count)]
    tokens = rng.normal(size=(count, grid_hw[0] * grid_hw[1], 4)).astype(np.float16)
    if is_flat:
        tokens[...] = 0.3
    got = group_agreement(masks, tokens, grid_hw, CONFIG)
    assert -1.0 <= got <= 1.0
    assert got == group_agreement(masks, tokens, grid_hw, CONFIG)


def test_the_ridge_is_a_setting() -> None:
    masks, tokens = group(4)
    tokens[..., 1] *= 30  # a loud channel that says nothing drowns a strongly ridged classifier
    weak, strong = (group_agreement(masks, tokens, GRID, RefineConfig(agreement_ridge=r)) for r in (1e-3, 1e3))
    assert weak > strong + 0.05
