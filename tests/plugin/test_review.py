"""Operators and panel of the review as the App sees them; none of this needs a database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402
from fiftyone.operators import types  # noqa: E402

URI = "@umscosod/umscosod"
AT_ONCE = ("accept_mask", "reject_mask", "send_back_mask")


class FakeDataset:
    """A data set of masks: each field of `runs` has a status beside it, as a run writes it."""

    def __init__(self, *runs: str, others: tuple[str, ...] = ()) -> None:
        self.fields: dict[str, Any] = dict.fromkeys((*runs, *others), fo.EmbeddedDocumentField(fo.Segmentation))
        self.fields |= {f"{run}_status": fo.StringField() for run in runs}

    def get_field(self, name: str) -> Any:
        return self.fields.get(name)

    def get_field_schema(self, embedded_doc_type: Any = None) -> dict[str, Any]:
        return {
            name: field
            for name, field in self.fields.items()
            if getattr(field, "document_type", None) is embedded_doc_type
        }


class FakeStore:
    """The key-value store of a data set."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def get(self, key: str) -> Any:
        return self.values.get(key)


def make_context(dataset: Any, *, last: str | None = None, state: Any = None, **given: Any) -> Any:
    defaults: dict[str, Any] = {"params": {}, "selected": [], "current_sample": None, "active_fields": []}
    panel = SimpleNamespace(state=SimpleNamespace(counts="", limit=None, least=None, sure=None, **(state or {})))
    store = FakeStore(field=last)
    return SimpleNamespace(dataset=dataset, store=lambda name: store, panel=panel, **{**defaults, **given})


@pytest.fixture
def review(monkeypatch: pytest.MonkeyPatch) -> Any:
    # The real one asks the App's session for views and selections.
    monkeypatch.setattr(types.Object, "view_target", lambda self, ctx, **options: self.str("view_target"))
    return foo.get_operator(f"{URI}/review")


def form_of(operator: Any, ctx: Any) -> dict[str, Any]:
    return operator.resolve_input(ctx).type.properties


@pytest.mark.parametrize(
    ("dataset", "given", "field"),
    [
        (FakeDataset("a"), {}, "a"),
        (FakeDataset("a", others=("ground_truth", "reviewed")), {}, "a"),  # masks of a run go first
        (FakeDataset(others=("ground_truth", "reviewed")), {}, "ground_truth"),
        (FakeDataset(), {"last": "a"}, None),
        (FakeDataset("a", "b"), {"active_fields": ["b", "cls"], "last": "a"}, "b"),  # what is seen is meant
        (FakeDataset("a", "b"), {"active_fields": ["a", "b"], "last": "a"}, "a"),
        (FakeDataset("a", "b"), {"last": "deleted"}, "a"),  # a form offers the first; it can be read there
    ],
)
def test_the_form_begins_with_the_run_that_is_meant(
    review: Any, dataset: Any, given: dict[str, Any], field: str | None
) -> None:
    assert form_of(review, make_context(dataset, **given))["field"].default == field


def test_the_form_says_what_a_decision_is_about(review: Any) -> None:
    dataset = FakeDataset("a")
    assert set(form_of(review, make_context(dataset))) == {"action", "field"}  # the panel needs no more
    accept = {"action": "accept"}
    assert {"view_target", "all", "overwrite"} <= set(form_of(review, make_context(dataset, params=accept)))
    selected = form_of(review, make_context(dataset, params=accept, selected=["1"]))
    assert "all" not in selected
    opened = form_of(review, make_context(dataset, params={"action": "reject"}, current_sample="1"))
    assert set(opened) == {"action", "field", "one"}


@pytest.mark.parametrize("action", [7, "", "delete everything", None, ["accept"]])
def test_an_unknown_action_is_no_decision(review: Any, action: Any) -> None:
    assert set(form_of(review, make_context(FakeDataset("a"), params={"action": action}))) == {"action", "field"}


def test_the_review_has_a_button_above_the_grid(review: Any) -> None:
    placement = review.resolve_placement(make_context(FakeDataset())).to_json()
    assert (placement["place"], placement["view"]["label"]) == ("samples-grid-secondary-actions", "Review masks")


@pytest.mark.parametrize("name", AT_ONCE)
def test_decisions_at_once_are_run_without_a_form_from_list_and_open_sample(name: str) -> None:
    operator = foo.get_operator(f"{URI}/{name}")
    config = operator.config.to_json()
    # The App shows an empty dialog for operators that are dynamic in any way.
    assert not any(config[name] for name in ("dynamic", "resolve_execution_options_on_change", "unlisted"))
    assert not form_of(operator, make_context(FakeDataset("a")))
    assert operator.resolve_output(make_context(FakeDataset("a"))) is None
    placement = operator.resolve_placement(make_context(FakeDataset("a"))).to_json()
    assert (placement["place"], placement["view"]["prompt"]) == ("samples-viewer-actions", False)


@pytest.mark.parametrize(
    ("dataset", "given", "message"),
    [
        (None, {}, "Open a data set first"),
        (FakeDataset("a"), {}, "Select masks in the grid, or open one"),
        (FakeDataset("a", "b"), {"selected": ["1"]}, r"unclear which masks are meant \(there are: a, b\)"),
        (FakeDataset(), {"selected": ["1"]}, r"\(there are: none\)"),
    ],
)
@pytest.mark.parametrize("name", AT_ONCE)
def test_a_decision_about_nothing_is_refused(name: str, dataset: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        foo.get_operator(f"{URI}/{name}").execute(make_context(dataset, **given))


def test_the_panel_can_be_registered_and_says_when_there_is_nothing() -> None:
    panel = foo.get_operator(f"{URI}/review_masks")
    assert panel.resolve_panel_config()["category"] is foo.Categories.CURATE  # a plain string breaks every operator
    assert panel.config.to_json()["category"] == str(foo.Categories.CURATE)
    assert set(panel.render(make_context(FakeDataset())).type.properties) == {"none"}
    assert set(panel.render(make_context(None)).type.properties) == {"none"}


def test_the_panel_offers_runs_and_says_how_many_a_button_accepts() -> None:
    panel = foo.get_operator(f"{URI}/review_masks")
    ctx = make_context(FakeDataset("a", "b"))
    ctx.panel.state.least, ctx.panel.state.sure, ctx.panel.state.can_steer = 0.5, 12, False
    shown = panel.render(ctx).type.properties
    assert shown["choice"].type.properties["run"].type.values == ["a", "b"]
    assert shown["least"].view.label == "Accept all of the list with a confidence of at least 0.50"
    assert (shown["accept_sure"].view.label, shown["accept_sure"].view.to_json()["disabled"]) == (
        "Accept 12 of the list",
        False,
    )
    ctx.panel.state.sure = 0
    assert panel.render(ctx).type.properties["accept_sure"].view.to_json()["disabled"]
