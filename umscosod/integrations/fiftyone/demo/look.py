"""How the demo's data set looks in the App: saved views, workspaces, colours and what is drawn at first.

Each is made once and then left alone, so that what a user changes stays; only views that list images by name are
made anew when their figures change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fiftyone as fo

from umscosod.integrations.fiftyone.evaluation.comparison_report import Comparison
from umscosod.integrations.fiftyone.review.listing import list_for_review
from umscosod.integrations.fiftyone.runs.look import COLOURS, colour_entry

GROUPS_VIEW, WORST_VIEW = "by-group", "least-certain-first"
COMPARE, REVIEW = "compare", "review"
"""Workspaces."""
SAMPLES_PANEL = "Samples"
COMPARE_PANEL, REVIEW_PANEL = "compare_models", "review_masks"
EVALUATION_PANEL = "model_evaluation_panel_builtin"
_PANEL_SHARE = 0.45  # of the window's width, beside the grid
_TRUTH_COLOUR = "#2ea043"
_WORD_COLOUR = "#57606a"
_OPACITY = 0.6


def save_views(dataset: Any, group_field: str, run: str) -> None:
    """One tile a group, and a run's masks with the least certain first."""
    views = {
        GROUPS_VIEW: (dataset.group_by(group_field), "one tile a group; open it to page through its pictures"),
        WORST_VIEW: (list_for_review(dataset, run), f"masks of {run} that nobody decided about"),
    }
    for name, (view, description) in views.items():
        if not dataset.has_saved_view(name):
            dataset.save_view(name, view, description=description)


def save_comparison_views(dataset: Any, comparison: Comparison, run_a: str, run_b: str) -> None:
    """The images where one run beats the other, largest difference first; none where there is no such image."""
    for side, better, other in (("a", run_a, run_b), ("b", run_b, run_a)):
        name = f"{better}-beats-{other}".replace("_", "-")
        ids = comparison.ids_where("a" if side == "a" else "b")
        if ids:
            description = f"higher {comparison.measure}, largest difference first"
            dataset.save_view(name, dataset.select(ids, ordered=True), description=description, overwrite=True)
        elif dataset.has_saved_view(name):
            dataset.delete_saved_view(name)


def save_workspaces(dataset: Any, *, has_evaluations: bool) -> list[str]:
    """The grid beside the panels: to compare two runs where there are figures, and to review masks."""
    layouts: dict[str, tuple[tuple[str, ...], str]] = {
        REVIEW: ((REVIEW_PANEL,), "look at masks, the least certain first, and decide")
    }
    if has_evaluations:
        layouts[COMPARE] = ((COMPARE_PANEL, EVALUATION_PANEL), "two evaluations side by side")
    for name, (panels, description) in layouts.items():
        if not dataset.has_workspace(name):
            dataset.save_workspace(name, _beside_grid(panels), description=description)
    return list(layouts)


def dress(dataset: Any, *, shown: Sequence[str], runs: Sequence[str], truth: str | None) -> None:
    """Choose what is drawn at first, and colours: one a field, so that runs can be told apart."""
    config = dataset.app_config
    config.active_fields = fo.ActiveFields(paths=list(shown))
    colours = dict(zip(runs, COLOURS, strict=False))
    colours |= {f"{run}_map": colour for run, colour in colours.items()}
    colours |= {path: _WORD_COLOUR for path in shown if path not in colours}
    if truth:
        colours[truth] = _TRUTH_COLOUR
    fields = [colour_entry(path, colour) for path, colour in colours.items()]
    config.color_scheme = fo.ColorScheme(color_by="field", fields=fields, opacity=_OPACITY)
    dataset.save()


def _beside_grid(panels: Sequence[str]) -> Any:
    grid = fo.Panel(type=SAMPLES_PANEL, pinned=True)
    tabs = [fo.Panel(type=name) for name in panels]
    return fo.Space(
        orientation="horizontal",
        children=[
            fo.Space(children=[grid], active_child=grid.component_id),
            fo.Space(children=tabs, active_child=tabs[0].component_id),
        ],
        sizes=[1 - _PANEL_SHARE, _PANEL_SHARE],
    )
