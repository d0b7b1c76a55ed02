"""The part of the panel `review_masks` by which examples correct the masks of a group."""

import threading
from typing import Any

from bson import ObjectId
from fiftyone.operators import types

from umscosod.errors import UmscosodError

from ..operators.review import looked_at
from ..spaces import keep_filters
from .own_view import base_view, show_own

NONE = ""
"""Choice of no field."""
BEFORE, AFTER = "Show the masks before", "Show the new masks"


class SteeringButtons:
    """Marks examples, relabels a group, takes that back; for a panel whose state has ``choice.run``."""

    def use_as_example(self, ctx: Any) -> None:
        """Use the masks of the selected samples as examples."""
        self._mark(ctx, "use_as_example")

    def not_this(self, ctx: Any) -> None:
        """Say that the masks of the selected samples are not the object."""
        self._mark(ctx, "mark_not_this")

    def forget_example(self, ctx: Any) -> None:
        """Remove the marks of the selected samples."""
        self._mark(ctx, "forget_examples")

    def relabel_group(self, ctx: Any) -> None:
        """Relabel the groups of the selected samples, else the group that was opened or marked last."""
        import umscosod.integrations.fiftyone as integration
        from umscosod.integrations.fiftyone.review.steering import groups_of

        run, ids, is_known = run_of(ctx), looked_at(ctx), _knows_fields(ctx)
        if not run:
            return
        try:
            groups = groups_of(ctx.dataset, run, ids) if ids else [ctx.panel.state.steered_group]
            if not groups or not groups[0]:
                ctx.ops.notify("Select a mask of the group in the grid, or open the group below", variant="warning")
                return
            report = integration.relabel_dataset(
                ctx.dataset,
                run,
                groups,
                "all" if ctx.panel.get_state("prompts.all") else "group",
                ctx.panel.get_state("prompts.points") or None,
                ctx.panel.get_state("prompts.boxes") or None,
                progress=False,
            )
        except UmscosodError as error:
            ctx.ops.notify(str(error), variant="error")
            return
        if not is_known:
            _reload(ctx)
        self._show_outcome(ctx, report, groups[0])

    def undo_relabel(self, ctx: Any) -> None:
        """Take the last relabelling of the run back."""
        import umscosod.integrations.fiftyone as integration

        if not run_of(ctx):
            return
        try:
            report = integration.undo_relabel_dataset(ctx.dataset, run_of(ctx))
        except UmscosodError as error:
            ctx.ops.notify(str(error), variant="error")
            return
        self._show_outcome(ctx, report, report.groups[0])

    def _open_steering(self, ctx: Any, ids: list[str]) -> None:
        """Note the group that the grid shows."""
        from umscosod.integrations.fiftyone.review.steering import groups_of

        if ids and ctx.panel.state.can_steer:
            group = next(iter(groups_of(ctx.dataset, run_of(ctx), ids[:1])), "")
            if group != ctx.panel.state.steered_group:
                ctx.panel.state.outcome = ""
            ctx.panel.state.steered_group = group
            note_opened(ctx, group, ids)
            self._tell(ctx)

    def toggle_before(self, ctx: Any) -> None:
        """Draw the masks before the last relabelling in place of the new ones, or the new ones again."""
        draw(ctx, before=not ctx.panel.state.is_before)

    def _mark(self, ctx: Any, name: str) -> None:
        import umscosod.integrations.fiftyone as integration
        from umscosod.integrations.fiftyone.review.steering import groups_of

        run, ids, is_known = run_of(ctx), looked_at(ctx), _knows_fields(ctx)
        if not ids:
            ctx.ops.notify("Select masks in the grid first", variant="warning")
            return
        try:
            report = getattr(integration, name)(ctx.dataset, run, ids=ids)
            ctx.panel.state.steered_group = next(iter(groups_of(ctx.dataset, run, ids)), "")
        except UmscosodError as error:
            ctx.ops.notify(str(error), variant="error")
            return
        ctx.ops.notify(report.summary, variant="success" if report.is_success else "warning")
        ctx.ops.clear_selected_samples()
        self._tell(ctx)
        view = self._refresh(ctx)  # type: ignore[attr-defined]  # of the panel
        if not is_known:
            _reload(ctx)
        elif (shown := opened_view(ctx)) is not None or view is not None:
            show_own(ctx, view if shown is None else shown)
        draw(ctx, before=False)

    def _show_outcome(self, ctx: Any, report: Any, group: str) -> None:
        """Show the group, with its new masks and what changed."""
        ctx.panel.state.steered_group = group
        ctx.ops.notify(report.summary, variant="success")
        if ctx.selected:
            ctx.ops.clear_selected_samples()
        if ctx.panel.state.opened_group != group:
            note_opened(ctx, group, group_view(ctx, group).values("id"))
        show_own(ctx, opened_view(ctx))  # the tiles stay in their places; their masks have new file names
        draw(ctx, before=False)
        done = "taken back" if report.is_undone else "changed"
        count = f"**{len(report.changed)} of {report.looked_at} masks {done}** in {', '.join(report.groups[:3])}"
        notes = [note for note in report.notes if note]
        ctx.panel.state.outcome = f"{count}, {report.seconds:.1f} s" + "".join(f" · {note}" for note in notes[:3])
        self._tell(ctx)
        self._refresh(ctx)  # type: ignore[attr-defined]  # of the panel

    def _tell(self, ctx: Any) -> None:
        """Update what is said of the group, and whether there is anything to take back."""
        from umscosod.integrations.fiftyone.review.examples import describe_marks, marks_of_group
        from umscosod.integrations.fiftyone.review.relabel import can_undo
        from umscosod.integrations.fiftyone.review.steering import can_steer

        run, group = run_of(ctx), ctx.panel.state.steered_group
        if not run or not can_steer(ctx.dataset, run):
            ctx.panel.state.can_steer = False
            return
        ctx.panel.state.can_steer = True
        ctx.panel.state.can_undo = can_undo(ctx.dataset, run)
        marks = marks_of_group(ctx.dataset, run, group) if group else {}
        ctx.panel.state.shown_text = f"Group **{group}**: {describe_marks(marks)}" if group else ""

    def _begin_steering(self, ctx: Any) -> None:
        """Forget the group of another run, and load what a relabelling needs while the user looks at masks."""
        ctx.panel.state.steered_group = ctx.panel.state.opened_group = ctx.panel.state.outcome = ""
        self._tell(ctx)
        if ctx.panel.state.can_steer:
            threading.Thread(target=_load, daemon=True).start()


