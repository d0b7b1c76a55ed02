"""Operator `group_by_class`: the form, what it passes on, and that looking comes before writing."""

from __future__ import annotations

from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402
from fiftyone.operators import types  # noqa: E402

import umscosod.integrations.fiftyone as integration  # noqa: E402
from tests.plugin.test_contract import MANIFEST, form_of, make_context  # noqa: E402
from umscosod.integrations.fiftyone.grouping import GroupingReport  # noqa: E402

JUNK = [None, "", 7, [1, "a"], {"a": 1}, "two words"]


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(types.Object, "view_target", lambda self, ctx, **options: None)
    monkeypatch.setattr(integration, "stored_preview", lambda dataset, into: {"group-01": 5, "group-02": 3})
    return foo.get_operator(f"{MANIFEST['name']}/group_by_class")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the operator asks of the library."""
    made: list[tuple[str, dict[str, Any]]] = []

    def stand_in(name: str) -> Any:
        def call(view: Any, *, progress: Any, **options: Any) -> GroupingReport:
            assert view == "the chosen view"
            made.append((name, options))
            return GroupingReport(field=options["into"], sizes={"a": 2})

        return call

    for name in ("group_dataset", "preview_groups"):
        monkeypatch.setattr(integration, name, stand_in(name))
    return made


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("way", ["field", "folder", "tag", "discovered", "magic", 3])
def test_the_form_takes_any_parameters(operator: Any, way: Any, junk: Any) -> None:
    params = dict.fromkeys(("source", "tags", "into", "n_groups", "action", "check", "overwrite", "settings"), junk)
    assert operator.resolve_input(make_context({**params, "by": way})).type.to_json()


def test_fields_with_one_value_a_sample_are_offered(operator: Any) -> None:
    fields = {
        "species": fo.StringField(),
        "count": fo.IntField(),
        "is_wild": fo.BooleanField(),
        "truth": fo.EmbeddedDocumentField(fo.Classification),
        "boxes": fo.EmbeddedDocumentField(fo.Detections),
    }
    form = form_of(operator, make_context({"by": "field"}, **fields))
    assert [choice.value for choice in form["source"].view.choices] == ["count", "is_wild", "species", "truth"]
    assert "tags" not in form
    assert "preset" not in form  # nothing is computed from pictures


def test_each_way_asks_for_its_own(operator: Any) -> None:
    assert "tags" in form_of(operator, make_context({"by": "tag"}))
    assert "source" not in form_of(operator, make_context({"by": "folder"}))
    looked_at = {"by": "folder", "advanced": True}
    assert "preset" not in form_of(operator, make_context(looked_at))
    assert "preset" in form_of(operator, make_context({**looked_at, "check": True}))
    discovered = form_of(operator, make_context({"by": "discovered", "advanced": True}))
    assert discovered["action"].default == "write"  # there is a proposal
    assert "group-01 (5), group-02 (3)" in discovered["sizes"].view.label
    assert "preset" in discovered


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({"into": "two words"}, {}),
        ({"into": "score"}, {"score": fo.FloatField()}),
        ({"into": "filepath"}, {}),
        ({"into": "cls", "source": "cls"}, {"cls": fo.StringField()}),
    ],
)
def test_bad_output_fields_are_refused_in_the_form(operator: Any, params: dict[str, Any], fields: Any) -> None:
    form = form_of(operator, make_context({"by": "field", **params}, **fields))
    assert form["into_problem"].invalid


@pytest.mark.parametrize(("overwrite", "word"), [(True, "replaced"), (False, "stay")])
def test_the_form_says_what_happens_to_present_values(operator: Any, overwrite: bool, word: str) -> None:
    form = form_of(operator, make_context({"overwrite": overwrite}, cosal_group=fo.StringField()))
    assert word in form["into_note"].view.label
    assert "into_problem" not in form


def test_a_preview_is_what_happens_first(operator: Any, calls: list[tuple[str, dict[str, Any]]]) -> None:
    assert (
        list(operator.execute(make_context({"by": "discovered", "n_groups": 4, "backbone": "embedded"}))) == []
    )  # called from Python: nobody looks
    ((name, options),) = calls
    assert name == "preview_groups"
    assert (options["n_groups"], options["into"]) == (4, "cosal_group")
    assert options["config"].features.backbone == "embedded"
    done = operator.resolve_output(make_context({"by": "discovered"})).to_json()
    assert "group-01 (5), group-02 (3). The grid shows one image of each. Run this again" in str(done)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"by": "discovered", "action": "write", "overwrite": True}, {"n_groups": None, "overwrite": True}),
        ({"source": "cls"}, {"by": "field", "source": "cls", "check": False}),
        ({"by": "tag", "tags": " a, b,,", "source": "cls"}, {"by": "tag", "source": ["a", "b"]}),
        ({"by": "tag"}, {"by": "tag", "source": None}),
        (
            {"by": "folder", "into": "place", "check": True},
            {"by": "folder", "source": None, "into": "place", "check": True},
        ),
    ],
)
def test_what_is_written_is_what_was_asked(
    operator: Any, calls: list[tuple[str, dict[str, Any]]], params: dict[str, Any], expected: dict[str, Any]
) -> None:
    list(operator.execute(make_context(params)))
    ((name, options),) = calls
    assert name == "group_dataset"
    assert {key: options[key] for key in expected} == expected
    assert "by-" in str(operator.resolve_output(make_context(params)).to_json())


def test_no_number_of_groups_is_no_number(operator: Any, calls: list[tuple[str, dict[str, Any]]]) -> None:
    for junk in ("six", True, 0, -3, 2.5, None):
        list(operator.execute(make_context({"by": "discovered", "n_groups": junk})))
    assert [options["n_groups"] for _, options in calls] == [None] * 6
