"""The plugin as FiftyOne sees it; none of this needs a database."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402
from fiftyone.operators import types  # noqa: E402
from fiftyone.operators.registry import OperatorRegistry  # noqa: E402

from umscosod.config.io import load_config  # noqa: E402
from umscosod.errors import ConfigError, DataError  # noqa: E402
from umscosod.features.backbone import backbone_names  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = yaml.safe_load((ROOT / "fiftyone.yml").read_text(encoding="utf-8"))
URI = f"{MANIFEST['name']}/label"
PANELS = MANIFEST.get("panels", [])


class FakeDataset:
    """What a form may ask: the schema and the names of runs."""

    name = "toy"
    media_type = "image"

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def list_runs(self, **given: Any) -> list[str]:
        return ["cosal"]

    def list_evaluations(self, **given: Any) -> list[str]:
        return []

    def has_field(self, name: str) -> bool:
        return name in self.fields

    has_sample_field = has_field

    def get_field(self, name: str) -> Any:
        return self.fields.get(name)

    def get_field_schema(self, ftype: Any = None, embedded_doc_type: Any = None) -> dict[str, Any]:
        def fits(field: Any) -> bool:
            if embedded_doc_type is not None:
                return getattr(field, "document_type", None) is embedded_doc_type
            return isinstance(field, ftype)

        return {name: field for name, field in self.fields.items() if fits(field)}


def make_context(params: dict[str, Any], **fields: Any) -> Any:
    calls: list[tuple[str, Any]] = []
    ops = SimpleNamespace(
        set_progress=lambda **given: ("progress", given),
        notify=lambda message, variant: ("notify", message, variant),
    )
    return SimpleNamespace(
        params=params,
        dataset=FakeDataset(filepath=fo.StringField(), **fields),
        delegated=False,
        calls=calls,
        ops=ops,
        target_view=lambda: "the chosen view",
        trigger=lambda name: ("trigger", name),
        set_progress=lambda **given: calls.append(("progress", given)),
    )


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Any:
    # The real one asks the App's session for views and selections.
    monkeypatch.setattr(types.Object, "view_target", lambda self, ctx, **options: None)
    return foo.get_operator(URI)


def form_of(operator: Any, ctx: Any) -> dict[str, Any]:
    return operator.resolve_input(ctx).type.properties


def test_loads_without_errors_and_registers_what_the_manifest_lists() -> None:
    registry = OperatorRegistry()
    assert registry.list_errors() == []  # FiftyOne never raises these
    ours = [op.name for op in registry.list_operators(builtin=False) if op.plugin_name == MANIFEST["name"]]
    assert sorted(ours) == sorted([*MANIFEST["operators"], *PANELS])


WITH_FORM = [name for name in MANIFEST["operators"] if not name.startswith("metric_")]
JUNK = {"missing": None, "empty": "", "number": 7, "list": [1, "a"], "mapping": {"a": 1}, "text": "two words"}
NAMES = (
    "field",
    "group_field",
    "out_dir",
    "settings",
    "preset",
    "backbone",
    "weights",
    "device",
    "engine",
    "address",
    "overwrite",
    "proposer",
    "detections",
    "detections_field",
    "labels",
    "key",
    "checkpoint",
    "source",
    "th0",
    "sure",
    "names",
    "accepted",
)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", WITH_FORM)
def test_every_form_takes_any_parameters(name: str, junk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types.Object, "view_target", lambda self, ctx, **options: None)
    params = {} if junk == "missing" else dict.fromkeys(NAMES, JUNK[junk])
    operator = foo.get_operator(f"{MANIFEST['name']}/{name}")
    form = operator.resolve_input(make_context(params))
    assert form is None or form.type.to_json()


@pytest.mark.parametrize("name", MANIFEST["operators"])
def test_every_operator_says_what_an_agent_may_do(name: str) -> None:
    operator = foo.get_operator(f"{MANIFEST['name']}/{name}")
    assert operator.config.risk_level is not None
    assert operator.config.label.startswith("UMS-CoSOD") or isinstance(operator, foo.EvaluationMetric)


def test_a_form_without_a_data_set_says_so(operator: Any) -> None:
    ctx = make_context({})
    ctx.dataset = None
    assert form_of(operator, ctx)["no_dataset"].invalid


@pytest.mark.parametrize(
    "text",
    [
        *("train.epochs", "train.epoch=3", "train.epochs=0", "train.epochs=[", "=3", "train.epochs=!!int abc"),
        *("train.epochs=" + "9" * 5000, "train.epochs=" + "[" * 3000, "train.epochs=&a [*a]", "seed=2026-99-99"),
    ],
)
def test_settings_are_checked_as_they_are_typed(operator: Any, text: str) -> None:
    assert form_of(operator, make_context({"settings": text}))["settings_problem"].invalid
    assert "settings_problem" not in form_of(operator, make_context({"settings": "train.epochs=3"}))


def test_a_setting_that_has_no_effect_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types.Object, "view_target", lambda self, ctx, **options: None)
    refine = foo.get_operator(f"{MANIFEST['name']}/refine")
    problem = form_of(refine, make_context({"settings": "train.epochs=3"}))["settings_problem"]
    assert "'train.epochs' has no effect here" in problem.view.label
    assert "settings_problem" not in form_of(refine, make_context({"settings": "refine.sim_th=0.6"}))


@pytest.mark.parametrize("name", ["label", "predict"])
def test_the_form_asks_where_the_work_is_done(name: str, operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = foo.get_operator(f"{MANIFEST['name']}/{name}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())  # as if Ray were there
    form = form_of(operator, make_context({"advanced": True}))
    assert (form["engine"].default, form["engine"].type.values) == ("here", ["here", "ray"])
    assert "address" not in form
    asked = {"advanced": True, "engine": "ray"}
    form = form_of(operator, make_context(asked))
    assert "address" in form
    assert "engine_problem" not in form
    assert "engine_problem" not in form_of(operator, make_context({**asked, "address": "10.0.0.5:6379"}))
    form = form_of(operator, make_context({**asked, "address": "10.0.0.5"}))
    assert form["engine_problem"].invalid
    assert "'10.0.0.5' is no address of a Ray cluster" in form["engine_problem"].view.label


def test_without_ray_the_form_refuses_it_with_the_cure(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    form = form_of(operator, make_context({"engine": "ray"}))  # also where the box Advanced hides the choice
    assert form["engine_problem"].invalid
    assert 'run: pip install "umscosod[ray]"' in form["engine_problem"].view.label
    assert "Where the work is done 'ray'" in form["advanced"].view.description
    assert "engine_problem" not in form_of(operator, make_context({"advanced": True, "address": "10.0.0.5"}))


@pytest.mark.parametrize(
    ("given", "engine"),
    [
        ({}, ""),
        ({"engine": "here", "address": "10.0.0.5:6379"}, ""),
        ({"engine": "ray"}, "ray"),
        ({"engine": "ray", "address": "auto"}, "auto"),
    ],
)
def test_the_job_gets_the_engine_as_a_text(given: dict[str, str], engine: str, operator: Any) -> None:
    assert operator.read_options(make_context(given))["engine"] == engine


def test_an_unknown_engine_is_refused(operator: Any) -> None:
    with pytest.raises(ConfigError, match="engine must be one of here, ray, got 'dask'"):
        operator.read_options(make_context({"engine": "dask"}))


def test_operator_can_be_shown_in_the_app(operator: Any) -> None:
    assert operator.uri == URI
    assert operator.config.execute_as_generator
    assert operator.config.allow_delegated_execution
    assert operator.resolve_placement(make_context({})).to_json()["place"] == "samples-grid-secondary-actions"
    assert "cosal_map" in str(operator.resolve_output(make_context({})).to_json())


def test_form_offers_fields_that_name_groups(operator: Any) -> None:
    fields = {
        "species": fo.StringField(),
        "truth": fo.EmbeddedDocumentField(fo.Classification),
        "boxes": fo.EmbeddedDocumentField(fo.Detections),
        "score": fo.FloatField(),
    }
    form = form_of(operator, make_context({"advanced": True}, **fields))
    choices = [choice.value for choice in form["group_field"].view.choices]
    assert choices == ["(folder)", "species", "truth"]
    assert form["backbone"].type.values == list(form["backbone"].view.values())


@pytest.mark.parametrize("name", ["two words", "_hidden", "a.b", 7])
def test_form_refuses_bad_field_names(operator: Any, name: Any) -> None:
    form = form_of(operator, make_context({"field": name}))
    assert form["field"].invalid
    assert form["field_problem"].invalid


def test_form_refuses_a_field_of_another_kind(operator: Any) -> None:
    form = form_of(operator, make_context({"field": "score"}, score=fo.FloatField()))
    assert form["field"].invalid


@pytest.mark.parametrize(("overwrite", "word"), [(True, "replaced"), (False, "kept")])
def test_form_says_what_happens_to_present_labels(operator: Any, overwrite: bool, word: str) -> None:
    masks = fo.EmbeddedDocumentField(fo.Segmentation)
    given = {"field": "cosal", "overwrite": overwrite}
    form = form_of(operator, make_context(given, cosal=masks, cosal_status=fo.StringField()))
    assert not form["field"].invalid
    assert word in form["field_note"].view.label


def test_form_promises_nothing_about_masks_that_no_run_made(operator: Any) -> None:
    form = form_of(operator, make_context({"field": "truth"}, truth=fo.EmbeddedDocumentField(fo.Segmentation)))
    assert "no run made it" in form["field_note"].view.label
    assert "overwrite" not in form


def test_every_backbone_of_the_form_is_one_that_the_library_knows(operator: Any) -> None:
    offered = form_of(operator, make_context({"advanced": True}))["backbone"].type.values
    assert set(offered) == set(backbone_names())


def run_with(operator: Any, monkeypatch: pytest.MonkeyPatch, ctx: Any, label_dataset: Any) -> list[Any]:
    import umscosod.integrations.fiftyone as integration

    monkeypatch.setattr(integration, "label_dataset", label_dataset)
    return list(operator.execute(ctx))


def outcome(summary: str = "", is_success: bool = True) -> Any:
    return SimpleNamespace(summary=summary, is_success=is_success)


def test_execute_passes_the_form_on(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def label_dataset(view: Any, *, progress: Any, **options: Any) -> Any:
        seen.update(options, view=view)
        return outcome("cosal: 1 failed, 1 labelled")

    params = {"out_dir": " /masks ", "group_field": "species", "backbone": "embedded", "train": False}
    params |= {"settings": "train.epochs=3\n\nrefine.crf.enabled=false", "preset": "smoke"}
    ctx = make_context(params)
    assert run_with(operator, monkeypatch, ctx, label_dataset) == []
    assert seen == {
        "view": "the chosen view",
        "out_dir": "/masks",
        "group_field": "species",
        "field": "cosal",
        "config": load_config(
            "smoke",
            overrides={"features.backbone": "embedded", "train.epochs": 3, "refine.crf.enabled": False},
        ),
        "train": False,
        "overwrite": False,
        "editable": True,
        "engine": "",
    }


def test_without_parameters_the_defaults_of_the_form_hold(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def label_dataset(view: Any, *, progress: Any, **options: Any) -> Any:
        seen.update(options)
        return outcome("nothing", is_success=False)

    run_with(operator, monkeypatch, make_context({"group_field": "(folder)"}), label_dataset)
    assert seen["group_field"] is None
    assert seen["out_dir"] is None
    assert seen["train"] is None  # where it pays
    assert seen["config"] == load_config("fast")


def test_delegated_run_reports_to_the_queue(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def label_dataset(view: Any, *, progress: Any, **options: Any) -> Any:
        for done in range(1, 101):
            progress(done, 100, "train")
        return outcome("done")

    ctx = make_context({"out_dir": "/masks"})
    ctx.delegated = True
    assert run_with(operator, monkeypatch, ctx, label_dataset) == []
    # The first and the last; the 98 between came within one second.
    assert [given["label"] for _, given in ctx.calls] == ["train 1/100", "train 100/100", "done"]


def test_our_errors_reach_the_app_as_one_sentence(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def label_dataset(view: Any, **options: Any) -> Any:
        raise DataError("no samples here")

    with pytest.raises(ValueError, match=r"^no samples here$"):
        run_with(operator, monkeypatch, make_context({"out_dir": "/masks"}), label_dataset)
