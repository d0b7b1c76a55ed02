"""Confidence of a mask: contrast of its map, agreement of a second opinion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from umscosod.refine.threshold import mask_confidence

SIDES = st.tuples(st.integers(1, 7), st.integers(1, 7))
MASKS = SIDES.flatmap(lambda shape: arrays.arrays(bool, shape))
MAPS = SIDES.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))

MAP = np.array([[0.9, 0.7, 0.1, 0.3]])
MASK = np.array([[True, True, False, False]])


def test_contrast_is_mean_inside_minus_mean_outside() -> None:
    assert mask_confidence(MAP, MASK) == pytest.approx(0.6)


def test_a_second_opinion_counts_by_its_iou() -> None:
    other = np.array([[True, False, False, False]])  # IoU 1/2
    assert mask_confidence(MAP, MASK, other) == pytest.approx(math.sqrt(0.6 * 0.5))
    assert mask_confidence(MAP, MASK, MASK) == pytest.approx(math.sqrt(0.6))
    assert mask_confidence(MAP, MASK, ~MASK) == 0.0
    assert mask_confidence(MAP, MASK, np.zeros_like(MASK)) == 0.0


def test_a_map_brighter_outside_has_no_confidence() -> None:
    assert mask_confidence(1.0 - MAP, MASK) == 0.0


@pytest.mark.parametrize("fill", [False, True])
def test_empty_and_full_masks_have_none(fill: bool) -> None:
    assert mask_confidence(MAP, np.full((9, 5), fill)) == 0.0
    assert mask_confidence(MAP, np.full((9, 5), fill), np.full((3, 3), True)) == 0.0


def test_masks_of_another_size_are_brought_to_the_map() -> None:
    finer = np.kron(MASK, np.ones((3, 5), bool))
    assert mask_confidence(MAP, finer) == mask_confidence(MAP, MASK)
    assert mask_confidence(MAP, finer, finer) == mask_confidence(MAP, MASK, MASK)


def test_a_mask_lost_in_shrinking_has_none() -> None:
    speck = np.zeros((40, 40), bool)
    speck[0, 0] = True
    assert mask_confidence(np.array([[1.0, 0.0], [0.0, 0.0]]), speck) == 0.0


def test_a_perfect_map_is_certain_and_a_flat_one_worth_nothing() -> None:
    assert mask_confidence(MASK.astype(np.float32), MASK, MASK) == 1.0
    assert mask_confidence(np.full((1, 4), 0.5, np.float32), MASK) == 0.0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(MAPS, MASKS, st.none() | MASKS)
def test_always_between_zero_and_one(map_HW: np.ndarray, mask: np.ndarray, other: np.ndarray | None) -> None:
    got = mask_confidence(map_HW, mask, other)
    assert isinstance(got, float)
    assert 0.0 <= got <= 1.0
