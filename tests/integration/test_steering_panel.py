"""The review panel's buttons for examples, called as the App calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fiftyone")

from tests.integration.panel_session import PanelSession
from tests.integration.test_relabel import label, masks_of
from tests.integration.toy_runs import add_run
from tests.jobs import quick_config

pytestmark = pytest.mark.mongod


@pytest.fixture
def labelled(toy_dataset: Any, tmp_path: Path) -> Any:
    label(toy_dataset, quick_config(tmp_path / "cache"))
    return toy_dataset


def view_of(dataset: Any, asked: dict[str, Any]) -> Any:
    import fiftyone as fo

    return fo.DatasetView._build(dataset, asked["set_view"]["view"])


def test_mark_relabel_toggle_undo(labelled: Any) -> None:
    ids = labelled.values("id")
    first = masks_of(labelled)
    panel = PanelSession(labelled)
    panel.send("on_load")
    assert panel.state["can_steer"]
    assert not panel.state["can_undo"]
    assert panel.send("use_as_example")["notify"]["message"] == "Select masks in the grid first"
    asked = panel.send("relabel_group")
    assert asked["notify"]["message"].startswith("Select a mask of the group")
    asked = panel.send("relabel_group", selected=(ids[0],))
    assert asked["notify"]["message"].startswith("nothing is shown of disk-0")
    asked = panel.send("not_this", selected=(ids[0],))
    assert asked["notify"]["message"] == "cosal: 1 not the object"
    assert "reload_dataset" in asked  # the page must learn the new fields and values
    asked = panel.send("use_as_example", selected=(ids[1],))
    assert asked["set_active_fields"]["fields"][-1] == "cosal_example"
    assert panel.state["shown_text"] == "Group **disk-0**: 1 example, 1 not the object"
    asked = panel.send("relabel_group")  # the group that was marked
    assert "reload_dataset" not in asked
    assert panel.state["outcome"].startswith("**")
    assert "masks changed** in disk-0" in panel.state["outcome"]
    assert panel.state["can_undo"]
    assert masks_of(labelled)[ids[0]] != first[ids[0]]
    again = panel.send("relabel_group")  # the tiles stay where they are, in a view that the App has not shown
    views = [view_of(labelled, each) for each in (asked, again)]
    assert views[0].values("id") == views[1].values("id")
    assert views[0]._serialize()[0]["kwargs"] != views[1]._serialize()[0]["kwargs"]
    shown = panel.send("toggle_before")["set_active_fields"]["fields"]
    assert "cosal_before" in shown
    assert "cosal" not in shown
    shown = panel.send("toggle_before")["set_active_fields"]["fields"]
    assert "cosal" in shown
    assert "cosal_before" not in shown
    panel.send("undo_relabel")
    assert masks_of(labelled) == first
    assert "masks taken back** in disk-0" in panel.state["outcome"]
    assert not panel.state["can_undo"]
    panel.send("forget_example", selected=(ids[0], ids[1]))
    assert panel.state["shown_text"] == "Group **disk-0**: no example"


def test_an_opened_group_is_the_one(labelled: Any) -> None:
    ids = labelled.values("id")
    panel = PanelSession(labelled)
    panel.send("on_load")
    panel.send("not_this", selected=(ids[5],))
    row = [each["group"] for each in panel.state["groups"]].index("square-1")
    panel.send("open_group", row=row)
    assert panel.state["shown_text"] == "Group **square-1**: 1 not the object"
    view = view_of(labelled, panel.send("relabel_group"))
    assert set(view.values("id")) == set(ids[4:])
    assert "masks changed** in square-1" in panel.state["outcome"]


def test_a_run_of_another_program_has_no_such_buttons(dataset_factory: Any) -> None:
    dataset = dataset_factory(n_groups=1, n_images=2)
    add_run(dataset)
    panel = PanelSession(dataset)
    panel.send("on_load")
    assert not panel.state["can_steer"]
