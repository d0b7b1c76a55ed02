"""How runs look in the App: what is drawn, in which colour, and what lies in a group of its own."""

from __future__ import annotations

from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from tests.integration.toy_runs import add_run  # noqa: E402
from umscosod.integrations.fiftyone.runs.fields import (  # noqa: E402
    declare_fields,
    field_names,
    remove_sidebar_group,
)

pytestmark = pytest.mark.mongod


def groups_of(dataset: Any) -> dict[str, Any]:
    return {group.name: group for group in dataset.app_config.sidebar_groups or []}


def test_only_the_newest_run_is_drawn(toy_dataset: Any) -> None:
    add_run(toy_dataset, "first")
    add_run(toy_dataset, "second")
    assert toy_dataset.app_config.active_fields.paths == ["second", "second_confidence"]
    for run in ("first", "second"):
        assert groups_of(toy_dataset)[run].paths == [
            f"{run}_confidence",
            f"{run}_status",
            f"{run}_reason",
            f"{run}_review",
        ]
        assert not groups_of(toy_dataset)[run].expanded


def test_runs_have_colours_and_a_users_stays(toy_dataset: Any) -> None:
    mine = {"path": "second", "fieldColor": "#123456"}
    toy_dataset.app_config.color_scheme = fo.ColorScheme(color_by="value", fields=[mine])
    toy_dataset.save()
    for run in ("first", "second", "third"):
        add_run(toy_dataset, run)
    scheme = toy_dataset.app_config.color_scheme
    colours = {entry["path"]: entry["fieldColor"] for entry in scheme.fields}
    assert (scheme.color_by, scheme.fields[0]) == ("value", mine)
    assert len({colours["first"], colours["second"], colours["third"]}) == 3


def test_what_a_user_changed_stays(toy_dataset: Any) -> None:
    add_run(toy_dataset)
    config = toy_dataset.app_config
    config.active_fields.paths = ["cls"]
    groups_of(toy_dataset)["cosal"].expanded = True
    toy_dataset.save()
    declare_fields(toy_dataset, "cosal", has_maps=False)  # as the next part of the run does
    assert config.active_fields.paths == ["cls"]
    assert groups_of(toy_dataset)["cosal"].expanded


def test_a_run_that_goes_takes_its_group_along(toy_dataset: Any) -> None:
    add_run(toy_dataset)
    toy_dataset.delete_sample_fields(field_names("cosal", has_maps=False))
    remove_sidebar_group(toy_dataset, "cosal")
    assert "cosal" not in groups_of(toy_dataset)
    remove_sidebar_group(toy_dataset, "cosal")  # again is no error
