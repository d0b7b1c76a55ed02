"""Attention maps and sets, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from umscosod.pseudo.select import attention_threshold, binarize_attention, largest_component


@pytest.mark.parametrize(
    ("mass", "expected"),
    [(0.0, [0, 0, 0, 1]), (0.4, [0, 0, 0, 1]), (0.41, [0, 0, 1, 1]), (0.7, [0, 0, 1, 1]), (1.0, [1, 1, 1, 1])],
)
def test_mass_takes_the_fewest_of_the_highest(mass: float, expected: list[int]) -> None:
    assert binarize_attention(np.array([0.1, 0.2, 0.3, 0.4]), "mass", mass).astype(int).tolist() == expected


def test_mass_takes_tied_patches_together_and_never_a_zero() -> None:
    tied = np.array([0.0, 0.5, 0.5, 0.5])
    assert binarize_attention(tied, "mass", 0.3).tolist() == [False, True, True, True]
    assert binarize_attention(tied, "mass", 1.0).tolist() == [False, True, True, True]


def test_mean_and_otsu() -> None:
    values = np.array([0.0, 0.05, 0.1, 0.9, 1.0])
    assert binarize_attention(values, "mean", 0.6).astype(int).tolist() == [0, 0, 0, 1, 1]
    assert binarize_attention(values, "otsu", 0.6).astype(int).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("mode", ["mass", "otsu", "mean"])
def test_a_map_of_zeros_is_an_empty_set_and_a_plateau_a_full_one(mode: str) -> None:
    assert attention_threshold(np.zeros(5), mode, 0.6) == np.inf  # type: ignore[arg-type]
    assert not binarize_attention(np.zeros(5), mode, 0.6).any()  # type: ignore[arg-type]
    assert binarize_attention(np.full(5, 0.5), mode, 0.6).all()  # type: ignore[arg-type]


def test_largest_component_is_8_connected_and_of_equals_the_first() -> None:
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)
    expected = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(largest_component(mask), expected)
    assert not largest_component(np.zeros((2, 2), dtype=bool)).any()
