"""Lays out the panel `review_masks`: inputs, buttons and tables, whose events go to the panel."""

from typing import Any

from fiftyone.operators import types

UNDECIDED, ALL = "undecided", "all"
COLUMNS = (
    ("name", "Image"),
    ("group", "Group"),
    ("confidence", "Confidence"),
    ("status", "Status"),
    ("reason", "Reason"),
)
GROUP_COLUMNS = (("group", "Group"), ("open", "Open"), ("confidence", "Mean confidence"))
SLIDER = {"label_position": "top", "value_precision": 2, "value_label_display": "auto"}
FITTING = {"table": {"sx": {"minWidth": 0}}}
"""Lets a table be as narrow as the panel; otherwise it is cut off."""


def add_choices(panel: Any, own: Any, fields: list[str], limit: float) -> None:
    """Add the choice of the run and of the kind of masks."""
    runs, kinds = types.DropdownView(), types.DropdownView()
    for field in fields:
        runs.add_choice(field, label=field)
    kinds.add_choice(UNDECIDED, label="nobody decided about")
    kinds.add_choice(ALL, label="decided or not")
    choice = types.Object()
    choice.enum("run", runs.values(), view=runs, label="Masks of the run", on_change=own.change_list)
    choice.enum("kind", kinds.values(), view=kinds, default=UNDECIDED, label="that", on_change=own.change_list)
    panel.define_property("choice", choice, view=types.GridView(orientation="horizontal", columns=2, gap=2))
    panel.float(
        "limit",
        min=0,
        max=1,
        default=1.0,
        view=types.SliderView(**SLIDER),
        label=f"Show masks with a confidence of at most {limit:.2f}",
        on_change=own.change_list,
    )


def add_decisions(panel: Any, own: Any) -> None:
    """Add the buttons for the selected masks and for the next masks."""
    decisions = panel.h_stack("decisions", gap=1)
    decisions.btn("accept", label="Accept selected", on_click=own.accept_selected, variant="contained")
    decisions.btn("reject", label="Reject selected", on_click=own.reject_selected, variant="outlined")
    decisions.btn("send_back", label="Send back selected", on_click=own.send_back_selected, variant="outlined")
    decisions.btn("undo", label="Undo selected", on_click=own.undo_selected, variant="outlined")
    moves = panel.h_stack("moves", gap=1)
    moves.btn("next", label="Next", on_click=own.go_on, variant="outlined")
    moves.btn("list", label="Back to the list", on_click=own.show_list, variant="outlined")
    moves.btn("refine", label="Masks at another threshold", on_click=own.open_refine, variant="outlined")


def add_switch(panel: Any, own: Any) -> None:
    """Add the switch: whether a decision on the open sample opens the next one."""
    panel.bool(
        "open_next",
        default=True,
        label="Open the next one",
        description="After a decision about the open sample",
        view=types.SwitchView(),
        on_change=own.change_open_next,
    )


def add_sure(panel: Any, own: Any, least: float, count: int) -> None:
    """Add the slider and button that accept `count` masks above a confidence."""
    panel.float(
        "least",
        min=0,
        max=1,
        default=least,
        view=types.SliderView(**SLIDER),
        label=f"Accept all of the list with a confidence of at least {least:.2f}",
        on_change=own.change_least,
    )
    panel.btn(
        "accept_sure",
        label=f"Accept {count} of the list",
        disabled=not count,
        on_click=own.accept_sure,
        variant="outlined",
    )


def add_tables(panel: Any, own: Any) -> None:
    """Add the tables of the next masks and of the groups."""
    _add_table(panel, "table", COLUMNS, "Next masks: click one to see it large", own.open_row)
    _add_table(panel, "groups", GROUP_COLUMNS, "Groups: click one to see its images", own.open_group)


def _add_table(panel: Any, name: str, columns: Any, label: str, on_click: Any) -> None:
    table = types.TableView(componentsProps=FITTING, on_click_row=on_click)
    for column, title in columns:
        table.add_column(column, label=title)
    panel.list(name, types.Object(), view=table, label=label)
