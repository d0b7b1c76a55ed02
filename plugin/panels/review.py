"""Defines the panel `review_masks`: a run's masks in the grid, lowest confidence first, and buttons to decide."""

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from umscosod.errors import UmscosodError
from umscosod.integrations.fiftyone.review.listing import list_review_fields

from ..operators.review import (
    PANEL,
    STORE,
    STORED_FOR_S,
    decide,
    guess_field,
    looked_at,
    opens_next,
    remember_field,
    take_wanted,
)
from .base import BasePanel
from .own_view import base_view, note_base, restore_base, show_own, shown_view
from .review_layout import ALL, UNDECIDED, add_choices, add_decisions, add_sure, add_switch, add_tables
from .steering import SteeringButtons, add_steering

PAGE = 10
"""Masks in the table, and the step of Next."""
SURE = 0.75
"""Quantile of the confidences of undecided masks at which the slider of `accept_sure` begins."""
OPEN_TILE = "Open the first mask by its tile in the grid: the page may be older than this run, and not draw its masks"
"""On a sample that a panel opens, the App draws only fields known when the page was loaded or a tile was opened."""
LAYOUT = {"orientation": "vertical", "columns": 1, "gap": 2, "px": 2, "py": 2}
HELP = """Masks of a run, the least certain first; empty and failed images are among them.

Accepted masks are copied into the field `reviewed`: no run writes there, and training can use them. Rejected samples
are left out of training and left alone by later runs. Samples sent back are done again by the next run of the field.

Put a group right: tick a mask that is right and press *Use as example* (this accepts it), or a wrong one and press *Not
this*. *Relabel this group* corrects the other masks in seconds; a person's stay. *Undo relabelling* takes it back.

By keyboard: press backtick, type `accept_mask`, `reject_mask` or `send_back_mask`, Enter. They act on the open sample,
else on the selection."""


