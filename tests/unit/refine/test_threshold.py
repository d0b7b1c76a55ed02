"""Eq. 6 recomputed with plain loops, and the maps that break it."""

import math

import numpy as np
import pytest

from umscosod.config import RefineConfig
from umscosod.errors import DataError
from umscosod.refine.rrbe import adaptive_threshold, binarize, map_confidence, mean_uncertainty

MAPS = [np.random.default_rng(seed).random((5, 7)) ** power for seed, power in enumerate((0.3, 1.0, 3.0))]


def confidence_by_hand(rows):
    pixels = [value for row in rows for value in row]
    mean = sum(pixels) / len(pixels)
    sure = [value for value in pixels if value >= mean]
    return sum(sure) / len(sure)


@pytest.mark.parametrize("map_HW", MAPS)
def test_confidence_is_the_mean_of_the_pixels_that_reach_the_mean(map_HW):
    assert map_confidence(map_HW) == pytest.approx(confidence_by_hand(map_HW.tolist()), abs=1e-12)


def test_a_pixel_equal_to_the_mean_counts():
    # mean 0.5: the middle pixel equals it, so conf = (0.75 + 0.5) / 2
    assert map_confidence(np.array([[0.75, 0.5, 0.25]])) == 0.625


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1 / 3, 0.7, 1.0])
def test_a_constant_map_is_as_confident_as_its_constant(value, dtype):
    map_HW = np.full((13, 17), value, dtype=dtype)
    assert map_confidence(map_HW) == pytest.approx(float(dtype(value)), abs=1e-12)


def test_a_single_pixel_map():
    assert map_confidence(np.array([[0.25]])) == 0.25


def test_eq_6_by_hand():
    config = RefineConfig(th0=0.4, alpha_c=0.7)
    lacks = [1 - confidence_by_hand(map_HW.tolist()) for map_HW in MAPS]
    b_bar = sum(lacks) / len(lacks)
    assert mean_uncertainty(iter(MAPS)) == pytest.approx(b_bar, abs=1e-12)
    for map_HW, lack in zip(MAPS, lacks, strict=True):
        expected = 0.4 + 0.7 * (lack - b_bar)
        assert 0.05 < expected < 0.95
        assert adaptive_threshold(map_HW, b_bar, config) == pytest.approx(expected, abs=1e-12)


def test_a_map_of_usual_confidence_gets_th0():
    assert adaptive_threshold(MAPS[0], mean_uncertainty(MAPS[:1]), RefineConfig(th0=0.45)) == 0.45


def test_clamps():
    unsure, sure = np.zeros((3, 3)), np.ones((3, 3))
    assert adaptive_threshold(unsure, 0.0, RefineConfig(alpha_c=1.0)) == 0.95  # 0.5 + 1
    assert adaptive_threshold(sure, 1.0, RefineConfig(alpha_c=1.0)) == 0.05  # 0.5 - 1
    unclamped = RefineConfig(alpha_c=1.0, th_clamp=(0.0, 2.0))
    assert adaptive_threshold(unsure, 0.0, unclamped) == 1.5


def test_adaptive_off_is_th0():
    assert adaptive_threshold(np.zeros((3, 3)), 0.0, RefineConfig(adaptive=False, th0=0.3)) == 0.3


def test_the_mean_does_not_depend_on_order():
    maps = [np.random.default_rng(seed).random((4, 4)) for seed in range(30)]
    assert mean_uncertainty(maps) == mean_uncertainty(maps[::-1])


def test_without_maps_nothing_is_uncertain():
    assert mean_uncertainty([]) == 0.0


def test_binarize_keeps_a_pixel_at_the_threshold():
    assert binarize(np.array([[0.5, 0.49]]), 0.5, RefineConfig()).tolist() == [[True, False]]


def test_binarize_compares_in_float64():
    # float32(0.7) = 0.69999998..., which lies below 0.7: rounding the threshold down would let it pass
    assert not binarize(np.array([[0.7, 1.0]], dtype=np.float32), 0.7, RefineConfig())[0, 0]


def test_empty_rule():
    config = RefineConfig()
    map_HW = np.array([[0.400, 0.381, 0.379, 0.0]])  # 0.95 * 0.4 = 0.38
    assert binarize(map_HW, 0.9, config).tolist() == [[True, True, False, False]]
    assert not binarize(map_HW * 0.25, 0.9, config).any()  # max = 0.1 does not exceed the floor
    assert not binarize(np.zeros((2, 2)), 0.9, config).any()
    assert not binarize(map_HW, 0.9, RefineConfig(empty_floor=1.0)).any()  # the rule off


def test_the_empty_rule_leaves_other_maps_alone():
    assert binarize(np.array([[0.91, 0.9, 0.89]]), 0.91, RefineConfig()).tolist() == [[True, False, False]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad):
    map_HW = np.full((2, 2), 0.5)
    map_HW[1, 0] = bad
    with pytest.raises(DataError, match="1 of 4 values"):
        map_confidence(map_HW)
    with pytest.raises(DataError, match="NaN or infinite"):
        binarize(map_HW, 0.5, RefineConfig())


@pytest.mark.parametrize("map_HW", [np.full((2, 2), 200.0), np.full((2, 2), -0.1)])
def test_maps_outside_zero_to_one_are_refused(map_HW):
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        map_confidence(map_HW)


@pytest.mark.parametrize("shape", [(0, 3), (4,), (2, 2, 1)])
def test_shapes_are_checked(shape):
    with pytest.raises(DataError, match="2-D"):
        map_confidence(np.zeros(shape))
