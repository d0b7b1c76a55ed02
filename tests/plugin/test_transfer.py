"""Operators `import_predictions` and `export`: their forms, and what they pass on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402
from fiftyone.operators import types  # noqa: E402

import umscosod.integrations.fiftyone as integration  # noqa: E402
from plugin.operators.transfer import FORMATS, KINDS, Export, ImportPredictions  # noqa: E402
from umscosod.errors import DataError  # noqa: E402

MASKS = fo.EmbeddedDocumentField(fo.Segmentation)
JUNK = [None, "", 7, [1, "a"], {"a": 1}, "two words", True]


class FakeDataset:
    """The schema questions that a form may ask."""

    name = "toy"

    def __init__(self, **fields: Any) -> None:
        self.fields = {"filepath": fo.StringField(), **fields}

    def get_field(self, name: str) -> Any:
        return self.fields.get(name)

    def get_field_schema(self, ftype: Any = None, embedded_doc_type: Any = None) -> dict[str, Any]:
        return {
            name: field
            for name, field in self.fields.items()
            if (
                getattr(field, "document_type", None) is embedded_doc_type
                if embedded_doc_type
                else isinstance(field, ftype)
            )
        }


def make_context(params: dict[str, Any], **fields: Any) -> Any:
    return SimpleNamespace(
        params=params,
        dataset=FakeDataset(**fields),
        delegated=False,
        ops=SimpleNamespace(
            set_progress=lambda **given: ("progress", given),
            notify=lambda message, variant: ("notify", message, variant),
        ),
        target_view=lambda: "the chosen view",
        trigger=lambda name: ("trigger", name),
    )


@pytest.fixture(params=["import_predictions", "export"])
def operator(request: pytest.FixtureRequest) -> Any:
    return get_operator(request.param)


@pytest.fixture(autouse=True)
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types.Object, "view_target", lambda self, ctx, **options: None)


def get_operator(name: str) -> Any:
    return foo.get_operator(f"@umscosod/umscosod/{name}")


def form_of(operator: Any, params: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return operator.resolve_input(make_context(params, **fields)).type.properties  # type: ignore[no-any-return]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_forms_take_any_parameters(operator: Any, junk: Any) -> None:
    names = ("folder", "field", "group_field", "kind", "threshold", "out_dir", "overwrite", "format", "category")
    params = dict.fromkeys((*names, "category_field", "only_accepted", "per_region"), junk)
    assert operator.resolve_input(make_context(params)).type.to_json()
    assert operator.resolve_output(make_context(params)).to_json()


def test_a_folder_that_is_not_there_is_refused_as_it_is_typed(tmp_path: Path) -> None:
    operator = get_operator("import_predictions")
    assert form_of(operator, {"folder": str(tmp_path / "none")})["folder_problem"].invalid
    assert "folder_problem" not in form_of(operator, {"folder": str(tmp_path)})
    assert "folder_problem" not in form_of(operator, {})  # nothing typed yet: the box says "required" by itself


def test_masks_have_no_threshold() -> None:
    operator = get_operator("import_predictions")
    shown = {"advanced": True}
    assert "threshold" in form_of(operator, shown)
    assert "threshold" not in form_of(operator, {**shown, "kind": "mask"})
    assert form_of(operator, shown)["kind"].type.values == list(KINDS) == ["auto", "mask", "map"]


def test_a_form_shows_what_a_format_can_do() -> None:
    from umscosod.export.formats import FORMATS as KNOWN

    operator = get_operator("export")
    assert sorted(form_of(operator, {})["format"].type.values) == sorted(FORMATS) == sorted(KNOWN)
    shown = {
        form: {"category", "category_field", "per_region"}
        & form_of(operator, {"format": form, "advanced": True}).keys()
        for form in KNOWN
    }
    assert shown == {
        "png": set(),
        "yolo": {"category", "category_field"},
        "coco": {"category", "category_field", "per_region"},
        "cvat": {"category", "category_field", "per_region"},
    }


def test_only_mask_fields_can_be_exported() -> None:
    operator = get_operator("export")
    assert form_of(operator, {"field": "species"}, species=fo.StringField())["field_problem"].invalid
    form = form_of(operator, {"field": "truth", "advanced": True}, truth=MASKS, species=fo.StringField())
    assert "field_problem" not in form
    assert [choice.value for choice in form["field"].view.choices] == ["truth"]
    assert [choice.value for choice in form["category_field"].view.choices] == ["(one category)", "species"]
    assert form_of(operator, {}, truth=MASKS, other=MASKS)["field"].default == "other"
    assert form_of(operator, {}, truth=MASKS, cosal=MASKS)["field"].default == "cosal"
    assert "no masks yet" in form_of(operator, {})["field_problem"].view.label


def run_with(monkeypatch: pytest.MonkeyPatch, name: str, params: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Arguments that reach the library, and what the App is told."""
    seen: dict[str, Any] = {}

    def call(view: Any, *, progress: Any, **options: Any) -> Any:
        seen.update(options, view=view)
        return SimpleNamespace(summary="8 done", is_success=True)

    monkeypatch.setattr(integration, "export_dataset" if name == "export" else name, call)
    return seen, list(get_operator(name).execute(make_context(params)))


def test_import_passes_the_form_on(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"folder": " /theirs ", "field": "gconet", "group_field": "cls", "kind": "map", "threshold": 0.4}
    seen, told = run_with(monkeypatch, "import_predictions", params)
    assert seen == {
        "view": "the chosen view",
        "folder": "/theirs",
        "field": "gconet",
        "group_field": "cls",
        "kind": "map",
        "threshold": 0.4,
        "out_dir": None,
        "overwrite": False,
        "editable": True,
    }
    assert told == []  # called from Python: nobody looks


def test_export_passes_the_form_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, _ = run_with(monkeypatch, "export", {"out_dir": "/coco", "field": "truth", "only_accepted": True})
    assert seen == {
        "view": "the chosen view",
        "field": "truth",
        "out_dir": "/coco",
        "format": "coco",
        "category": "co-salient",
        "category_field": None,
        "only_accepted": True,
        "per_region": False,
        "overwrite": False,
    }


def test_a_choice_that_the_format_hides_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"out_dir": "/o", "format": "yolo", "per_region": True, "category_field": "cls"}
    seen, _ = run_with(monkeypatch, "export", params)
    assert (seen["per_region"], seen["category_field"]) == (False, "cls")


@pytest.mark.parametrize(("name", "message"), [("import_predictions", "folder of predictions"), ("export", "a folder")])
def test_a_folder_is_needed(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Choose .*{message}"):
        list(get_operator(name).execute(make_context({"out_dir": " "})))


def test_our_errors_reach_the_app_as_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(view: Any, **options: Any) -> Any:
        raise DataError("nothing there")

    monkeypatch.setattr(integration, "export_dataset", call)
    with pytest.raises(ValueError, match=r"^nothing there$"):
        list(get_operator("export").execute(make_context({"out_dir": "/o"})))


def test_results_are_told(tmp_path: Path) -> None:
    assert "'gconet'" in ImportPredictions().describe_done(make_context({"field": "gconet"}))
    assert str(tmp_path) in Export().describe_done(make_context({"out_dir": str(tmp_path)}))


def test_the_end_says_which_samples_got_nothing() -> None:
    notes = ("1 sample got nothing: cat/02.png is missing", "no group")
    outcome = SimpleNamespace(summary="imported: 3 labelled, 1 skipped; no group", notes=notes, is_success=False)
    details = ImportPredictions()._end(make_context({}), outcome).details
    assert details == f"Predictions are in the field 'imported', as a run of that name  \n{notes[0]}"
