"""Defines the operator `group_by_class`, which groups the images by known values or by the pictures themselves."""

from typing import Any

import fiftyone as fo
from fiftyone.operators.constants import ViewTarget

from umscosod.integrations.fiftyone import group_fields

from ..forms import BY_FOLDER, Form, names_as_words, read_flag, read_number, read_text
from ..jobs import NextStep
from ..outlook import Outlook, open_form
from ..settings import add_settings, check_settings, read_config
from ..spaces import chosen_view
from .base import JobOperator

FIELD, FOLDER, TAG, DISCOVERED = "field", "folder", "tag", "discovered"
WAYS = {
    FIELD: "A field: text, number, yes/no or Classification",
    FOLDER: "The folder an image lies in",
    TAG: "Tags: samples with just one of them",
    DISCOVERED: "The pictures themselves: what looks alike",
}
PREVIEW, WRITE = "preview", "write"
ACTIONS = {
    PREVIEW: "Look at them first: one image a group in the grid, nothing is changed",
    WRITE: "Write these groups",
}
INTO = "cosal_group"
CUSTOM = ViewTarget.CUSTOM_VIEW_TARGET
_SHOWN = 30


class GroupByClass(JobOperator):
    """Assigns a group to every sample."""

    NAME = "group_by_class"
    LABEL = "UMS-CoSOD: group images by class"
    DESCRIPTION = "Write which images show the same kind of thing, from a field, folder, tags or the pictures"
    ACTION = "Group"
    ICON = "workspaces"
    BUTTON = "Group images"
    CALL = "group_dataset"
    OUTPUT = ""

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the source of the groups and the output field; on demand also for names and features."""
        form, outlook = open_form(self, inputs, ctx)
        if outlook.problem:
            form.error("groups_problem", outlook.problem)
        way = form.choice("by", WAYS, _start(outlook), is_radio=True, label="Groups from")
        if way == FIELD:
            _add_source_choice(form, outlook.likely)
        elif way == TAG:
            form.text("tags", allow_empty=True, label="Tags", description="Separated by commas; empty: every tag")
        elif way == DISCOVERED:
            _add_discovery(form)
        else:
            outlook.add_headline()
        _check_into(form)
        check_settings(form)
        if not form.flag("advanced", label="Advanced", description="Output field, features, device"):
            return
        form.text("into", INTO, label="Output field")
        is_looked_at = way == DISCOVERED or form.flag(
            "check",
            label="Look at the pictures",
            description="Encodes them, and reports groups that are no more alike than images drawn at random",
        )
        if is_looked_at:
            add_settings(form)

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return the source of the groups and the output field; a preview writes no field."""
        way = _read_way(ctx)
        options = {"into": read_text(ctx, "into", INTO), "config": read_config(ctx)}
        if way == DISCOVERED:
            options["n_groups"] = _read_count(ctx)
            if _is_preview(ctx):
                return {"is_preview": True, **options}
        source: Any = read_text(ctx, "source") or None
        if way == TAG:
            source = [tag for each in read_text(ctx, "tags").split(",") if (tag := each.strip())] or None
        return {
            "by": way,
            "source": source if way in (FIELD, TAG) else None,
            "check": read_flag(ctx, "check"),
            **options,
        }

    def work(
        self, view: Any, progress: Any, *, is_preview: bool = False, overwrite: bool = False, **options: Any
    ) -> Any:
        """Call `preview_groups` for a preview, otherwise the grouping function."""
        from umscosod.integrations.fiftyone import preview_groups

        if is_preview:
            return preview_groups(view, **options, progress=progress)
        return super().work(view, progress, overwrite=overwrite, **options)

    def describe_done(self, ctx: Any) -> str:
        """Return the text that describes the outcome."""
        into = read_text(ctx, "into", INTO)
        if _is_preview(ctx):
            shown = f"{_list_sizes(ctx, into)}. The grid shows one image of each"
            return f"{shown}. Run this again with the same settings and 'Write these groups' to keep them"
        return f"Groups are in the field {into!r}; the saved view 'by-{into}' shows one tile a group"

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Offer to write the previewed groups, or to label by the groups."""
        into = read_text(ctx, "into", INTO)
        if _is_preview(ctx):
            # for the samples of the preview: by then the grid shows only one image a group
            target = {"view_target": CUSTOM, "custom_view_target": chosen_view(ctx).view()._serialize()}
            params = {**ctx.params, "action": WRITE, **target}
            return (NextStep(label="Write these groups", operator=self.NAME, params=params, has_form=False),)
        return (NextStep(label="Label by these groups", operator="label", params={"group_field": into}),)

    def is_look(self, ctx: Any) -> bool:
        """Whether the view is temporary: true for a preview."""
        return _is_preview(ctx)

    def view_after(self, ctx: Any) -> Any:
        """Return one image of each proposed group; after writing, one tile a group."""
        from umscosod.integrations.fiftyone import preview_view

        into = read_text(ctx, "into", INTO)
        if _is_preview(ctx):
            return preview_view(ctx.dataset, into)
        ctx.dataset.reload()
        return ctx.dataset.exists(into).group_by(into)


def _is_preview(ctx: Any) -> bool:
    return _read_way(ctx) == DISCOVERED and _read_action(ctx) == PREVIEW


def _read_way(ctx: Any) -> str:
    way = read_text(ctx, "by", FIELD)
    return way if way in WAYS else FIELD


def _read_action(ctx: Any) -> str:
    """Read the action: a preview unless writing was requested."""
    return WRITE if read_text(ctx, "action", PREVIEW) == WRITE else PREVIEW


def _read_count(ctx: Any) -> int | None:
    """Read the number of groups; None to let the library choose it."""
    value = read_number(ctx, "n_groups", 0.0)
    return int(value) if value.is_integer() and value >= 1 else None


def _start(outlook: Outlook) -> str:
    """Return the source that the form begins with: a known field, else folders, else the pictures."""
    if outlook.likely != BY_FOLDER:
        return FIELD
    return DISCOVERED if outlook.groups is not None and len(outlook.groups.sizes) == 1 else FOLDER


def _add_source_choice(form: Form, likely: str) -> None:
    """Offer every field with one value a sample."""
    names = set(group_fields(form.dataset))
    for kind in (fo.IntField, fo.FloatField, fo.BooleanField):
        names.update(form.dataset.get_field_schema(ftype=kind))
    default = "" if likely in (BY_FOLDER, INTO) else likely
    form.proposals("source", names_as_words(names), default, label="Field", required=True)


def _check_into(form: Form) -> None:
    """Refuse a field that cannot receive the groups, and say what happens to an existing one."""
    name = read_text(form.ctx, "into", INTO)
    found = form.dataset.get_field(name) if name.isidentifier() else None
    problem = ""
    if not name.isidentifier() or name.startswith("_"):
        problem = "Letters, digits and '_', starting with a letter"
    elif name in ("id", "filepath") or not (found is None or type(found) is fo.StringField):
        problem = f"{name!r} exists and is no text field for groups"
    elif read_text(form.ctx, "by", FIELD) == FIELD and name == read_text(form.ctx, "source"):
        problem = "This is the field that is read"
    if problem:
        form.error("into_problem", f"Output field (Advanced): {problem}")
    elif found is not None:
        done = "are replaced" if read_flag(form.ctx, "overwrite") else "stay; other ones stop the work before it begins"
        form.notice("into_note", f"{name!r} exists: its values {done}")
        form.flag("overwrite", label="Replace other values in it")


def _add_discovery(form: Form) -> None:
    """Ask for the number of groups and whether to write; show the last proposal."""
    sizes = _list_sizes(form.ctx, read_text(form.ctx, "into", INTO))
    form.inputs.int("n_groups", label="Number of groups", min=1, description="Empty: chosen by how well they are apart")
    form.notice("sizes", f"Proposed last: {sizes}" if sizes else "No groups were proposed yet: look at them first")
    form.choice("action", ACTIONS, WRITE if sizes else PREVIEW, is_radio=True, label="What to do")


def _list_sizes(ctx: Any, into: str) -> str:
    """List the sizes of the stored proposal from a small file; compute nothing."""
    from umscosod.integrations.fiftyone import stored_preview

    sizes = stored_preview(ctx.dataset, into)
    shown = ", ".join(f"{name} ({size})" for name, size in list(sizes.items())[:_SHOWN])
    return shown + (", ..." if len(sizes) > _SHOWN else "")
