"""The review's operators and panel against a real database, called as the App calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402
from fiftyone.operators.executor import ExecutionContext, Executor  # noqa: E402

from tests.integration.panel_session import URI, PanelSession  # noqa: E402
from tests.integration.toy_runs import add_run  # noqa: E402
from umscosod.integrations.fiftyone.review.listing import list_for_review, review_counts  # noqa: E402

pytestmark = pytest.mark.mongod

N_IMAGES = 12


@pytest.fixture
def dataset(dataset_factory: Any) -> Any:
    return dataset_factory(n_groups=2, n_images=N_IMAGES // 2)


@pytest.fixture
def ids(dataset: Any) -> list[str]:
    return add_run(dataset)


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
    assert asked["set_active_fields"]["fields"] == ["cls", "cosal", "cosal_confidence"]  # no other masks on top
    shown = fo.DatasetView._build(dataset, asked["set_view"]["view"])
    assert shown.values("id") == ids

    session.send("go_on")
    assert session.names == expected[10:]
    session.send("go_on")
    assert session.names == expected[:10]  # from the end it begins again


def test_the_panel_opens_with_the_run_that_the_form_asks_for(dataset: Any, ids: list[str]) -> None:
    add_run(dataset, "other")
    review, session = foo.get_operator(f"{URI}/review"), PanelSession(dataset)
    review(dataset, action="panel", field="other")
    session.send("on_load")  # the grid draws `cosal`
    assert session.state["choice"]["run"] == "other"
    session.state |= {"limit": 0.1}
    session.send("on_load")
    assert (session.state["choice"]["run"], session.state["limit"]) == ("other", 0.1)  # as before
    review(dataset, action="panel", field="cosal")
    session.send("on_load")  # one that is open is asked to look again
    assert (session.state["choice"]["run"], session.state["limit"]) == ("cosal", 1.0)
    assert len(session.names) == 10


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
    add_run(dataset, "newer")  # while the page is open
    session.state["choice"]["run"] = "newer"
    session.send("change_list")
    asked = session.send("open_row", row=1)
    assert "open_sample" not in asked  # it would show another run's mask
    assert "by its tile" in asked["notify"]["message"]
    asked = session.send("on_change_current_sample", current_sample=ids[1])
    assert asked["notify"]["message"] == "disk-0 · 0.167 · labelled"
    assert session.send("open_row", row=1)["open_sample"]["id"] == ids[1]
    session.state["choice"]["run"] = "cosal"
    assert "open_sample" not in session.send("open_row", row=99)
    prompt = session.send("open_refine")["prompt_user_for_operation"]
    assert (prompt["operator_uri"], prompt["params"]) == (f"{URI}/refine", {"source": "cosal"})


def test_the_panel_of_a_data_set_without_masks(dataset: Any) -> None:
    dataset.delete_sample_field("ground_truth")
    session = PanelSession(dataset)
    for event in ("on_load", "on_change_selected", "accept_sure", "go_on", "change_list"):
        session.send(event)
    assert "set_view" not in session.asked


def test_the_list_lies_within_the_users_view_and_gives_it_back(dataset: Any, ids: list[str]) -> None:
    session = PanelSession(dataset)
    mine = dataset.match({"cls": "square-1"})
    asked = session.send("on_load", view=mine)
    own = fo.DatasetView._build(dataset, asked["set_view"]["view"])
    assert own.values("id") == ids[6:]
    assert session.state["counts"].startswith("**6** open")
    assert [row["group"] for row in session.state["groups"]] == ["square-1"]
    assert "set_view" not in session.send("on_change_view", view=own)  # that is ours
    asked = session.send("on_change_view", view=dataset.select(ids[2:4]))  # the user's own
    own = fo.DatasetView._build(dataset, asked["set_view"]["view"])
    assert own.values("id") == ids[2:4]
    asked = session.send("on_unload", view=own)
    assert fo.DatasetView._build(dataset, asked["set_view"]["view"]).values("id") == ids[2:4]


def test_without_a_view_of_his_own_the_user_gets_the_whole_data_set_back(dataset: Any, ids: list[str]) -> None:
    session = PanelSession(dataset)
    asked = session.send("on_load")
    assert "clear_view" in session.send("on_unload", view=fo.DatasetView._build(dataset, asked["set_view"]["view"]))
    assert "clear_view" not in session.send("on_unload", view=dataset.limit(1))  # the user's own
    dataset.save_view("disks", dataset.match({"cls": "disk-0"}))
    asked = session.send("on_load", view_name="disks")
    assert session.names == [f"0{n}.jpg" for n in range(6)]
    own = fo.DatasetView._build(dataset, asked["set_view"]["view"])
    assert "set_view" not in session.send("on_change_view", view=own, view_name="disks")  # told late
    assert session.send("on_unload", view=own)["set_view"]["name"] == "disks"


def test_side_bar_filters_narrow_the_table(dataset: Any, ids: list[str]) -> None:
    session = PanelSession(dataset)
    filters = {"cls": {"values": ["square-1"], "exclude": False, "isMatching": True}}
    asked = session.send("on_load", filters=filters)
    assert [row["id"] for row in session.state["table"]] == ids[6:]
    assert len(fo.DatasetView._build(dataset, asked["set_view"]["view"])) == N_IMAGES  # the App filters by itself


def test_a_group_is_shown_whole(dataset: Any, ids: list[str]) -> None:
    foo.get_operator(f"{URI}/reject_mask")(dataset, ids=ids[:5])
    session = PanelSession(dataset)
    session.send("on_load")
    assert session.state["groups"] == [
        {"group": "disk-0", "open": "1 of 6", "confidence": "0.292"},
        {"group": "square-1", "open": "6 of 6", "confidence": "0.792"},
    ]
    shown = fo.DatasetView._build(dataset, session.send("open_group", row=0)["set_view"]["view"])
    assert shown.values("id") == ids[:6]


def test_the_next_undecided_mask_opens(dataset: Any, ids: list[str]) -> None:
    session = PanelSession(dataset)
    session.send("on_load")
    reject = foo.get_operator(f"{URI}/reject_mask")

    def opened_after(sample_id: str) -> list[tuple[str, Any]]:
        executor = Executor()
        request = {"dataset_name": dataset.name, "current_sample": sample_id, "params": {}}
        reject.execute(ExecutionContext(request, executor=executor, operator_uri=reject.uri))
        asked = [(each["operator_uri"].rpartition("/")[2], each["params"]) for each in executor.to_json()["requests"]]
        return [each for each in asked if each[0] in ("open_sample", "close_sample")]

    assert opened_after(ids[3])[0][1]["id"] == ids[4]
    assert opened_after(ids[-1])[0][1]["id"] == ids[0], "after the last comes the first"
    session.send("change_open_next", value=False)
    assert opened_after(ids[5]) == []
    session.send("change_open_next", value=True)
    reject(dataset, ids=ids[1:])
    assert [name for name, _ in opened_after(ids[0])] == ["close_sample"], "none is left"
