"""The probabilities DenseCRF starts from, recomputed by hand with logarithms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from umscosod.config import CrfConfig, RefineConfig
from umscosod.errors import DataError
from umscosod.refine.crf import build_unary, foreground_probability
from umscosod.refine.rrbe import binarize, effective_threshold

SOFT = CrfConfig(confidence=0.9)
HARD = CrfConfig(unary="hard", confidence=0.9)


def by_hand(value: float, threshold: float) -> float:
    shifted = math.log(value / (1 - value)) - math.log(threshold / (1 - threshold))
    return 1 / (1 + math.exp(-shifted))


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_soft_by_hand(threshold: float, dtype: type) -> None:
    map_HW = np.array([[0.01, 0.2, 0.3], [0.55, 0.8, 0.99]], dtype)
    got = foreground_probability(map_HW, map_HW >= threshold, threshold, (2, 3), SOFT)
    expected = [[min(max(by_hand(float(value), threshold), 0.1), 0.9) for value in row] for row in map_HW]
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 1e-9, 0.05, 1 / 3, 0.5, 0.95, 1.0])
def test_the_threshold_itself_is_even(threshold: float) -> None:
    map_HW = np.array([[threshold, 0.0, 1.0]])
    got = foreground_probability(map_HW, map_HW >= threshold, threshold, (1, 3), SOFT)
    assert got[0, 0] == 0.5
    assert got[0, 1] == (0.5 if threshold == 0.0 else pytest.approx(0.1))
    assert got[0, 2] == (0.5 if threshold == 1.0 else pytest.approx(0.9))


@pytest.mark.parametrize("threshold", [0.05, 0.37, 0.95])
def test_rises_with_the_map_and_crosses_a_half_at_the_threshold(threshold: float) -> None:
    map_HW = np.sort(np.append(np.random.default_rng(0).random(500), [0.0, threshold, 1.0]))[None]
    mask_HW = map_HW >= threshold
    got = foreground_probability(map_HW, mask_HW, threshold, (1, 503), CrfConfig())
    assert (np.diff(got) >= 0).all()
    assert np.ptp(got) == pytest.approx(0.96)  # from 1 - c to c
    np.testing.assert_array_equal(got >= 0.5, mask_HW)


def test_dropped_regions_are_background() -> None:
    map_HW = np.array([[0.9, 0.6, 0.2, 0.5, 0.99]])
    mask_HW = np.array([[True, True, False, False, False]])  # the last two pixels were a region
    got = foreground_probability(map_HW, mask_HW, 0.5, (1, 5), SOFT)
    np.testing.assert_allclose(got, [[0.9, 0.6, 0.2, 0.1, 0.1]])


def test_where_nothing_reaches_the_threshold_the_kept_peak_is_foreground() -> None:
    map_HW = np.array([[0.40, 0.39, 0.10]])
    mask_HW = binarize(map_HW, 0.5, RefineConfig())
    level = effective_threshold(map_HW, mask_HW, 0.5)
    assert level == 0.39
    got = foreground_probability(map_HW, mask_HW, level, (1, 3), SOFT)
    np.testing.assert_allclose(got, [[by_hand(0.40, 0.39), 0.5, by_hand(0.10, 0.39)]])


def test_the_threshold_stands_where_it_is_reached_or_nothing_is_kept() -> None:
    map_HW = np.array([[0.9, 0.7, 0.1]])
    assert effective_threshold(map_HW, binarize(map_HW, 0.6, RefineConfig()), 0.6) == 0.6
    faint_HW = map_HW * 0.1
    assert effective_threshold(faint_HW, binarize(faint_HW, 0.6, RefineConfig()), 0.6) == 0.6


def test_hard_by_hand() -> None:
    map_HW = np.array([[0.9, 0.6, 0.2]])
    mask_HW = np.array([[True, False, False]])
    got = foreground_probability(map_HW, mask_HW, 0.5, (1, 3), HARD)
    np.testing.assert_allclose(got, [[0.9, 0.1, 0.1]])


def test_another_size() -> None:
    map_HW = np.array([[0.2, 0.8]])
    soft = foreground_probability(map_HW, map_HW >= 0.5, 0.5, (1, 4), SOFT)
    np.testing.assert_allclose(soft, [[0.2, 0.35, 0.65, 0.8]])
    hard = foreground_probability(map_HW, map_HW >= 0.5, 0.5, (1, 4), HARD)
    np.testing.assert_allclose(hard, [[0.1, 0.1, 0.9, 0.9]])  # still a labelling


def test_map_and_mask_of_two_sizes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(2, 2\) and \(2, 3\)"):
        foreground_probability(np.zeros((2, 2)), np.zeros((2, 3), dtype=bool), 0.5, (2, 2), SOFT)


def test_energies_by_hand() -> None:
    energy_LP = build_unary(np.array([[0.995], [0.25]]))
    assert energy_LP.dtype == np.float32
    assert energy_LP.flags.c_contiguous
    np.testing.assert_allclose(energy_LP, -np.log([[0.005, 0.75], [0.995, 0.25]]), rtol=1e-6)
