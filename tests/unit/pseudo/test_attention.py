"""Attention maps and sets, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from umscosod.pseudo import select
from umscosod.pseudo.select import attention_threshold, largest_component


@pytest.mark.parametrize(
    ("mass", "expected"),
    [(0.0, [0, 0, 0, 1]), (0.4, [0, 0, 0, 1]), (0.41, [0, 0, 1, 1]), (0.7, [0, 0, 1, 1]), (1.0, [1, 1, 1, 1])],
)
def test_mass_takes_the_fewest_of_the_highest(
    monkeypatch: pytest.MonkeyPatch, mass: float, expected: list[int]
) -> None:
    monkeypatch.setattr(select, "SA_MASS", mass)
    values = np.array([0.1, 0.2, 0.3, 0.4])
    assert (values >= attention_threshold(values)).astype(int).tolist() == expected


@pytest.mark.parametrize("mass", [0.3, 1.0])
def test_mass_takes_tied_patches_together_and_never_a_zero(monkeypatch: pytest.MonkeyPatch, mass: float) -> None:
    monkeypatch.setattr(select, "SA_MASS", mass)
    assert attention_threshold(np.array([0.0, 0.5, 0.5, 0.5])) == 0.5


def test_a_map_of_zeros_is_an_empty_set_and_a_plateau_a_full_one() -> None:
    assert attention_threshold(np.zeros(5)) == np.inf
    assert attention_threshold(np.full(5, 0.5)) == 0.5


def test_largest_component_is_8_connected_and_of_equals_the_first() -> None:
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)
    expected = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(largest_component(mask), expected)
    assert not largest_component(np.zeros((2, 2), dtype=bool)).any()
