from __future__ import annotations

import numpy as np
import pytest

from tests.unit.evaluation.cases import CASES
from umscosod.errors import DataError
from umscosod.evaluation.scores import MeanOfGroups, MeanOfImages
from umscosod.evaluation.scoring import compute_measures


def test_maximum_is_of_the_mean_curve_and_groups_are_kept_apart():
    chosen = [(name, pred, gt) for name, pred, gt in CASES if name.endswith(("on blob", "on corner"))]
    means, rows = MeanOfGroups(), []
    for name, pred, gt in chosen:
        rows.append((name.rsplit(" ", 1)[1], compute_measures(pred, gt)))
        means.add(*rows[-1])
    for group in ("blob", "corner", None):
        part = [row for at, row in rows if group in (at, None)]
        scores = (means.groups[group] if group else means.dataset).scores()
        f_T = np.mean([row.curves.f_T for row in part], axis=0)
        e_T = np.mean([row.curves.e_T for row in part], axis=0)
        assert scores.n == len(part)
        assert (scores.f_max, scores.f_mean) == pytest.approx((f_T.max(), f_T.mean()))
        assert (scores.e_max, scores.e_mean) == pytest.approx((e_T.max(), e_T.mean()))
        assert scores.mae == pytest.approx(np.mean([row.mae for row in part]))
        assert scores.undefined_s == sum(row.is_s_undefined for row in part)
    per_image = np.mean([row.curves.f_T.max() for _, row in rows])
    assert means.dataset.scores().f_max < per_image  # the other order of mean and maximum is another figure
    assert means.groups["corner"].scores().undefined_s == means.groups["corner"].scores().n


def test_no_image_has_no_mean():
    with pytest.raises(DataError, match="no image"):
        MeanOfImages().scores()


def test_two_definitions_do_not_mix():
    picture = np.eye(4, dtype=np.uint8) * 255
    mean = MeanOfImages()
    mean.add(compute_measures(picture, picture, "cosod"))
    with pytest.raises(DataError, match="two definitions"):
        mean.add(compute_measures(picture, picture, "sod"))
