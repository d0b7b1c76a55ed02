"""Panel `review_masks`: a run's masks in the grid, the least certain first, and buttons that decide about them."""

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from umscosod.errors import UmscosodError
from umscosod.integrations.fiftyone.review.listing import list_review_fields

from ..operators.review import PANEL, decide, guess_field, looked_at, remember_field

PAGE = 10
"""Masks in the table, and how many Next goes on by."""
SURE = 0.9
"""Where the slider for accepting many at once begins."""
UNDECIDED, ALL = "undecided", "all"
COLUMNS = (("name", "Image"), ("group", "Group"), ("confidence", "Confidence"), ("status", "Status"))
LAYOUT = {"orientation": "vertical", "columns": 1, "gap": 2, "px": 2, "py": 2}
SLIDER = {"label_position": "top", "value_precision": 2, "value_label_display": "auto"}
FITTING = {"table": {"sx": {"minWidth": 0}}}
"""Lets a table be as narrow as the panel: it is cut off otherwise."""
HELP = """Masks of a run, the least certain first; empty and failed images are among them.

Accepted masks are copied into the field `reviewed`: no run writes there, and training can use them. Rejected samples
are left out of training and left alone by later runs. Samples sent back are done again by the next run of the field.

By keyboard: press backtick, type `accept_mask`, `reject_mask` or `send_back_mask`, Enter. They act on the open sample,
else on the selection."""


class ReviewMasks(foo.Panel):
    """Choose a run, look at its worst masks, decide, go on."""

    @property
    def config(self) -> Any:
        """Name and place; a category that is a plain string would make every operator vanish."""
        return foo.PanelConfig(
            name=PANEL,
            label="UMS-CoSOD: review masks",
            icon="rate_review",
            surfaces="grid",
            category=foo.Categories.CURATE,
            help_markdown=HELP,
        )

    def on_load(self, ctx: Any) -> None:
        """Take the run last reviewed, or the first one."""
        fields = _fields(ctx)
        if _run(ctx) not in fields:
            guessed = guess_field(ctx) if fields else ""
            ctx.panel.set_state("choice.run", guessed or (fields[0] if fields else None))
        self._start(ctx)

    def on_change_dataset(self, ctx: Any) -> None:
        """Begin anew: runs belong to a data set."""
        self.on_load(ctx)

    def on_change_selected(self, ctx: Any) -> None:
        """Count anew: a decision made without the panel ends with an empty selection."""
        self._refresh(ctx)

    def on_change_current_sample(self, ctx: Any) -> None:
        """Count anew: a sample was opened or closed, so one may have been decided about."""
        self._refresh(ctx)

    def change_list(self, ctx: Any) -> None:
        """Another run, limit or kind of list was chosen."""
        self._start(ctx)

    def go_on(self, ctx: Any) -> None:
        """Pass over the masks of the table; from the end the list begins again."""
        ctx.panel.state.passed = int(ctx.panel.state.passed or 0) + PAGE
        self._show(ctx)

    def accept_selected(self, ctx: Any) -> None:
        """Decide about what is selected."""
        self._decide_selected(ctx, "accept")

    def reject_selected(self, ctx: Any) -> None:
        """Decide about what is selected."""
        self._decide_selected(ctx, "reject")

    def send_back_selected(self, ctx: Any) -> None:
        """Decide about what is selected."""
        self._decide_selected(ctx, "send_back")

    def undo_selected(self, ctx: Any) -> None:
        """Forget what was decided about what is selected."""
        self._decide_selected(ctx, "undo")

    def accept_sure(self, ctx: Any) -> None:
        """Accept all of the list that are at least this certain."""
        if _run(ctx):
            self._decide(ctx, "accept", _sure(ctx, _list(ctx)))

    def change_least(self, ctx: Any) -> None:
        """Say how many would be accepted."""
        self._refresh(ctx)

    def open_row(self, ctx: Any) -> None:
        """Open a mask of the table, large."""
        rows, row = ctx.panel.state.table or [], ctx.params.get("row")
        if isinstance(row, int) and row < len(rows):
            ctx.ops.open_sample(id=rows[row]["id"])

    def open_refine(self, ctx: Any) -> None:
        """Open the form that makes masks at another threshold from the stored soft maps."""
        ctx.prompt(f"{self.plugin_name}/refine", params={"source": _run(ctx)})

    def _start(self, ctx: Any) -> None:
        """Show the list from its beginning."""
        ctx.panel.state.passed = 0
        if _run(ctx):
            remember_field(ctx, _run(ctx))
            _show_only(ctx, _run(ctx))
        self._show(ctx)

    def _decide_selected(self, ctx: Any, verb: str) -> None:
        ids = looked_at(ctx)
        if not ids:
            ctx.ops.notify("Select masks in the grid first", variant="warning")
        elif _run(ctx):
            self._decide(ctx, verb, ctx.dataset, ids=ids)

    def _decide(self, ctx: Any, verb: str, samples: Any, **options: Any) -> None:
        """Decide, say what became of it, and go on to what is left."""
        try:
            report = decide(samples, verb, _run(ctx), **options)
        except UmscosodError as error:
            ctx.ops.notify(str(error), variant="error")
            return
        ctx.ops.notify(report.summary, variant="success" if report.is_success else "warning")
        ctx.ops.clear_selected_samples()
        self._show(ctx)

    def _show(self, ctx: Any) -> None:
        """Put the list into the grid and its beginning into the table."""
        view = self._refresh(ctx)
        if view is not None:
            ctx.ops.set_view(view)

    def _refresh(self, ctx: Any) -> Any:
        """Read counts and table again; returns what is left of the list, None without a run."""
        from umscosod.integrations.fiftyone.review.listing import read_review_items, review_counts

        run = _run(ctx)
        if run not in _fields(ctx):
            return None
        view = _list(ctx)
        passed = int(ctx.panel.state.passed or 0)
        left = view.skip(passed) if passed else view
        items = read_review_items(left, run, limit=PAGE)
        if not items and passed:  # the end: begin again
            ctx.panel.state.passed = 0
            left, items = view, read_review_items(view, run, limit=PAGE)
        counts = review_counts(ctx.dataset, run)
        ctx.panel.state.counts = " · ".join(f"**{count}** {word}" for word, count in counts.items())
        ctx.panel.state.sure = len(_sure(ctx, view))
        ctx.panel.state.table = [_cells(item) for item in items]
        return left

    def render(self, ctx: Any) -> Any:
        """Lay out the panel."""
        panel = types.Object()
        fields = _fields(ctx)
        if not fields:
            panel.md("### Nothing to review yet\nRun *label* or *predict* first: it writes a mask field.", name="none")
            return types.Property(panel, view=types.GridView(**LAYOUT))
        _add_choices(panel, self, ctx, fields)
        panel.md(ctx.panel.state.counts or "", name="counts_text")
        _add_decisions(panel, self)
        _add_table(panel, self)
        _add_sure(panel, self, ctx)
        return types.Property(panel, view=types.GridView(**LAYOUT))


