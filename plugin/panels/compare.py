"""Defines the panel `compare_models`: compares two evaluations, and shows images where one is better in the grid."""

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from umscosod.errors import UmscosodError
from umscosod.integrations.fiftyone.evaluation.method import WORDS
from umscosod.integrations.fiftyone.runs.jobs import flat_images

from ..operators.evaluate import PANEL, STORE
from .base import BasePanel
from .own_view import base_view, note_base, restore_base, show_own

BUILT_IN = "model_evaluation_panel_builtin"
LAYOUT = {"orientation": "vertical", "gap": 2, "px": 2, "py": 2}
WIDTH = 95
"""Width of a table in per cent of the panel; with a larger width the margin pushes the right edge out of the panel."""
FITTING = {"table": {"sx": {"minWidth": 0}}}
"""Lets a table be as narrow as the panel; otherwise its last column is cut off."""
COLOUR_A, COLOUR_B, COLOUR_EQUAL = "#4c9be8", "#f0883e", "#8b949e"
"""Blue and orange: colour-blind people can distinguish them."""
ROWS_SHOWN = 100
"""Groups in the table; more rows are slow and hard to read."""
HELP = """Two evaluations made by `evaluate`, side by side.

A **gain** is how much better A is than B, whatever the measure: above 0 A is better, below 0 B.

Click on a bar, or a button, to see these images in the grid, largest difference first."""
TOO_FEW = """### Two evaluations are needed
Run **UMS-CoSOD: evaluate against ground truth** (button *Evaluate* above the grid) on two runs, or on one run's masks
and its soft maps. Then press *Look again*."""


