"""The plugin as FiftyOne sees it; none of this needs a database."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402
from fiftyone.operators import types  # noqa: E402
from fiftyone.operators.registry import OperatorRegistry  # noqa: E402

from umscosod.config import FeaturesConfig, PipelineConfig  # noqa: E402
from umscosod.errors import DataError  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = yaml.safe_load((ROOT / "fiftyone.yml").read_text(encoding="utf-8"))
URI = f"{MANIFEST['name']}/label"


class FakeDataset:
    """The two schema questions a form may ask."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

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
    ours = {op.name for op in registry.list_operators(builtin=False) if op.plugin_name == MANIFEST["name"]}
    assert ours == set(MANIFEST["operators"])


def test_operator_can_be_shown_in_the_app(operator: Any) -> None:
    assert operator.uri == URI
    assert operator.config.execute_as_generator
    assert operator.config.allow_delegated_execution
    assert operator.resolve_placement(make_context({})).to_json()["place"] == "samples-grid-secondary-actions"
    assert "cosal_map" in str(operator.resolve_output(make_context({"out_dir": "/x"})).to_json())


def test_form_offers_fields_that_name_groups(operator: Any) -> None:
    fields = {
        "species": fo.StringField(),
        "truth": fo.EmbeddedDocumentField(fo.Classification),
        "boxes": fo.EmbeddedDocumentField(fo.Detections),
        "score": fo.FloatField(),
    }
    form = form_of(operator, make_context({}, **fields))
    choices = [choice.value for choice in form["group_field"].view.choices]
    assert choices == ["(folder)", "species", "truth"]
    assert form["backbone"].type.values == list(form["backbone"].view.values())
    assert form["backbone"].view.description.startswith("First stream: auto, embedded")


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
    form = form_of(operator, make_context({"field": "cosal", "overwrite": overwrite}, cosal=masks))
    assert not form["field"].invalid
    assert word in form["field_note"].view.label


def test_every_backbone_of_the_form_is_one_the_config_explains(operator: Any) -> None:
    from plugin.forms import get_help

    offered = form_of(operator, make_context({}))["backbone"].type.values
    assert all(name in get_help(FeaturesConfig, "backbone") for name in offered)


def run_with(operator: Any, monkeypatch: pytest.MonkeyPatch, ctx: Any, label_dataset: Any) -> list[Any]:
    import umscosod.integrations.fiftyone as integration

    monkeypatch.setattr(integration, "label_dataset", label_dataset)
    return list(operator.execute(ctx))


def test_execute_passes_the_form_on_and_shows_progress(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def label_dataset(view: Any, *, progress: Any, **options: Any) -> Any:
        seen.update(options, view=view)
        progress(1, 2, "features")
        progress(2, 2, "features")
        rows = (SimpleNamespace(status="labelled"), SimpleNamespace(status="failed"))
        return SimpleNamespace(rows=rows, out=Path("/masks"))

    params = {"out_dir": " /masks ", "group_field": "species", "backbone": "embedded", "train": False}
    messages = run_with(operator, monkeypatch, make_context(params), label_dataset)
    assert seen == {
        "view": "the chosen view",
        "out_dir": "/masks",
        "group_field": "species",
        "field": "cosal",
        "config": PipelineConfig(features=FeaturesConfig(backbone="embedded")),
        "train": False,
        "overwrite": False,
    }
    assert messages == [
        ("progress", {"progress": 0.5, "label": "features 1/2"}),
        ("progress", {"progress": 1.0, "label": "features 2/2"}),
        ("notify", "1 failed, 1 labelled; files in /masks", "success"),
        ("trigger", "reload_dataset"),
    ]


def test_group_by_folder_is_no_field(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def label_dataset(view: Any, **options: Any) -> Any:
        seen.update(options)
        return SimpleNamespace(rows=(), out=Path("/masks"))

    ctx = make_context({"out_dir": "/masks", "group_field": "(folder)"})
    messages = run_with(operator, monkeypatch, ctx, label_dataset)
    assert seen["group_field"] is None
    assert messages[0][-1] == "warning"  # nothing labelled is no success


def test_delegated_run_reports_to_the_queue(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def label_dataset(view: Any, *, progress: Any, **options: Any) -> Any:
        for done in range(1, 101):
            progress(done, 100, "train")
        return SimpleNamespace(rows=(), out=Path("/masks"))

    ctx = make_context({"out_dir": "/masks"})
    ctx.delegated = True
    assert run_with(operator, monkeypatch, ctx, label_dataset) == []
    # The first and the last; the 98 between came within one second.
    assert [given["label"] for _, given in ctx.calls] == ["train 1/100", "train 100/100"]


def test_our_errors_reach_the_app_as_one_sentence(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def label_dataset(view: Any, **options: Any) -> Any:
        raise DataError("no samples here")

    with pytest.raises(ValueError, match=r"^no samples here$"):
        run_with(operator, monkeypatch, make_context({"out_dir": "/masks"}), label_dataset)


def test_output_folder_is_required(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Choose an output folder"):
        run_with(operator, monkeypatch, make_context({"out_dir": "  "}), lambda *args, **kwargs: None)