def _add_choices(panel: Any, own: ReviewMasks, ctx: Any, fields: list[str]) -> None:
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
        label=f"Show masks with a confidence of at most {_limit(ctx):.2f}",
        on_change=own.change_list,
    )


def _add_decisions(panel: Any, own: ReviewMasks) -> None:
    decisions = panel.h_stack("decisions", gap=1)
    decisions.btn("accept", label="Accept selected", on_click=own.accept_selected, variant="contained")
    decisions.btn("reject", label="Reject selected", on_click=own.reject_selected, variant="outlined")
    decisions.btn("send_back", label="Send back selected", on_click=own.send_back_selected, variant="outlined")
    decisions.btn("undo", label="Undo selected", on_click=own.undo_selected, variant="outlined")
    moves = panel.h_stack("moves", gap=1)
    moves.btn("next", label="Next", on_click=own.go_on, variant="outlined")
    moves.btn("refine", label="Masks at another threshold", on_click=own.open_refine, variant="outlined")


def _add_sure(panel: Any, own: ReviewMasks, ctx: Any) -> None:
    panel.float(
        "least",
        min=0,
        max=1,
        default=SURE,
        view=types.SliderView(**SLIDER),
        label=f"Accept all of the list with a confidence of at least {_least(ctx):.2f}",
        on_change=own.change_least,
    )
    count = ctx.panel.state.sure or 0
    panel.btn(
        "accept_sure",
        label=f"Accept {count} of the list",
        disabled=not count,
        on_click=own.accept_sure,
        variant="outlined",
    )


def _add_table(panel: Any, own: ReviewMasks) -> None:
    table = types.TableView(componentsProps=FITTING, on_click_row=own.open_row)
    for column, label in COLUMNS:
        table.add_column(column, label=label)
    panel.list("table", types.Object(), view=table, label="Next masks: click one to see it large")


def _fields(ctx: Any) -> list[str]:
    return list_review_fields(ctx.dataset) if ctx.dataset is not None else []


def _run(ctx: Any) -> str:
    return str(ctx.panel.get_state("choice.run") or "")


def _list(ctx: Any) -> Any:
    from umscosod.integrations.fiftyone.review.listing import list_for_review

    return list_for_review(
        ctx.dataset,
        _run(ctx),
        max_confidence=_limit(ctx) if _limit(ctx) < 1 else None,
        include_reviewed=ctx.panel.get_state("choice.kind") == ALL,
    )


def _sure(ctx: Any, view: Any) -> Any:
    """The masks of a list that many-at-once would accept."""
    from umscosod.integrations.fiftyone.review.listing import list_certain

    return list_certain(view, _run(ctx), _least(ctx))


def _limit(ctx: Any) -> float:
    return _number(ctx.panel.state.limit, 1.0)


def _least(ctx: Any) -> float:
    return _number(ctx.panel.state.least, SURE)


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _cells(item: Any) -> dict[str, str]:
    """One row of the table; its cells are text."""
    words = (item.state, item.status, item.reason)
    return {
        "id": item.sample_id,
        "name": item.name,
        "group": item.group,
        "confidence": "" if item.confidence is None else f"{item.confidence:.3f}",
        "status": ": ".join(word for word in words if word),
    }


def _show_only(ctx: Any, field: str) -> None:
    """Draw this run's masks and no other run's: two on top of each other cannot be judged."""
    others = {f"{other}{suffix}" for other in _fields(ctx) for suffix in ("", "_map")}
    shown = [name for name in (getattr(ctx, "active_fields", None) or []) if name not in others]
    ctx.ops.set_active_fields([*shown, field])
