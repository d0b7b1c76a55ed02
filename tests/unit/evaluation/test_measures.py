from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.reference import cosod as oracle_cosod
from tests.unit.evaluation import oracle_sod
from tests.unit.evaluation.cases import CASES, one_pixel
from umscosod.errors import ConfigError, DataError
from umscosod.evaluation import compute_measures

TOLERANCE = 1e-6
IDS = [name for name, _, _ in CASES]
PAIRS = [(pred, gt) for _, pred, gt in CASES]
# a float32 mean of equal values is not that value; the tool's E is then noise of up to 1e-4
NOISY = [name.endswith("on constant 128") for name in IDS]


def far(got, wanted):
    return float(np.max(np.abs(np.asarray(got) - np.asarray(wanted))))


@pytest.mark.parametrize(("pred", "gt"), PAIRS, ids=IDS)
def test_sod_equals_pysodmetrics(pred, gt):
    got, wanted = compute_measures(pred, gt, "sod"), oracle_sod.measure(pred, gt)
    for name in ("mae", "f_adaptive", "e_adaptive", "iou"):
        assert far(getattr(got, name), wanted[name]) < TOLERANCE, name
    for name in ("precision_T", "recall_T", "f_T", "e_T"):
        assert far(getattr(got.curves, name), wanted[name]) < TOLERANCE, name
    assert got.is_s_undefined == math.isnan(wanted["s"])
    if not got.is_s_undefined:
        assert far(got.s, wanted["s"]) < TOLERANCE


@pytest.mark.parametrize(("pred", "gt", "noisy"), [(*pair, n) for pair, n in zip(PAIRS, NOISY, strict=True)], ids=IDS)
def test_cosod_equals_its_pixel_by_pixel_oracle(pred, gt, noisy):
    got = compute_measures(pred, gt, "cosod")
    assert far(got.mae, oracle_cosod.mae(pred, gt)) < TOLERANCE
    assert far(got.curves.f_T, oracle_cosod.f_curve(pred, gt)) < TOLERANCE
    assert far(got.curves.e_T, oracle_cosod.e_curve(pred, gt)) < (2e-4 if noisy else TOLERANCE)
    s = oracle_cosod.s_measure(pred, gt)
    assert got.is_s_undefined == math.isnan(s)
    if not got.is_s_undefined:
        assert far(got.s, s) < TOLERANCE


@pytest.mark.parametrize("name", ["f_adaptive", "e_adaptive", "iou"])
def test_adaptive_values_and_iou_are_pysodmetrics_under_cosod_too(name):
    for case, pred, gt in CASES:
        got, wanted = compute_measures(pred, gt, "cosod"), compute_measures(pred, gt, "sod")
        assert getattr(got, name) == getattr(wanted, name), case


@pytest.mark.parametrize("definition", ["cosod", "sod"])
def test_every_case_gives_finite_numbers_in_their_range(definition):
    for case, pred, gt in CASES:
        got = compute_measures(pred, gt, definition)
        top = gt.size / (gt.size - 1) + 1e-6
        for name in ("mae", "f_adaptive", "s", "iou"):
            assert 0.0 <= getattr(got, name) <= 1.0 + 1e-12, (case, name)
        assert 0.0 <= got.e_adaptive <= top, case
        assert np.isfinite(got.curves.e_T).all(), case
        assert got.curves.e_T.min() >= 0.0, case
        assert got.curves.e_T.max() <= top, case


def test_hand_computed_measures():
    gt = np.zeros((4, 4), np.uint8)
    gt[:2] = 255
    pred = np.zeros((4, 4), np.uint8)
    pred[0] = 255  # half of the object, nothing else
    for definition in ("cosod", "sod"):
        got = compute_measures(pred, gt, definition)
        assert got.mae == pytest.approx(4 / 16)
        assert got.iou == pytest.approx(1 / 2)
        # P = 1, R = 1/2 at every threshold above 0
        assert got.curves.f_T[1:] == pytest.approx(1.3 * 0.5 / (0.3 + 0.5))
        # at 0 everything is foreground: P = 1/2, R = 1
        assert got.curves.f_T[0] == pytest.approx(1.3 * 0.5 / (0.3 * 0.5 + 1))
        # threshold min(2 * 1/4, 1) = 1/2: the same mask
        assert got.f_adaptive == pytest.approx(0.8125)
        # a = 3/4 or -1/4, b = +-1/2: x = 12/13 (hit), -4/5 (miss), 4/5 (rest)
        hit, miss, rest = ((x + 1) ** 2 / 4 for x in (12 / 13, -4 / 5, 4 / 5))
        assert got.e_adaptive == pytest.approx((4 * hit + 4 * miss + 8 * rest) / 15)