class CompareModels(BasePanel):
    """Compares two evaluations by a measure: scores, groups, images and curves."""

    @property
    def config(self) -> Any:
        """Name and place; if the category were a plain string, every operator would disappear."""
        return foo.PanelConfig(
            name=PANEL,
            label="UMS-CoSOD: compare models",
            icon="compare",
            surfaces="grid",
            category=foo.Categories.ANALYZE,
            help_markdown=HELP,
        )

    def on_load(self, ctx: Any) -> None:
        """Load the request of the operator `compare`, or the last choice, else the two newest evaluations."""
        if ctx.dataset is not None:
            note_base(ctx)
        keys, wanted = _keys(ctx), _take_wanted(ctx)
        newest = keys[-2:] if len(keys) > 1 else (None, None)
        for name, default in zip(("a", "b"), newest, strict=True):
            chosen = wanted.get(name) or _choice(ctx, name)
            ctx.panel.set_state(f"choice.{name}", chosen if chosen in keys else default)
        measure: Any = wanted.get("measure") or _choice(ctx, "measure")
        ctx.panel.set_state("choice.measure", measure if measure in WORDS else "iou")
        self._update(ctx)
        self._begin_drawing(ctx)

    def on_change_dataset(self, ctx: Any) -> None:
        """Reset: evaluations belong to a data set."""
        self.on_load(ctx)

    def on_change_view(self, ctx: Any) -> None:
        """Store the view that the user chose while the panel is open, to restore it later."""
        if ctx.dataset is not None:
            note_base(ctx)

    def on_unload(self, ctx: Any) -> None:
        """Restore the view of the grid."""
        if ctx.dataset is not None:
            restore_base(ctx)

    def change(self, ctx: Any) -> None:
        """Update after another evaluation or measure was chosen."""
        self._update(ctx)
        self.draw(ctx)

    def show_a(self, ctx: Any) -> None:
        """Filter the grid to the images where A is better."""
        self._show(ctx, lambda found: found.ids_where("a"), "A is better in no image")

    def show_b(self, ctx: Any) -> None:
        """Filter the grid to the images where B is better."""
        self._show(ctx, lambda found: found.ids_where("b"), "B is better in no image")

    def show_base(self, ctx: Any) -> None:
        """Restore the user's view."""
        restore_base(ctx)

    def draw(self, ctx: Any) -> None:
        """Draw the ticked masks and no others: overlapping masks cannot be distinguished.

        The App also sends this event for each box that it draws first; the drawn masks then stay.
        """
        fields = _drawable(ctx)
        drawn = [name for side, name in fields.items() if ctx.panel.get_state(f"draw.{side}")]
        if not fields or drawn == ctx.panel.get_state("drawn"):
            return
        ctx.panel.set_state("drawn", drawn)
        kinds = (fo.Segmentation, fo.Heatmap, fo.Detections)
        masks = {name for kind in kinds for name in ctx.dataset.get_field_schema(embedded_doc_type=kind)}
        rest = [name for name in (getattr(ctx, "active_fields", None) or []) if name not in masks]
        ctx.ops.set_active_fields(list(dict.fromkeys([*rest, *drawn])))

    def show_bar(self, ctx: Any) -> None:
        """Filter the grid to the images of a bar of the histogram."""
        place = ctx.params.get("idx")
        if isinstance(place, int):
            self._show(ctx, lambda found: _ids_of_bar(found, place), "no image has a gain in that bar")

    def open_built_in(self, ctx: Any) -> None:
        """Open FiftyOne's own panel: classes, confusion matrix, scenarios."""
        ctx.ops.open_panel(BUILT_IN, layout="horizontal", is_active=True)

    def _begin_drawing(self, ctx: Any) -> None:
        """Tick the drawn masks, or A if the grid draws neither of the two nor the ground truth."""
        active, fields = getattr(ctx, "active_fields", None) or [], _drawable(ctx)
        ticked = {side: name in active for side, name in fields.items()}
        ctx.panel.set_state("draw", ticked if any(ticked.values()) else {**ticked, "a": True})
        ctx.panel.set_state("drawn", [name for side, name in fields.items() if ticked[side]])
        self.draw(ctx)

    def _compare(self, ctx: Any) -> Any:
        """Compare the chosen evaluations; on failure return None, and put the reason into the state."""
        from umscosod.integrations.fiftyone import compare_dataset

        measure: Any = _choice(ctx, "measure") or "iou"
        try:
            found = compare_dataset(ctx.dataset, _choice(ctx, "a"), _choice(ctx, "b"), measure=measure)
        except UmscosodError as error:
            ctx.panel.set_state("problem", str(error))
            return None
        ctx.panel.set_state("problem", "")
        return found

    def _update(self, ctx: Any) -> None:
        """Compute the contents and put them into the state and data that `render` lays out."""
        if len(_keys(ctx)) < 2:
            return
        found = self._compare(ctx)
        if found is None:
            return
        ctx.panel.set_state(
            {
                "words": _words(found),
                "table": found.table(),
                "groups": [_group_cells(row) for row in found.groups[:ROWS_SHOWN]],
            }
        )
        ctx.panel.set_data({"gains": _bars(found), "f_curves": _f_curves(found), "pr_curves": _pr_curves(found)})

    def _show(self, ctx: Any, choose: Any, otherwise: str) -> None:
        """Show chosen images of the user's view in the grid."""
        found = self._compare(ctx)
        if found is None:
            ctx.ops.notify(ctx.panel.get_state("problem"), variant="error")
            return
        ids = choose(found)
        if ids:
            show_own(ctx, flat_images(base_view(ctx)).select(ids, ordered=True))
        else:
            ctx.ops.notify(otherwise, variant="info")

    def render(self, ctx: Any) -> Any:
        """Lay out the panel."""
        panel = types.Object()
        keys = _keys(ctx)
        if len(keys) < 2:
            panel.md(TOO_FEW + _about_others(ctx), name="too_few")
            panel.btn("again", label="Look again", on_click=self.on_load, variant="contained")
            return types.Property(panel, view=types.GridView(**LAYOUT))
        _add_choices(panel, self, keys)
        problem = ctx.panel.get_state("problem")
        if problem:
            panel.md(f"**{problem}**", name="problem_text")
            return types.Property(panel, view=types.GridView(**LAYOUT))
        panel.md(ctx.panel.get_state("words") or "", name="words_text")
        buttons = panel.h_stack("buttons", gap=1)
        buttons.btn("show_a", label="Where A beats B", on_click=self.show_a, variant="contained")
        buttons.btn("show_b", label="Where B beats A", on_click=self.show_b, variant="contained")
        buttons.btn("show_base", label="Back to your view", on_click=self.show_base, variant="outlined")
        buttons.btn("built_in", label="Model Evaluation", on_click=self.open_built_in, variant="outlined")
        _add_drawing(panel, self, ctx)
        measure: Any = _choice(ctx, "measure")
        _add_figures(panel, self, WORDS.get(measure, ""))
        return types.Property(panel, view=types.GridView(**LAYOUT))


