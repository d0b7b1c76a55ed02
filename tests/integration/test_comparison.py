"""Two evaluations side by side, down to the images where one beats the other."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

fo = pytest.importorskip("fiftyone")

from tests.integration.panel_session import PanelSession  # noqa: E402
from umscosod.errors import ConfigError, DataError  # noqa: E402
from umscosod.evaluation.scoring import MEASURES  # noqa: E402
from umscosod.integrations.fiftyone.evaluation import comparison  # noqa: E402
from umscosod.integrations.fiftyone.evaluation.comparison import (  # noqa: E402
    comparable_evaluations,
    compare_dataset,
    find_evaluation,
    gain_of,
)
from umscosod.integrations.fiftyone.evaluation.dataset import evaluate_dataset  # noqa: E402

pytestmark = pytest.mark.mongod
SHIFTS = {"good": (1, 2, 3, 4, 4, 3, 2, 1), "bad": (8, 1, 8, 4, 4, 8, 9, 12)}
"""Columns each prediction is moved by; equal in images 3 and 4, ``bad`` is better in image 1 only."""


def add_shifted(dataset: Any, field: str, root: Path) -> None:
    labels = []
    for sample, shift in zip(dataset, SHIFTS[field], strict=True):
        path = root / field / f"{sample.id}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(np.asarray(Image.open(sample.ground_truth.mask_path)), shift, axis=1)).save(path)
        labels.append(fo.Segmentation(mask_path=str(path)))
    dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
    dataset.set_values(field, labels)


@pytest.fixture
def evaluated(toy_dataset: Any, tmp_path: Path) -> Any:
    for field in SHIFTS:
        add_shifted(toy_dataset, field, tmp_path)
        evaluate_dataset(toy_dataset, field, "ground_truth", group_field="cls")
    return toy_dataset


def test_rows_groups_and_images(evaluated: Any) -> None:
    found = compare_dataset(evaluated, "eval_good", "eval_bad")
    reports = [evaluated.load_evaluation_results(f"eval_{field}") for field in SHIFTS]
    assert {row.measure for row in found.rows} == set(MEASURES)
    for row in found.rows:
        a, b = (getattr(report.dataset_scores, row.measure) for report in reports)
        assert (row.a, row.b) == (a, b)
        assert row.gain == pytest.approx(b - a if row.measure == "mae" else a - b)
        assert row.gain > 0
    assert [row.group for row in found.groups] == ["square-1", "disk-0"], "the group where A gains most comes first"
    for group in found.groups:
        a, b = (report.group_scores[group.group].iou for report in reports)
        assert (group.a, group.b, group.n_a, group.n_b) == (a, b, 4, 4)
        assert group.gain == pytest.approx(a - b)
    assert found.n == 8
    assert (found.n_a_better, found.n_b_better, found.n_equal) == (5, 1, 2)
    assert found.is_success
    assert "of 8 images A is better in 5, B in 1, 2 are equal" in found.summary
    np.testing.assert_array_equal(found.values_a_N, evaluated.values("eval_good_iou"))
    np.testing.assert_array_equal(found.curves_b.f_T, reports[1].dataset_curves.f_T)
    assert found.table()[0] == {
        "measure": "S-measure",
        "a": f"{reports[0].dataset_scores.s:.4f}",
        "b": f"{reports[1].dataset_scores.s:.4f}",
        "gain": f"{reports[0].dataset_scores.s - reports[1].dataset_scores.s:+.4f}",
    }


def test_an_evaluation_of_an_earlier_version_is_read_from_its_fields(evaluated: Any) -> None:
    for field in SHIFTS:
        evaluate_dataset(evaluated, field, "ground_truth", eval_key=f"old_{field}", fields=MEASURES)
        results = evaluated.load_evaluation_results(f"old_{field}")
        results.images.clear()
        results.save()
    new, old = (compare_dataset(evaluated, f"{kind}_good", f"{kind}_bad", measure="mae") for kind in ("eval", "old"))
    np.testing.assert_array_equal(new.values_a_N, old.values_a_N)
    np.testing.assert_array_equal(new.gains_N, old.gains_N)


def test_masks_replaced_since_are_said(evaluated: Any) -> None:
    path = Path(evaluated.first()["good"].mask_path)
    with Image.open(path) as opened:
        picture = opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture.save(path)
    found = compare_dataset(evaluated, "eval_good", "eval_bad")
    assert found.notes == ("eval_good was made before masks of good were replaced; evaluate again",)


@pytest.mark.parametrize("measure", ["iou", "mae"])
def test_images_by_winner_largest_difference_first(evaluated: Any, measure: Any) -> None:
    ids = evaluated.values("id")
    found = compare_dataset(evaluated, "eval_good", "eval_bad", measure=measure)
    a_wins = found.ids_where("a")
    assert set(a_wins) == {ids[index] for index in (0, 2, 5, 6, 7)}
    gains = dict(zip(found.sample_ids, found.gains_N, strict=True))
    assert [gains[id_] for id_ in a_wins] == sorted((gains[id_] for id_ in a_wins), reverse=True)
    assert found.ids_where("b") == [ids[1]]
    assert found.ids_where("equal") == [ids[3], ids[4]]
    low, high = gains[ids[1]], gains[a_wins[-1]]
    assert found.ids_between(low, high) == [ids[3], ids[4], ids[1]]
    swapped = compare_dataset(evaluated, "eval_bad", "eval_good", measure=measure)
    assert swapped.ids_where("b") == a_wins
    np.testing.assert_allclose(swapped.gains_N, -found.gains_N)
    with pytest.raises(ConfigError, match="'both'"):
        found.ids_where("both")  # type: ignore[arg-type]


def test_a_view_narrows_the_images_only(evaluated: Any) -> None:
    whole = compare_dataset(evaluated, "eval_good", "eval_bad")
    part = compare_dataset(evaluated, "eval_good", "eval_bad", view=evaluated.limit(2))
    assert (part.n, part.rows) == (2, whole.rows)
    assert "over all images evaluated" in part.notes[0]
    grouped = compare_dataset(evaluated.group_by("cls"), "eval_good", "eval_bad", view=evaluated.group_by("cls"))
    assert grouped.n == 8


def test_unlike_evaluations_are_told_apart(evaluated: Any) -> None:
    evaluate_dataset(evaluated.limit(4), "bad", "ground_truth", eval_key="part", group_field="cls")
    found = compare_dataset(evaluated, "eval_good", "part")
    assert found.n == 4
    assert not found.is_success
    assert "A has 8 images, B 4, both 4" in found.notes[0]
    assert [(row.group, row.n_b, row.gain is None) for row in found.groups] == [
        ("disk-0", 4, False),
        ("square-1", 0, True),
    ]
    evaluated.clone_sample_field("ground_truth", "truth_2")
    evaluate_dataset(evaluated, "bad", "truth_2", eval_key="other_truth")
    assert "'truth_2'" in compare_dataset(evaluated, "eval_good", "other_truth").notes[0]


def test_what_cannot_be_compared_is_refused(evaluated: Any) -> None:
    evaluate_dataset(evaluated, "bad", "ground_truth", eval_key="sod", definition="sod")
    targets = {0: "background", 255: "co-salient"}
    evaluated.evaluate_segmentations("bad", "ground_truth", eval_key="plain", mask_targets=targets)
    cases = [("eval_good", "sod", "definition"), ("eval_good", "plain", "'simple'"), ("eval_good", "no", "no eval")]
    for a, b, words in [*cases, ("sod", "sod", "two different")]:
        with pytest.raises(DataError, match=words):
            compare_dataset(evaluated, a, b)
    with pytest.raises(ConfigError, match="'dice'"):
        compare_dataset(evaluated, "eval_good", "eval_bad", measure="dice")  # type: ignore[arg-type]
    assert comparable_evaluations(evaluated) == (["eval_good", "eval_bad", "sod"], ["plain"])


def test_an_evaluation_made_again_is_read_again(evaluated: Any) -> None:
    before = compare_dataset(evaluated, "eval_good", "eval_bad")
    evaluate_dataset(evaluated, "good", "ground_truth", overwrite=True, eval_key="eval_bad_2")
    evaluated.delete_evaluation("eval_bad")
    evaluated.rename_evaluation("eval_bad_2", "eval_bad")
    after = compare_dataset(evaluated, "eval_good", "eval_bad")
    assert before.n_a_better == 5
    assert (after.n_equal, after.rows[0].gain) == (8, 0.0)


def test_a_gain_is_always_how_much_better_a_is() -> None:
    assert [gain_of(measure, 0.75, 0.5) for measure in MEASURES] == [-0.25] + [0.25] * 8
    assert MEASURES[0] == "mae"


def test_thousands_of_images_at_once(evaluated: Any) -> None:
    """3,300 images: only a few numbers an image are read, whatever else a sample holds."""
    import fiftyone.core.odm as odm

    numbers, long = np.random.default_rng(0).uniform(size=(3300, 2)), "x" * 2000
    ids = evaluated.add_samples([fo.Sample(filepath=f"/{i}.jpg", note=long) for i in range(len(numbers))])
    for column, field in enumerate(SHIFTS):
        results = evaluated.load_evaluation_results(f"eval_{field}")
        results.images["sample_id"] += ids
        for measure in MEASURES:
            results.images[measure] += numbers[:, column].tolist()
        results.save()
    comparison._kept.clear()
    compare_dataset(evaluated, "eval_good", "eval_bad")  # reads the results; they are kept
    database = odm.get_db_conn()
    profile = database["system.profile"]
    database.command("profile", 2)  # the database records every query and the length of its answer
    try:
        found = compare_dataset(evaluated, "eval_good", "eval_bad")
        chosen = found.ids_where("a")
        answers = [entry.get("responseLength", 0) for entry in profile.find()]
    finally:
        database.command("profile", 0)
        profile.drop()
    assert 3300 * 20 < sum(answers) < 3300 * 200
    assert len(answers) < 100
    assert found.n == 3308
    assert len(chosen) == int((numbers[:, 0] > numbers[:, 1]).sum()) + 5


def test_an_evaluation_is_found_by_the_name_of_its_run(evaluated: Any) -> None:
    assert find_evaluation(evaluated, "eval_good") == "eval_good"
    assert find_evaluation(evaluated, "good") == "eval_good"
    evaluate_dataset(evaluated, "good", "ground_truth", eval_key="again")
    assert find_evaluation(evaluated, "good") == "again", "the newest"
    with pytest.raises(DataError, match="evaluations here: eval_good, eval_bad, again"):
        find_evaluation(evaluated, "nothing")


def test_bars_hold_what_a_click_shows(evaluated: Any) -> None:
    found = compare_dataset(evaluated, "eval_good", "eval_bad")
    edges, counts = found.histogram(5)
    assert len(edges) == 6
    assert counts.sum() == found.n
    assert [len(found.ids_between(low, high)) for low, high in itertools.pairwise(edges)] == counts.tolist()
    same = compare_dataset(evaluated, "eval_good", "eval_bad", view=evaluated.skip(3).limit(2))
    assert same.histogram(3)[1].tolist() == [0, 2, 0], "no difference is in the middle"


def test_the_panel_shows_images_of_the_users_view_and_gives_it_back(evaluated: Any) -> None:
    session = PanelSession(evaluated, "compare_models")
    mine = evaluated.skip(1)
    session.send("on_load", view=mine)
    ids = evaluated.values("id")

    def shown() -> list[str]:
        return list(fo.DatasetView._build(evaluated, dict(session.asked)["set_view"]["view"]).values("id"))

    session.send("show_a")
    assert set(shown()) == {ids[index] for index in (2, 5, 6, 7)}, "image 0 is not in the user's view"
    session.send("show_b")
    assert shown() == [ids[1]]
    bars = []
    for place in range(31):
        session.send("show_bar", idx=place)
        bars += shown() if "set_view" in dict(session.asked) else []
    assert set(bars) == set(ids[1:])
    for junk in ({}, {"idx": None}, {"idx": "3"}, {"idx": 999}):
        assert "set_view" not in session.send("show_bar", **junk)
    session.send("show_b")
    own = fo.DatasetView._build(evaluated, dict(session.asked)["set_view"]["view"])
    for event in ("show_base", "on_unload"):
        session.send(event, view=own)
        assert shown() == ids[1:]


def test_the_panel_draws_just_what_is_ticked(evaluated: Any) -> None:
    session = PanelSession(evaluated, "compare_models")
    session.send("on_load")
    session.state["draw"] = {"b": True}
    assert session.send("draw")["set_active_fields"]["fields"] == ["cls", "other", "cosal", "bad"]
    session.state["draw"] = {"a": True, "truth": True}
    assert session.send("draw")["set_active_fields"]["fields"] == ["cls", "other", "cosal", "good", "ground_truth"]


def test_figures_lie_in_a_collapsed_group(evaluated: Any) -> None:
    group = next(group for group in evaluated.app_config.sidebar_groups if group.name == "eval_good")
    assert not group.expanded
    assert "eval_good_iou" in group.paths
    evaluated.delete_evaluation("eval_good")
    assert "eval_good" not in [group.name for group in evaluated.app_config.sidebar_groups]