class ReviewMasks(SteeringButtons, BasePanel):
    """Shows the worst masks of a run and records decisions on them."""

    @property
    def config(self) -> Any:
        """Name and place; if the category were a plain string, every operator would disappear."""
        return foo.PanelConfig(
            name=PANEL,
            label="UMS-CoSOD: review masks",
            icon="rate_review",
            surfaces="grid",
            category=foo.Categories.CURATE,
            help_markdown=HELP,
        )

    def on_load(self, ctx: Any) -> None:
        """Load the requested run, the last chosen or the shown one; the list lies within the view in the grid."""
        if ctx.dataset is None:
            return
        note_base(ctx)
        ctx.panel.set_state("open_next", opens_next(ctx))
        fields, wanted = _fields(ctx), take_wanted(ctx)
        if wanted in fields:  # all of its masks, even if the grid shows a list of another run
            ctx.panel.set_state({"choice.run": wanted, "choice.kind": UNDECIDED, "limit": 1.0})
        elif _run(ctx) not in fields:
            guessed = guess_field(ctx) if fields else ""
            ctx.panel.set_state("choice.run", guessed or (fields[0] if fields else None))
        self._start(ctx)

    def on_change_dataset(self, ctx: Any) -> None:
        """Reset: runs belong to a data set."""
        self.on_load(ctx)

    def on_unload(self, ctx: Any) -> None:
        """Restore the view of the grid."""
        if ctx.dataset is not None:
            restore_base(ctx)

    def on_change_view(self, ctx: Any) -> None:
        """Restrict the list to the view that the user chose while the panel is open."""
        if ctx.dataset is not None and note_base(ctx):
            self._start(ctx)

    def on_change_selected(self, ctx: Any) -> None:
        """Update the counts: a decision made without the panel ends with an empty selection."""
        self._refresh(ctx)
        self._tell(ctx)

    def on_change_current_sample(self, ctx: Any) -> None:
        """Draw the run's mask on the open sample; update the counts, as the sample may have been decided."""
        if ctx.current_sample and _run(ctx):
            ctx.panel.state.drawn = _run(ctx)  # opened by its tile, or the page already knew the run
            self._say_why(ctx)
        self._refresh(ctx)

    def _say_why(self, ctx: Any) -> None:
        """Show above the open sample the confidence of the run and its reason."""
        from umscosod.integrations.fiftyone.review.listing import read_review_items

        if _run(ctx) not in _fields(ctx):
            return
        for item in read_review_items(ctx.dataset.select(ctx.current_sample), _run(ctx), limit=1):
            words = (_cells(item)[name] for name in ("group", "confidence", "status", "reason"))
            ctx.ops.notify(" · ".join(word for word in words if word), variant="info")

    def change_open_next(self, ctx: Any) -> None:
        """Store whether the buttons beside an open sample open the next one."""
        ctx.store(STORE).set("open_next", bool(ctx.params.get("value")), ttl=STORED_FOR_S)

    def change_list(self, ctx: Any) -> None:
        """Update after a change of run, limit or list; the App also sends this event for each input it draws first."""
        if ctx.panel.state.listed != _chosen(ctx):
            self._start(ctx)

    def go_on(self, ctx: Any) -> None:
        """Skip the masks of the table; after the end the list begins again."""
        ctx.panel.state.passed = int(ctx.panel.state.passed or 0) + PAGE
        self._show(ctx)

    def accept_selected(self, ctx: Any) -> None:
        """Accept the selected masks."""
        self._decide_selected(ctx, "accept")

    def reject_selected(self, ctx: Any) -> None:
        """Reject the selected masks."""
        self._decide_selected(ctx, "reject")

    def send_back_selected(self, ctx: Any) -> None:
        """Send back the selected masks."""
        self._decide_selected(ctx, "send_back")

    def undo_selected(self, ctx: Any) -> None:
        """Undo the decisions on the selected masks."""
        self._decide_selected(ctx, "undo")

    def accept_sure(self, ctx: Any) -> None:
        """Accept all masks of the list with at least the slider's confidence."""
        if _run(ctx):
            self._decide(ctx, "accept", _sure(ctx, _list(ctx, shown_view(ctx))))

    def change_least(self, ctx: Any) -> None:
        """Show how many masks would be accepted."""
        self._refresh(ctx)

    def open_row(self, ctx: Any) -> None:
        """Open the image of a mask of the table."""
        rows, row = ctx.panel.state.table or [], ctx.params.get("row")
        if not isinstance(row, int) or row >= len(rows):
            return
        if ctx.panel.state.drawn != _run(ctx):
            ctx.ops.notify(OPEN_TILE, variant="warning")
            return
        ctx.ops.open_sample(id=rows[row]["id"])

    def open_group(self, ctx: Any) -> None:
        """Show all images of a group, decided or not, to judge its masks side by side."""
        from umscosod.integrations.fiftyone.review.listing import list_group

        rows, row = ctx.panel.state.groups or [], ctx.params.get("row")
        if isinstance(row, int) and row < len(rows):
            view = list_group(base_view(ctx), _run(ctx), rows[row]["group"])
            show_own(ctx, view)
            self._open_steering(ctx, view.values("id"))

    def show_list(self, ctx: Any) -> None:
        """Return from a group to the list."""
        ctx.panel.state.opened_group = ""
        self._show(ctx)

    def open_refine(self, ctx: Any) -> None:
        """Open the form that makes masks with another threshold from the stored soft maps."""
        ctx.prompt(f"{self.plugin_name}/refine", params={"source": _run(ctx)})

    def _start(self, ctx: Any) -> None:
        """Show the list from its first mask."""
        is_same_run, ctx.panel.state.listed = (ctx.panel.state.listed or [""])[0] == _run(ctx), _chosen(ctx)
        if not is_same_run and _run(ctx) in (getattr(ctx, "active_fields", None) or []):
            ctx.panel.state.drawn = _run(ctx)  # before the grid's fields are read again: the page knows the run
        ctx.panel.state.passed = 0
        if _run(ctx):
            remember_field(ctx, _run(ctx))
            _show_only(ctx, _run(ctx))
            self._begin_sure(ctx)
        self._begin_steering(ctx)
        self._show(ctx)

    def _begin_sure(self, ctx: Any) -> None:
        """Set the slider of `accept_sure` by a quantile of the run: confidences differ from run to run."""
        from umscosod.integrations.fiftyone.review.listing import undecided_quantile

        if ctx.panel.state.least_of == _run(ctx) or not _fields(ctx):
            return
        ctx.panel.state.least_of = _run(ctx)
        ctx.panel.state.least = undecided_quantile(ctx.dataset, _run(ctx), SURE)

    def _decide_selected(self, ctx: Any, verb: str) -> None:
        ids = looked_at(ctx)
        if not ids:
            ctx.ops.notify("Select masks in the grid first", variant="warning")
        elif _run(ctx):
            self._decide(ctx, verb, ctx.dataset, ids=ids)

    def _decide(self, ctx: Any, verb: str, samples: Any, **options: Any) -> None:
        """Record the decision, report it, and show the remaining masks."""
        try:
            report = decide(samples, verb, _run(ctx), **options)
        except UmscosodError as error:
            ctx.ops.notify(str(error), variant="error")
            return
        ctx.ops.notify(report.summary, variant="success" if report.is_success else "warning")
        ctx.ops.clear_selected_samples()
        self._show(ctx)

    def _show(self, ctx: Any) -> None:
        """Show the list in the grid and its first masks in the table."""
        view = self._refresh(ctx)
        if view is not None:
            show_own(ctx, view)

    def _refresh(self, ctx: Any) -> Any:
        """Read counts and tables again; return the rest of the list, None without a run."""
        from umscosod.integrations.fiftyone.review.listing import read_review_items, review_counts, review_groups

        run = _run(ctx)
        if run not in _fields(ctx):
            return None
        within = shown_view(ctx)
        try:
            view = _list(ctx, within)
        except UmscosodError as error:  # the user's view omits the field
            ctx.panel.state.counts = f"**{error}**"
            ctx.panel.state.table, ctx.panel.state.groups, ctx.panel.state.sure = [], [], 0
            return None
        passed = int(ctx.panel.state.passed or 0)
        left = view.skip(passed) if passed else view
        items = read_review_items(left, run, limit=PAGE)
        if not items and passed:  # the end: begin again
            passed = ctx.panel.state.passed = 0
            items = read_review_items(view, run, limit=PAGE)
        counts = review_counts(within, run)
        ctx.panel.state.counts = " · ".join(f"**{count}** {word}" for word, count in counts.items())
        ctx.panel.state.sure = len(_sure(ctx, view))
        ctx.panel.state.table = [_cells(item) for item in items]
        ctx.panel.state.groups = [_group_cells(group) for group in review_groups(within, run)]
        return left if passed else _list(ctx, base_view(ctx))  # the App adds the side bar's filters itself

    def render(self, ctx: Any) -> Any:
        """Lay out the panel."""
        panel = types.Object()
        fields = _fields(ctx)
        if not fields:
            panel.md("### Nothing to review yet\nRun *label* or *predict* first: it writes a mask field.", name="none")
            return types.Property(panel, view=types.GridView(**LAYOUT))
        add_choices(panel, self, fields, _limit(ctx))
        panel.md(ctx.panel.state.counts or "", name="counts_text")
        add_decisions(panel, self)
        if ctx.panel.state.can_steer:
            add_steering(panel, self, ctx)
        add_switch(panel, self)
        add_tables(panel, self)
        add_sure(panel, self, _least(ctx), ctx.panel.state.sure or 0)
        return types.Property(panel, view=types.GridView(**LAYOUT))