def test_a_perfect_map_scores_one_and_a_full_ground_truth_a_quarter_of_e_under_cosod():
    gt = np.zeros((10, 10), np.uint8)
    gt[2:7, 3:8] = 255
    got = compute_measures(gt, gt)
    assert (got.mae, got.s, got.iou) == (0.0, pytest.approx(1.0), 1.0)
    full = np.full((10, 10), 255, np.uint8)
    assert compute_measures(full, full, "cosod").curves.e_T.max() == pytest.approx(0.25 * 100 / 99)
    assert compute_measures(full, full, "sod").curves.e_T.max() == pytest.approx(100 / 99)


@pytest.mark.parametrize("level", [0, 77, 128, 255])
def test_e_of_cosod_is_a_quarter_on_any_ground_truth_of_one_value(level):
    rng = np.random.default_rng(7)
    pred, gt = rng.integers(0, 256, (37, 46), dtype=np.uint8), np.full((37, 46), level, np.uint8)
    curve = compute_measures(pred, gt, "cosod").curves.e_T
    assert curve == pytest.approx(0.25 * gt.size / (gt.size - 1), abs=1e-12)


def test_mae_of_cosod_is_on_the_raw_map_and_of_sod_on_the_stretched_one():
    gt = np.array([[0, 255]] * 2, np.uint8)
    pred = np.array([[51, 102]] * 2, np.uint8)
    assert compute_measures(pred, gt, "cosod").mae == pytest.approx((0.2 + 0.6) / 2)
    assert compute_measures(pred, gt, "sod").mae == 0.0


def test_the_nan_traps_of_each_tool_are_counted_and_scored():
    shape = (9, 11)
    single, first, last = one_pixel(shape, 4, 5), one_pixel(shape, 0, 0), one_pixel(shape, 8, 10)
    rng = np.random.default_rng(1)
    pred = rng.integers(0, 256, shape, dtype=np.uint8)
    assert compute_measures(pred, single, "cosod").is_s_undefined
    assert not compute_measures(pred, single, "sod").is_s_undefined
    assert compute_measures(pred, first, "cosod").is_s_undefined
    assert not compute_measures(pred, first, "sod").is_s_undefined
    assert compute_measures(pred, last, "sod").is_s_undefined
    # by hand: a map equal to its mask of one pixel at the corner. Object and background score 1; three quadrants
    # are empty, and the fourth is the whole picture
    got = compute_measures(last, last, "sod")
    assert got.s == pytest.approx(1.0)


def test_a_picture_of_one_pixel_follows_the_tools():
    for level, s_of_cosod in ((0, 1.0), (255, 0.0)):  # cosod stretches any constant map to 0
        picture = np.full((1, 1), level, np.uint8)
        got, wanted = compute_measures(picture, picture, "sod"), oracle_sod.measure(picture, picture)
        assert (got.mae, got.s) == (0.0, 1.0)
        assert got.curves.e_T == pytest.approx(wanted["e_T"])  # divided by 2e-16
        got = compute_measures(picture, picture, "cosod")
        assert (got.mae, got.s) == (0.0, s_of_cosod)
        assert got.curves.e_T == pytest.approx(oracle_cosod.e_curve(picture, picture))


def test_ties_at_the_adaptive_threshold_follow_the_tool():
    # levels 0, 51 and 255 so mixed that twice the mean is at, just below or just above the middle level
    rng = np.random.default_rng(5)
    tied = 0
    for middle in range(1, 200):
        pred = np.zeros(400, np.uint8)
        # one pixel of 255 and k of v: 2 (255 + k v) / 400 = v, for k and v whole
        if (510 % (400 - 2 * middle)) == 0 and 0 < 510 // (400 - 2 * middle) < 255:
            tied += 1
            pred[: middle + 1] = 510 // (400 - 2 * middle)
            pred[0] = 255
            rng.shuffle(pred)
            pred = pred.reshape(20, 20)
            gt = (rng.random((20, 20)) < 0.4).astype(np.uint8) * 255
            got, wanted = compute_measures(pred, gt, "sod"), oracle_sod.measure(pred, gt)
            assert got.f_adaptive == pytest.approx(wanted["f_adaptive"], abs=TOLERANCE)
            assert got.e_adaptive == pytest.approx(wanted["e_adaptive"], abs=TOLERANCE)
    assert tied >= 3


@pytest.mark.parametrize(
    ("pred", "gt"),
    [
        (np.zeros((3, 3), np.uint8), np.zeros((3, 4), np.uint8)),
        (np.zeros((3, 3), np.float32), np.zeros((3, 3), np.uint8)),
        (np.zeros((3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8)),
        (np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.uint8)),
    ],
)
def test_what_is_not_a_pair_of_grey_pictures_is_refused(pred, gt):
    with pytest.raises(DataError, match=r"\(|size"):
        compute_measures(pred, gt)


def test_an_unknown_definition_is_refused_with_the_known_ones_named():
    picture = np.zeros((2, 2), np.uint8)
    with pytest.raises(ConfigError, match=r"'pysod'.*cosod, sod"):
        compute_measures(picture, picture, "pysod")