def _take_wanted(ctx: Any) -> dict[str, str]:
    """Return once the request that the operator `compare` stored for this panel."""
    if ctx.dataset is None:
        return {}
    store = ctx.store(STORE)
    wanted = store.get("choice")
    if not wanted:
        return {}
    store.delete("choice")
    return dict(wanted)


def _keys(ctx: Any) -> list[str]:
    """Return the evaluations that can be compared, the newest last."""
    from umscosod.integrations.fiftyone import comparable_evaluations

    return comparable_evaluations(ctx.dataset)[0] if ctx.dataset is not None else []


def _about_others(ctx: Any) -> str:
    """Name the evaluations that the panel omits."""
    from umscosod.integrations.fiftyone import comparable_evaluations

    others = comparable_evaluations(ctx.dataset)[1] if ctx.dataset is not None else []
    if not others:
        return ""
    return f"\n\nMade by another method, so without these measures: {', '.join(others)}."


def _choice(ctx: Any, name: str) -> str:
    return str(ctx.panel.get_state(f"choice.{name}") or "")


def _drawable(ctx: Any) -> dict[str, str]:
    """Return the fields to draw: the masks of A and B, and the ground truth of A; none if a field is missing."""
    if not {_choice(ctx, "a"), _choice(ctx, "b")} <= set(_keys(ctx)):
        return {}
    a, b = (ctx.dataset.get_evaluation_info(_choice(ctx, side)).config for side in ("a", "b"))
    return {"a": a.pred_field, "b": b.pred_field, "truth": a.gt_field}


def _add_drawing(panel: Any, own: CompareModels, ctx: Any) -> None:
    labels = {"a": "Show A", "b": "Show B", "truth": "Show ground truth"}
    draw = types.Object()
    for side, field in _drawable(ctx).items():
        label = f"{labels[side]} ({field})"
        # The default is the state: the App replaces the state by it when it first draws a box.
        is_ticked = bool(ctx.panel.get_state(f"draw.{side}"))
        draw.bool(side, default=is_ticked, label=label, view=types.CheckboxView(), on_change=own.draw)
    panel.define_property("draw", draw, view=types.GridView(orientation="horizontal", columns=3, gap=2))


def _add_choices(panel: Any, own: CompareModels, keys: list[str]) -> None:
    choice = types.Object()
    for name in ("a", "b"):
        choices = types.DropdownView()
        for key in keys:
            choices.add_choice(key, label=key)
        choice.enum(name, choices.values(), view=choices, label=f"Evaluation {name.upper()}", on_change=own.change)
    measures = types.DropdownView()
    for measure, label in WORDS.items():
        measures.add_choice(measure, label=label)
    choice.enum("measure", measures.values(), view=measures, label="Measure", on_change=own.change)
    panel.define_property("choice", choice, view=types.GridView(orientation="horizontal", columns=3, gap=2))