def _fields(ctx: Any) -> list[str]:
    return list_review_fields(ctx.dataset) if ctx.dataset is not None else []


def _run(ctx: Any) -> str:
    return str(ctx.panel.get_state("choice.run") or "")


def _list(ctx: Any, within: Any) -> Any:
    from umscosod.integrations.fiftyone.review.listing import list_for_review

    return list_for_review(
        within,
        _run(ctx),
        max_confidence=_limit(ctx) if _limit(ctx) < 1 else None,
        include_reviewed=ctx.panel.get_state("choice.kind") == ALL,
    )


def _sure(ctx: Any, view: Any) -> Any:
    """Return the masks of a list that `accept_sure` would accept."""
    from umscosod.integrations.fiftyone.review.listing import list_certain

    return list_certain(view, _run(ctx), _least(ctx))


def _chosen(ctx: Any) -> list[Any]:
    """Return the values that the list depends on."""
    return [_run(ctx), ctx.panel.get_state("choice.kind") or UNDECIDED, _limit(ctx)]


def _limit(ctx: Any) -> float:
    return _number(ctx.panel.state.limit, 1.0)


def _least(ctx: Any) -> float:
    return _number(ctx.panel.state.least, 1.0)


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _cells(item: Any) -> dict[str, str]:
    """Return one row of the table; its cells are text."""
    words = (item.state, item.status)
    return {
        "id": item.sample_id,
        "name": item.name,
        "group": item.group,
        "confidence": "" if item.confidence is None else f"{item.confidence:.3f}",
        "status": ": ".join(word for word in words if word),
        "reason": item.reason,
    }


def _group_cells(group: Any) -> dict[str, str]:
    """Return one row of the table of groups; its cells are text."""
    confidence = "" if group.confidence is None else f"{group.confidence:.3f}"
    return {"group": group.name, "open": f"{group.n_open} of {group.n}", "confidence": confidence}


def _show_only(ctx: Any, field: str) -> None:
    """Draw this run's masks and no others: overlapping masks cannot be judged."""
    from umscosod.integrations.fiftyone.runs.fields import shown_fields

    ctx.ops.set_active_fields(shown_fields(ctx.dataset, field, getattr(ctx, "active_fields", None) or []))
