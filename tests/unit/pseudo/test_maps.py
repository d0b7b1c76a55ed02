"""Pseudo-labels as soft maps, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from umscosod.config import PseudoConfig
from umscosod.pseudo.store import label_map
from umscosod.types import PseudoLabel

CONFIG = PseudoConfig()
GRID = (4, 4)


def make_label(mask: np.ndarray, source: str = "hac") -> PseudoLabel:
    return PseudoLabel(
        image_id="a.jpg", map_hw=mask.astype(np.float32), mask_hw=mask.astype(bool), confidence=0.5, source=source
    )


def test_mean_of_mask_and_attention_whose_threshold_becomes_one_half() -> None:
    attention = np.array([[0.5, 0.4, 0.2, 0.0]])  # 0.5 + 0.4 hold 0.6: 0.4 becomes 0.5, 0.2 becomes 0.25
    got = label_map(make_label(np.array([[1, 1, 0, 0]])), attention, (1, 4), CONFIG)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [[0.8125, 0.75, 0.125, 0.0]])


def test_a_label_by_masks_alone_is_its_mask() -> None:
    got = label_map(
        make_label(np.array([[1, 1, 0, 0]])), np.array([[1.0, 0.4, 0.2, 0.0]]), (1, 4), replace(CONFIG, select="masks")
    )
    np.testing.assert_array_equal(got, [[1.0, 1.0, 0.0, 0.0]])


def test_a_threshold_above_one_half_leaves_the_attention_as_it_is() -> None:
    attention = np.array([[1.0, 0.8, 0.8, 0.2]])  # 1.0 + 0.8 hold 0.6
    got = label_map(make_label(np.array([[1, 0, 1, 0]])), attention, (1, 4), CONFIG)
    np.testing.assert_allclose(got, [[1.0, 0.4, 0.9, 0.1]])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    arrays.arrays(bool, GRID),
    arrays.arrays(np.float64, GRID, elements=st.floats(0, 1)),
    st.sampled_from([(4, 4), (8, 8), (5, 9), (2, 2), (1, 1)]),
)
def test_at_least_one_half_inside_and_at_most_one_half_outside(
    mask: np.ndarray, attention: np.ndarray, size_hw: tuple[int, int]
) -> None:
    from umscosod.data.resize import resize_centred

    got = label_map(make_label(mask), attention, size_hw, CONFIG)
    resized = resize_centred(mask.astype(np.float32), size_hw)
    assert got.shape == size_hw
    assert np.isfinite(got).all()
    assert ((got >= 0) & (got <= 1)).all()
    assert (got[resized == 1] >= 0.5).all()
    assert (got[resized == 0] <= 0.5).all()


def test_a_persons_mask_stays_as_it_is() -> None:
    mask = np.random.default_rng(0).random(GRID) > 0.5
    got = label_map(make_label(mask, "human"), np.random.default_rng(1).random(GRID), GRID, CONFIG)
    np.testing.assert_array_equal(got, mask.astype(np.float32))
    finer = label_map(make_label(mask, "human"), np.ones(GRID), (8, 8), CONFIG)
    np.testing.assert_array_equal(finer >= 0.5, np.kron(mask, np.ones((2, 2), bool)))


def test_without_attention_the_mask_alone_remains() -> None:
    mask = np.eye(4, dtype=bool)
    got = label_map(make_label(mask), np.zeros(GRID), GRID, CONFIG)
    np.testing.assert_array_equal(got, mask.astype(np.float32))


def test_a_grid_of_one_patch_and_two_calls_of_equal_bits() -> None:
    assert label_map(make_label(np.ones((1, 1))), np.ones((1, 1)), (3, 3), CONFIG).tolist() == [[1.0] * 3] * 3
    args = (make_label(np.eye(4)), np.random.default_rng(0).random(GRID), (9, 7), CONFIG)
    assert label_map(*args).tobytes() == label_map(*args).tobytes()