def _add_figures(panel: Any, own: CompareModels, measure: str) -> None:
    """Add tables and plots; their contents are in the panel's state and data."""
    _add_table(panel, "table", "All images", (("measure", "Measure"), ("a", "A"), ("b", "B"), ("gain", "Gain of A")))
    layout = _layout(f"Images by gain of A over B: {measure}", "B is better  ←  gain  →  A is better", "images")
    panel.plot("gains", layout={**layout, "bargap": 0.05, "showlegend": False}, on_click=own.show_bar)
    columns = (("group", "Group"), ("n", "Images"), ("a", "A"), ("b", "B"), ("gain", "Gain of A"))
    _add_table(panel, "groups", f"Groups: {measure}", columns)
    panel.plot("f_curves", layout=_layout("F-measure over thresholds (mean over images)", "threshold", "F"))
    panel.plot("pr_curves", layout=_layout("Precision over recall (mean over images)", "recall", "precision"))


def _add_table(panel: Any, name: str, label: str, columns: tuple[tuple[str, str], ...]) -> None:
    table = types.TableView(width=WIDTH, componentsProps=FITTING)
    for column, title in columns:
        table.add_column(column, label=title)
    panel.list(name, types.Object(), view=table, label=label)


def _layout(title: str, x: str, y: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "font": {"size": 15}, "y": 0.97, "yanchor": "top"},
        "height": 330,
        "margin": {"t": 70, "l": 60, "r": 20, "b": 60},  # without "t" the title is clipped
        "xaxis": {"title": {"text": x}, "automargin": True},
        "yaxis": {"title": {"text": y}, "automargin": True},
        "showlegend": True,  # the App hides it otherwise
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
    }


def _words(found: Any) -> str:
    """Return the headline of the panel."""
    text = (
        f"Of **{found.n}** images **A** is better in **{found.n_a_better}**, **B** in **{found.n_b_better}**, "
        f"{found.n_equal} are equal. Definition of the measures: {found.definition}."
    )
    return "\n\n".join([text, *(f"Mind: {note}." for note in found.notes)])


def _group_cells(row: Any) -> dict[str, str]:
    """Return one row of the table; its cells are text."""
    images = str(row.n_a) if row.n_a == row.n_b else f"{row.n_a} / {row.n_b}"
    figures = {name: "" if value is None else f"{value:.4f}" for name, value in (("a", row.a), ("b", row.b))}
    return {"group": row.group, "n": images, **figures, "gain": "" if row.gain is None else f"{row.gain:+.4f}"}


def _bars(found: Any) -> list[dict[str, Any]]:
    """Return the histogram of gains as one trace, so that a click identifies its bar."""
    edges, counts = found.histogram()
    middle = len(counts) // 2
    colours = [COLOUR_B if i < middle else COLOUR_A if i > middle else COLOUR_EQUAL for i in range(len(counts))]
    centres = ((edges[:-1] + edges[1:]) / 2).tolist()
    return [
        {
            "type": "bar",
            "x": centres,
            "y": counts.tolist(),
            "marker": {"color": colours},
            "hovertemplate": "gain %{x:+.3f}: %{y} images<extra></extra>",
        }
    ]


def _ids_of_bar(found: Any, place: int) -> list[str]:
    edges, counts = found.histogram()
    return found.ids_between(edges[place], edges[place + 1]) if 0 <= place < len(counts) else []


def _f_curves(found: Any) -> list[dict[str, Any]]:
    sides = (("A", found.eval_a, found.curves_a, COLOUR_A), ("B", found.eval_b, found.curves_b, COLOUR_B))
    return [_line(f"{side}: {key}", curves.thresholds_T, curves.f_T, colour) for side, key, curves, colour in sides]


def _pr_curves(found: Any) -> list[dict[str, Any]]:
    sides = (("A", found.eval_a, found.curves_a, COLOUR_A), ("B", found.eval_b, found.curves_b, COLOUR_B))
    return [_line(f"{side}: {key}", curves.recall_T, curves.precision_T, colour) for side, key, curves, colour in sides]


def _line(name: str, x: Any, y: Any, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [round(float(value), 5) for value in x],
        "y": [round(float(value), 5) for value in y],
        "line": {"color": colour, "width": 2},
    }
