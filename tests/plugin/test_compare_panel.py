"""Panel `compare_models` with a context that records what it is told; no database, no App."""

from __future__ import annotations

from typing import Any

import pydash
import pytest

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402

from tests.plugin.fake_evaluations import PLUGIN, make_context, put_two_evaluations  # noqa: E402


@pytest.fixture(autouse=True)
def two_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    put_two_evaluations(monkeypatch)


class FakePanel:
    """State that can be read back, and data that cannot, as in FiftyOne."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.held: dict[str, Any] = state or {}
        self.data: dict[str, Any] = {}

    def set_state(self, key: Any, value: Any = None) -> None:
        for path, each in (key if isinstance(key, dict) else {key: value}).items():
            pydash.set_(self.held, path, each)

    def get_state(self, key: str, default: Any = None) -> Any:
        return pydash.get(self.held, key, default)

    def set_data(self, key: dict[str, Any]) -> None:
        self.data.update(key)


@pytest.fixture
def panel() -> Any:
    return foo.get_operator(f"{PLUGIN}/compare_models")


def opened(panel: Any, evaluations: tuple[str, ...] = ("a", "b"), state: dict[str, Any] | None = None) -> Any:
    ctx = make_context({}, evaluations)
    ctx.panel = FakePanel(state)
    panel.on_load(ctx)
    return ctx


def parts_of(panel: Any, ctx: Any) -> dict[str, Any]:
    shown = panel.render(ctx)
    assert shown.to_json()  # what goes to the App
    return shown.type.properties


def test_lies_where_fiftyone_finds_it(panel: Any) -> None:
    # a plain string here makes the App's request for operators fail, and every operator vanish
    assert isinstance(panel.config.category, foo.Categories)
    assert panel.config.to_json()["label"] == "UMS-CoSOD: compare models"
    assert panel.config.surfaces == "grid"


@pytest.mark.parametrize("evaluations", [(), ("a",), ("a", "plain")])
def test_with_fewer_than_two_evaluations_says_what_to_do(panel: Any, evaluations: tuple[str, ...]) -> None:
    ctx = opened(panel, evaluations)
    parts = parts_of(panel, ctx)
    assert set(parts) == {"too_few", "again"}
    assert "**UMS-CoSOD: evaluate against ground truth**" in parts["too_few"].default
    assert ("plain" in parts["too_few"].default) == ("plain" in evaluations)


def test_without_a_data_set_nothing_breaks(panel: Any) -> None:
    ctx = make_context()
    ctx.dataset, ctx.panel = None, FakePanel()
    panel.on_load(ctx)
    assert "too_few" in parts_of(panel, ctx)


def test_opens_with_the_two_newest(panel: Any) -> None:
    ctx = opened(panel, ("c", "a", "b"))
    assert ctx.panel.held["choice"] == {"a": "a", "b": "b", "measure": "iou"}
    parts = parts_of(panel, ctx)
    assert {"choice", "words_text", "buttons", "table", "gains", "groups", "f_curves", "pr_curves"} <= set(parts)
    assert parts["choice"].type.properties["a"].type.values == ["c", "a", "b"]


def test_keeps_a_choice_that_still_stands(panel: Any) -> None:
    ctx = opened(panel, state={"choice": {"a": "b", "b": "a", "measure": "iou"}})
    assert ctx.panel.held["choice"] == {"a": "b", "b": "a", "measure": "iou"}
    gone = opened(panel, state={"choice": {"a": "deleted", "b": "b", "measure": "old"}})
    assert gone.panel.held["choice"] == {"a": "a", "b": "b", "measure": "iou"}


def test_shows_what_the_operator_asks_for_once(panel: Any) -> None:
    ctx = make_context({}, ("a", "b"))
    ctx.panel = FakePanel({"choice": {"a": "a", "b": "b", "measure": "iou"}})
    ctx.stored["choice"] = {"a": "b", "b": "a", "measure": "iou"}
    panel.on_load(ctx)
    assert ctx.panel.held["choice"] == {"a": "b", "b": "a", "measure": "iou"}
    assert ctx.stored == {}


def test_tables_bars_and_curves(panel: Any) -> None:
    ctx = opened(panel)
    held, data = ctx.panel.held, ctx.panel.data
    assert "Of **3** images **A** is better in **1**, **B** in **1**, 1 are equal" in held["words"]
    assert held["table"][0] == {"measure": "S-measure", "a": "0.7500", "b": "0.5000", "gain": "+0.2500"}
    assert [(row["group"], row["n"], row["gain"]) for row in held["groups"]] == [
        ("cat", "2", "+0.2500"),
        ("only-a", "1 / 0", ""),
        ("only-b", "0 / 1", ""),
    ]
    (bars,) = data["gains"]
    assert sum(bars["y"]) == 3
    assert (bars["y"][-1], bars["y"][len(bars["y"]) // 2]) == (1, 1), "gain 0.5 to the right, 0 in the middle"
    assert bars["x"][len(bars["x"]) // 2] == pytest.approx(0.0)
    assert [line["name"] for line in data["f_curves"]] == ["A: a", "B: b"]
    assert data["f_curves"][0]["y"] == [0.25, 0.75, 1.25]
    assert data["pr_curves"][1]["x"] == [0.0, 0.5, 1.0]


def test_a_comparison_that_cannot_be_made_says_why(panel: Any) -> None:
    ctx = opened(panel)
    ctx.panel.set_state("choice.b", "a")
    panel.change(ctx)
    assert "choose two different ones" in parts_of(panel, ctx)["problem_text"].default
    panel.show_a(ctx)
    assert ctx.calls[-1][0] == "notify"
    ctx.panel.set_state("choice.b", "b")
    panel.change(ctx)
    assert "table" in parts_of(panel, ctx)


def drawn_by(ctx: Any) -> list[Any]:
    return [call[1] for call in ctx.calls if call[0] == "set_active_fields"]


def test_begins_with_what_is_drawn_or_with_the_masks_of_a(panel: Any) -> None:
    ctx = opened(panel)
    assert ctx.panel.held["draw"] == {"a": True, "b": False, "truth": False}
    assert drawn_by(ctx) == [["a"]]
    ctx = make_context({}, ("a", "b"))
    ctx.panel, ctx.active_fields = FakePanel(), ["cls", "b", "other"]
    panel.on_load(ctx)
    assert ctx.panel.held["draw"] == {"a": False, "b": True, "truth": False}
    panel.draw(ctx)  # the App tells of each box that it draws first
    assert drawn_by(ctx) == []
    ticked = {side: box.default for side, box in parts_of(panel, ctx)["draw"].type.properties.items()}
    assert ticked == ctx.panel.held["draw"]
    ctx.panel.set_state("draw.truth", True)
    panel.draw(ctx)
    assert drawn_by(ctx) == [["cls", "b", "other", "ground_truth"]]


def test_boxes_follow_another_choice(panel: Any) -> None:
    ctx = opened(panel)
    ctx.panel.set_state("choice", {"a": "b", "b": "a", "measure": "iou"})
    panel.change(ctx)
    assert drawn_by(ctx) == [["a"], ["b"]]


def test_an_evaluation_deleted_meanwhile_is_said(panel: Any) -> None:
    ctx = opened(panel, ("c", "a", "b"))
    ctx.panel.set_state("choice", {"a": "gone", "b": "b", "measure": "iou"})
    assert not parts_of(panel, ctx)["draw"].type.properties
    panel.draw(ctx)
    assert drawn_by(ctx) == [["a"]]  # as before


def test_a_change_told_of_before_the_state_is_known_draws_nothing(panel: Any) -> None:
    ctx = make_context({"__method__": "on_change_view", "panel_id": "one"}, ("a", "b"))
    ctx.panel, ctx.panel_state = FakePanel(), {}
    panel.execute(ctx)
    assert ctx.calls == []
    opening = make_context({"__method__": "on_load", "panel_id": "one"}, ("a", "b"))
    opening.panel, opening.panel_state = FakePanel(), {}
    panel.execute(opening)
    assert "show_panel_output" in {call[0] for call in opening.calls}
