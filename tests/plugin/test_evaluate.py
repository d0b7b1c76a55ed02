"""Operators `evaluate` and `compare`, and the metric operators, without a database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402
from fiftyone.operators import types  # noqa: E402

import umscosod.integrations.fiftyone as integration  # noqa: E402
from tests.plugin.fake_evaluations import PLUGIN, make_context, put_two_evaluations  # noqa: E402
from umscosod.errors import DataError  # noqa: E402
from umscosod.evaluation.scoring import MEASURES  # noqa: E402
from umscosod.integrations.fiftyone.evaluation import dataset as evaluation  # noqa: E402


@pytest.fixture
def two_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    put_two_evaluations(monkeypatch)


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Any:
    # The real one asks the App's session for views and selections.
    monkeypatch.setattr(types.Object, "view_target", lambda self, ctx, **options: None)
    return foo.get_operator(f"{PLUGIN}/evaluate")


@pytest.fixture
def compare() -> Any:
    return foo.get_operator(f"{PLUGIN}/compare")


def form_of(operator: Any, ctx: Any) -> dict[str, Any]:
    return operator.resolve_input(ctx).type.properties


def test_evaluate_offers_masks_and_instances(evaluate: Any) -> None:
    form = form_of(evaluate, make_context())
    assert form["pred_field"].default == "cosal"  # the one that a run wrote
    assert form["gt_field"].default == "ground_truth"
    assert [choice.value for choice in form["gt_field"].view.choices] == ["cosal", "ground_truth", "instances"]
    assert "definition" not in form
    shown = {"advanced": True}
    assert form_of(evaluate, make_context(shown))["definition"].type.values == ["cosod", "sod"]
    assert "use_maps" in form_of(evaluate, make_context({"pred_field": "cosal", **shown}))
    assert "use_maps" not in form_of(evaluate, make_context({"pred_field": "ground_truth", **shown}))


def test_evaluate_replaces_only_when_ticked(evaluate: Any) -> None:
    params = {"pred_field": "cosal"}
    assert "overwrite" not in form_of(evaluate, make_context(params))
    assert form_of(evaluate, make_context(params, ("eval_cosal",)))["key_problem"].invalid
    ticked = form_of(evaluate, make_context({**params, "overwrite": True}, ("eval_cosal",)))
    assert "key_problem" not in ticked
    other = form_of(evaluate, make_context({**params, "eval_key": "other"}, ("eval_cosal",)))
    assert "overwrite" not in other


def test_evaluate_passes_the_form_on(evaluate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def evaluate_dataset(view: Any, *, progress: Any, **options: Any) -> Any:
        seen.update(options, view=view)
        return SimpleNamespace(summary="eval_cosal: fine", is_success=True)

    monkeypatch.setattr(integration, "evaluate_dataset", evaluate_dataset, raising=False)
    ctx = make_context({"pred_field": "cosal", "gt_field": "instances", "group_field": "(folder)", "use_maps": True})
    list(evaluate.execute(ctx))
    assert seen == {
        "view": "the chosen view",
        "pred_field": "cosal",
        "gt_field": "instances",
        "eval_key": None,
        "group_field": None,
        "definition": "cosod",
        "mask_value": None,
        "use_maps": True,
        "fields": ("iou", "s"),
        "overwrite": False,
    }
    params = {"pred_field": "cosal", "gt_field": "instances", "all_measures": True, "mask_value": "1,2"}
    list(evaluate.execute(make_context(params)))
    assert seen["mask_value"] == "1,2"
    assert set(seen["fields"]) == set(MEASURES)
    assert "eval_cosal_iou" in str(evaluate.resolve_output(ctx).to_json())


@pytest.mark.parametrize("evaluations", [(), ("a",), ("a", "plain")])
def test_compare_needs_two(compare: Any, two_evaluations: None, evaluations: tuple[str, ...]) -> None:
    form = form_of(compare, make_context({}, evaluations))
    assert form["too_few"].invalid
    assert "run 'evaluate' first" in form["too_few"].view.label


def test_compare_takes_the_two_newest(compare: Any, two_evaluations: None) -> None:
    form = form_of(compare, make_context({}, ("c", "a", "b", "plain")))
    assert (form["a"].default, form["b"].default) == ("a", "b")
    assert form["a"].type.values == ["c", "a", "b"]
    assert form_of(compare, make_context({"a": "b", "b": "b"}, ("a", "b")))["same"].invalid


def test_compare_opens_the_panel_and_returns_the_table(compare: Any, two_evaluations: None) -> None:
    ctx = make_context({"a": "a", "b": "b"}, ("a", "b"))
    result = compare.execute(ctx)
    assert result["summary"].startswith("IoU (cosod): A a 0.750, B b 0.500; of 3 images A is better in 1, B in 1")
    assert {row["measure"]: row["gain"] for row in result["table"]}["MAE"] == "-0.2500"
    assert result["groups"][0] == {"group": "cat", "n_a": 2, "n_b": 2, "a": 0.75, "b": 0.5, "gain": 0.25}
    assert ctx.stored["choice"] == {"a": "a", "b": "b", "measure": "iou"}
    assert ctx.calls == [("open_panel", "compare_models", {"layout": "horizontal", "is_active": True})]
    assert compare.resolve_output(ctx) is None  # a dialog would hide the panel


def test_compare_has_an_open_panel_look_again(compare: Any, two_evaluations: None) -> None:
    panels = [fo.Panel(type="Samples"), fo.Panel(type="compare_models", component_id="17")]
    space = fo.Space(children=[fo.Space(children=panels)])
    ctx = make_context({"a": "b", "b": "a", "measure": "iou"}, ("a", "b"), spaces=space)
    compare.execute(ctx)
    wanted = {"panel_id": "17", "__method__": "on_load"}
    assert ctx.calls[0] == ("trigger", f"{PLUGIN}/compare_models", wanted)


def test_compare_says_what_is_missing_in_one_sentence(compare: Any, two_evaluations: None) -> None:
    with pytest.raises(ValueError, match=r"^there is no evaluation 'x', and none of a field of that name"):
        compare.execute(make_context({"a": "x", "b": "b"}, ("plain",)))


METRICS = {"metric_mae": True, "metric_s": False, "metric_e_max": False, "metric_f_max": False, "metric_iou": False}


@pytest.mark.parametrize(("name", "lower_is_better"), METRICS.items())
def test_metrics_are_offered_with_the_right_direction(name: str, lower_is_better: bool) -> None:
    metric = foo.get_operator(f"{PLUGIN}/{name}")
    assert metric.config.kwargs["lower_is_better"] is lower_is_better  # where FiftyOne looks
    assert metric.config.lower_is_better is lower_is_better
    assert metric.config.eval_types == ["segmentation"]
    assert metric.config.unlisted
    assert metric.config.aggregate_key == name.removeprefix("metric_")
    assert metric.get_fields(None, None, "key") == [f"key_{name.removeprefix('metric_')}"]


def test_metric_computes_with_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(evaluation, "compute_metric", lambda *given: seen.append(given) or 0.25)
    results = SimpleNamespace(config=None, key="plain")
    metric = foo.get_operator(f"{PLUGIN}/metric_f_max")
    assert metric.compute("samples", results) == 0.25
    results.key = None
    metric.compute("samples", results)
    assert seen == [("samples", results, "f_max", "plain_f_max"), ("samples", results, "f_max")]


def test_metric_raises_what_the_library_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute_metric(*given: Any) -> float:
        raise DataError("none of the 3 samples can be scored")

    monkeypatch.setattr(evaluation, "compute_metric", compute_metric)
    with pytest.raises(DataError, match="none of the 3"):
        foo.get_operator(f"{PLUGIN}/metric_iou").compute("samples", SimpleNamespace(config=None, key="plain"))
