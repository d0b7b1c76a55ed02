from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from benchmarks.reference import cosod as oracle_cosod
from tests.unit.evaluation import oracle_sod
from umscosod.evaluation import compute_measures
from umscosod.evaluation.scores import MeanOfImages

FIGURES = ("mae", "f_adaptive", "e_adaptive", "s", "iou")
CURVES = ("precision_T", "recall_T", "f_T", "e_T")


@st.composite
def pairs(draw, gt_levels=(0, 255)):
    """Small maps of few or many levels, and masks."""
    shape = draw(st.tuples(st.integers(2, 9), st.integers(2, 9)))
    few = st.sampled_from([0, 64, 127, 128, 200, 255])
    pred = draw(arrays.arrays(np.uint8, shape, elements=draw(st.sampled_from([few, st.integers(0, 255)]))))
    return pred, draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from(gt_levels)))


@settings(max_examples=150, deadline=None)
@given(pairs(gt_levels=(0, 127, 128, 129, 255)))
def test_sod_equals_pysodmetrics(pair):
    got, wanted = compute_measures(*pair, "sod"), oracle_sod.measure(*pair)
    for name in CURVES:
        assert getattr(got.curves, name) == pytest.approx(wanted[name], abs=1e-6), name
    for name in FIGURES:
        if not math.isnan(wanted[name]):
            assert getattr(got, name) == pytest.approx(wanted[name], abs=1e-6), name
    assert got.is_s_undefined == math.isnan(wanted["s"])


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_cosod_equals_its_oracle(pair):
    got = compute_measures(*pair)
    assert got.mae == pytest.approx(oracle_cosod.mae(*pair), abs=1e-6)
    assert got.curves.f_T == pytest.approx(oracle_cosod.f_curve(*pair), abs=1e-6)
    assert got.curves.e_T == pytest.approx(oracle_cosod.e_curve(*pair), abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(pairs(gt_levels=(0, 127, 128, 200, 255)), st.sampled_from(["cosod", "sod"]))
def test_turning_map_and_mask_by_half_changes_nothing_but_the_split(pair, definition):
    got = compute_measures(*pair, definition)
    turned = compute_measures(*(np.ascontiguousarray(picture[::-1, ::-1]) for picture in pair), definition)
    assert got.mae == turned.mae
    assert got.iou == turned.iou
    for name in CURVES:
        assert np.array_equal(getattr(got.curves, name), getattr(turned.curves, name)), name


@settings(max_examples=80, deadline=None)
@given(pairs(gt_levels=(0, 127, 128, 200, 255)), st.sampled_from(["cosod", "sod"]))
def test_nothing_is_nan_and_recall_falls_with_the_threshold(pair, definition):
    got = compute_measures(*pair, definition)
    assert all(math.isfinite(getattr(got, name)) for name in FIGURES)
    assert all(np.isfinite(getattr(got.curves, name)).all() for name in CURVES)
    assert (np.diff(got.curves.recall_T) <= 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(pairs(), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_mean_does_not_depend_on_the_order_of_images(some, random):
    rows = [compute_measures(*pair) for pair in some]
    forward, shuffled = MeanOfImages(), MeanOfImages()
    for row in rows:
        forward.add(row)
    random.shuffle(rows)
    for row in rows:
        shuffled.add(row)
    for name in ("n", "mae", "f_max", "f_mean", "e_max", "e_mean", "s", "iou", "undefined_s"):
        assert getattr(forward.scores(), name) == pytest.approx(getattr(shuffled.scores(), name), abs=1e-12), name
