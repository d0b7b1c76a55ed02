"""The review's operators and panel against a real database, called as the App calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402
from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402

from umscosod.integrations.fiftyone.review.listing import list_for_review, review_counts  # noqa: E402
from umscosod.integrations.fiftyone.runs.fields import LabelItem, declare_fields, write_labels  # noqa: E402
from umscosod.types import Status  # noqa: E402

pytestmark = pytest.mark.mongod

URI = "@umscosod/umscosod"
N_IMAGES = 12


def add_run(dataset: Any, field: str = "cosal") -> list[str]:
    """The ground truth as a run's masks; the first sample is the least certain."""
    declare_fields(dataset, field, has_maps=False)
    ids, paths = dataset.values(["id", "ground_truth.mask_path"])
    items = [
        LabelItem(
            sample_id=sample_id,
            mask_path=Path(path),
            map_path=None,
            confidence=(n + 1) / len(ids),
            status=Status.LABELLED,
            reason="",
        )
        for n, (sample_id, path) in enumerate(zip(ids, paths, strict=True))
    ]
    write_labels(dataset, field, field, items, has_maps=False)
    return list(ids)


@pytest.fixture
def dataset(dataset_factory: Any) -> Any:
    return dataset_factory(n_groups=2, n_images=N_IMAGES // 2)


@pytest.fixture
def ids(dataset: Any) -> list[str]:
    return add_run(dataset)


class PanelSession:
    """An open panel: its state lives on from event to event, as the App keeps it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.panel = foo.get_operator(f"{URI}/review_masks")
        self.state: dict[str, Any] = {}
        self.asked: dict[str, Any] = {}

    def send(self, event: str, selected: tuple[str, ...] = (), current_sample: str | None = None, **params: Any) -> Any:
        """Call one event; `asked` then holds what the panel wants of the App."""
        self.dataset.reload()
        executor = Executor()
        request = {
            "dataset_name": self.dataset.name,
            "selected": list(selected),
            "current_sample": current_sample,
            "active_fields": ["cls", "other", "ground_truth", "cosal"],
            "params": {"panel_id": "one", "panel_state": self.state, "__method__": event, **params},
        }
        ctx = ExecutionContext(request, executor=executor, operator_uri=self.panel.uri)
        self.panel.execute(ctx)
        self.state = ctx.panel_state
        self.asked = [
            (each["operator_uri"].rpartition("/")[2], each["params"]) for each in executor.to_json()["requests"]
        ]
        return dict(self.asked)

    @property
    def names(self) -> list[str]:
        return [row["name"] for row in self.state["table"]]


def names_of(dataset: Any, view: Any) -> list[str]:
    return [Path(path).name for path in view.values("filepath")]


def test_the_operator_decides_about_the_open_sample_or_the_view(dataset: Any, ids: list[str]) -> None:
    review = foo.get_operator(f"{URI}/review")
    assert review(dataset.select(ids[:2]), action="accept", field="cosal").result["summary"] == "cosal: 2 accepted"
    ctx = {"dataset": dataset, "current_sample": ids[2], "params": {"action": "reject", "field": "cosal"}}
    assert foo.execute_operator(review.uri, ctx).result["summary"] == "cosal: 1 rejected"
    assert (
        review(dataset.group_by("cls"), action="undo", field="cosal").result["summary"] == f"cosal: {N_IMAGES} undone"
    )
    assert review_counts(dataset, "cosal")["open"] == N_IMAGES


def test_a_wrong_field_is_one_sentence(dataset: Any, ids: list[str]) -> None:
    with pytest.raises(foo.executor.ExecutionError, match="no mask field 'nope' to review"):
        foo.get_operator(f"{URI}/review")(dataset, action="accept", field="nope")


@pytest.mark.parametrize(
    ("name", "state"), [("accept_mask", "accepted"), ("reject_mask", "rejected"), ("send_back_mask", "sent back")]
)
def test_decisions_at_once(dataset: Any, ids: list[str], name: str, state: str) -> None:
    operator = foo.get_operator(f"{URI}/{name}")
    assert operator(dataset, ids=ids[:2]).result["summary"] == f"cosal: 2 {state}"
    # With a sample open, the selection behind it is not meant.
    ctx = {"dataset": dataset, "current_sample": ids[3], "selected": ids[4:6], "params": {}}
    foo.execute_operator(operator.uri, ctx)
    assert [bool(value) for value in dataset.values("cosal_review")[:6]] == [True, True, False, True, False, False]
    assert dataset.count_values("cosal_review")[state] == 3


def test_the_run_under_review_is_remembered(dataset: Any, ids: list[str]) -> None:
    add_run(dataset, "other")
    accept = foo.get_operator(f"{URI}/accept_mask")
    with pytest.raises(foo.executor.ExecutionError, match="unclear which masks are meant"):
        accept(dataset, ids=ids[:1])
    foo.get_operator(f"{URI}/review")(dataset, action="panel", field="other")
    assert accept(dataset, ids=ids[:1]).result["summary"] == "other: 1 accepted"
    assert accept(dataset, ids=ids[:1], field="cosal").result["summary"].startswith("cosal: nothing changed")


def test_the_panel_shows_the_least_certain_first(dataset: Any, ids: list[str]) -> None:
    add_run(dataset, "other")
    session = PanelSession(dataset)
    asked = session.send("on_load")
    expected = names_of(dataset, list_for_review(dataset, "cosal"))
    assert session.names == expected[:10]
    assert session.state["table"][0] | {"id": ""} == {
        "id": "",
        "name": "00.jpg",
        "group": "disk-0",
        "confidence": "0.083",
        "status": "labelled",
        "reason": "",
    }
    assert session.state["counts"] == f"**{N_IMAGES}** open · **0** accepted · **0** rejected · **0** sent back"
    assert asked["set_active_fields"]["fields"] == ["cls", "ground_truth", "cosal"]  # no other run's masks on top
    shown = fo.DatasetView._build(dataset, asked["set_view"]["view"])
    assert shown.values("id") == ids

    session.send("go_on")
    assert session.names == expected[10:]
    session.send("go_on")
    assert session.names == expected[:10]  # from the end it begins again


def test_the_panel_goes_on_to_what_is_left(dataset: Any, ids: list[str]) -> None:
    session = PanelSession(dataset)
    session.send("on_load")
    asked = session.send("accept_selected", selected=(ids[0], ids[2]))
    assert asked["notify"] == {"message": "cosal: 2 accepted", "variant": "success"}
    assert "clear_selected_samples" in asked
    assert [row["id"] for row in session.state["table"]] == [ids[1], *ids[3:]]
    assert fo.DatasetView._build(dataset, asked["set_view"]["view"]).values("id") == [ids[1], *ids[3:]]
    session.send("reject_selected", selected=(ids[1],))
    session.send("send_back_selected", selected=(ids[3],))
    assert review_counts(dataset, "cosal") == {"open": 8, "accepted": 2, "rejected": 1, "sent back": 1}
    session.send("undo_selected", selected=(ids[1],))
    assert session.state["table"][0]["id"] == ids[1]
    asked = session.send("accept_selected")
    assert asked["notify"]["message"] == "Select masks in the grid first"
    foo.get_operator(f"{URI}/accept_mask")(dataset, ids=ids[4:5])
    session.send("on_change_selected")  # a decision made elsewhere
    assert session.state["counts"].startswith("**8** open · **3** accepted")


def test_the_panel_accepts_the_certain_ones_of_the_list(dataset: Any, ids: list[str]) -> None:
    session = PanelSession(dataset)
    session.send("on_load")
    assert session.state["least"] == pytest.approx(0.771, abs=1e-3)  # three quarters of the masks are less certain
    session.state |= {"limit": 0.8, "least": 0.5}
    session.send("change_list")
    assert (len(session.state["table"]), session.state["sure"]) == (9, 4)  # 6/12 to 9/12
    asked = session.send("accept_sure")
    assert asked["notify"]["message"] == "cosal: 4 accepted"
    assert [bool(value) for value in dataset.values("cosal_review")] == [5 <= n <= 8 for n in range(N_IMAGES)]
    session.state["choice"]["kind"] = "all"
    session.send("change_list")
    assert session.state["table"][-1]["status"] == "accepted: labelled"


def test_the_panel_opens_a_mask_and_the_form_for_another_threshold(dataset: Any, ids: list[str]) -> None:
    session = PanelSession(dataset)
    session.send("on_load")
    assert session.send("open_row", row=1)["open_sample"]["id"] == ids[1]
    assert "open_sample" not in session.send("open_row", row=99)
    prompt = session.send("open_refine")["prompt_user_for_operation"]
    assert (prompt["operator_uri"], prompt["params"]) == (f"{URI}/refine", {"source": "cosal"})


def test_the_panel_of_a_data_set_without_masks(dataset: Any) -> None:
    dataset.delete_sample_field("ground_truth")
    session = PanelSession(dataset)
    for event in ("on_load", "on_change_selected", "accept_sure", "go_on", "change_list"):
        session.send(event)
    assert "set_view" not in session.asked