def _load() -> None:
    import umscosod.integrations.fiftyone.review.relabel  # noqa: F401  # torch takes seconds


def _knows_fields(ctx: Any) -> bool:
    """Whether the fields of examples were there before."""
    from umscosod.integrations.fiftyone.review.steering import example_field

    return bool(ctx.dataset.has_sample_field(example_field(run_of(ctx))))


def note_opened(ctx: Any, group: str, ids: list[str]) -> None:
    """Remember the group in the grid, and the order of its tiles."""
    ctx.panel.state.opened_group, ctx.panel.state.opened_ids = group, ids


def opened_view(ctx: Any) -> Any:
    """Return the group in the grid in its order; None if the grid shows the list.

    The App reads samples again only for a view that it has not shown: one id that no sample has makes it another.
    """
    ids = ctx.panel.state.opened_ids if ctx.panel.state.opened_group else None
    return ctx.dataset.select([*ids, str(ObjectId())], ordered=True) if ids else None


def _reload(ctx: Any) -> None:
    """Let the page learn new fields, which takes it seconds."""
    list(keep_filters(ctx))
    ctx.trigger("reload_dataset")


def group_view(ctx: Any, group: str) -> Any:
    """Return the masks of a group of the run, the least certain first."""
    from umscosod.integrations.fiftyone.review.listing import list_for_review
    from umscosod.integrations.fiftyone.review.steering import ids_of_group

    view = list_for_review(base_view(ctx), run_of(ctx), include_reviewed=True)
    there = ids_of_group(ctx.dataset, run_of(ctx), group)
    return view.select([sample_id for sample_id in view.values("id") if sample_id in there], ordered=True)


def run_of(ctx: Any) -> str:
    """Return the run under review."""
    return str(ctx.panel.get_state("choice.run") or "")


def draw(ctx: Any, *, before: bool) -> None:
    """Draw the run's masks, or those before the last relabelling, with what is marked as example."""
    from umscosod.integrations.fiftyone.review.steering import before_field, example_field
    from umscosod.integrations.fiftyone.runs.fields import shown_fields

    run = run_of(ctx)
    ctx.panel.state.is_before = before
    names = (example_field(run), before_field(run))
    active = [path for path in getattr(ctx, "active_fields", None) or [] if path not in names]
    fields = shown_fields(ctx.dataset, run, active)
    if ctx.dataset.has_sample_field(names[0]):
        fields.append(names[0])
    fields = [names[1] if path == run and before else path for path in fields]
    if fields != (getattr(ctx, "active_fields", None) or []):  # each such call costs the page a second
        ctx.ops.set_active_fields(fields)


def add_steering(panel: Any, own: Any, ctx: Any) -> None:
    """Add the buttons for examples, and the choice of fields with points and boxes where there are any."""
    state = ctx.panel.state
    marks = panel.h_stack("marks", gap=1)
    marks.btn("example", label="Use as example", on_click=own.use_as_example, variant="contained")
    marks.btn("not_this", label="Not this", on_click=own.not_this, variant="outlined")
    marks.btn("forget", label="No example", on_click=own.forget_example, variant="outlined")
    steps = panel.h_stack("steps", gap=1)
    steps.btn("relabel", label="Relabel this group", on_click=own.relabel_group, variant="contained")
    steps.btn(
        "undo_relabel",
        label="Undo relabelling",
        disabled=not state.can_undo,
        on_click=own.undo_relabel,
        variant="outlined",
    )
    steps.btn(
        "before",
        label=AFTER if state.is_before else BEFORE,
        disabled=not state.can_undo,
        on_click=own.toggle_before,
        variant="outlined",
    )
    text = "  \n".join(line for line in (state.shown_text, state.outcome) if line)
    panel.md(text or "Select a mask that is right, or one that is wrong, and say so.", name="steering_text")
    _add_prompts(panel, ctx)


def _add_prompts(panel: Any, ctx: Any) -> None:
    import fiftyone as fo

    prompts = types.Object()
    count = 1
    for name, kind, label in (("points", fo.Keypoints, "Points from"), ("boxes", fo.Detections, "Boxes from")):
        there = sorted(ctx.dataset.get_field_schema(embedded_doc_type=kind))
        there = [field for field in there if not field.startswith(f"{run_of(ctx)}_")]
        if there:
            choices = types.DropdownView()
            choices.add_choice(NONE, label="nowhere")
            for field in there:
                choices.add_choice(field, label=field)
            prompts.enum(name, choices.values(), view=choices, default=NONE, label=label)
            count += 1
    prompts.bool("all", default=False, label="Examples of all groups count", view=types.SwitchView())
    panel.define_property("prompts", prompts, view=types.GridView(orientation="horizontal", columns=count, gap=2))
