"""Operator `group_by_class`: which images are searched together, from what is known of them or from the pictures."""

from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from umscosod.progress import ProgressFn

from ..forms import add_settings, read_config, read_flag, read_number, read_text
from .base import JobOperator

FIELD, FOLDER, TAG, DISCOVERED = "field", "folder", "tag", "discovered"
WAYS = {
    FIELD: "A field: text, number, yes/no or Classification",
    FOLDER: "The folder an image lies in",
    TAG: "Tags: samples with just one of them",
    DISCOVERED: "The pictures themselves: what looks alike",
}
PREVIEW, WRITE = "preview", "write"
ACTIONS = {PREVIEW: "Preview only: propose groups, change nothing", WRITE: "Write the groups into the field"}
INTO = "cosal_group"
_SHOWN = 30


class GroupByClass(JobOperator):
    """Give every sample a group."""

    NAME = "group_by_class"
    LABEL = "UMS-CoSOD: group images by class"
    DESCRIPTION = "Write which images show the same kind of thing, from a field, folder, tags or the pictures"
    ACTION = "Group"
    ICON = "workspaces"

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask where groups come from and where they go."""
        way = _read_way(ctx)
        _add_choice(inputs, "by", WAYS, FIELD, "Groups from")
        if way == FIELD:
            _add_source_choice(inputs, ctx.dataset)
        elif way == TAG:
            inputs.str("tags", allow_empty=True, label="Tags", description="Separated by commas; empty: every tag")
        _add_into(inputs, ctx)
        if way == DISCOVERED:
            _add_discovery(inputs, ctx)
            add_settings(inputs, ctx)
            return
        inputs.bool(
            "check",
            default=False,
            label="Look at the pictures",
            description="Encodes them, and reports groups that are no more alike than images drawn at random",
        )
        if read_flag(ctx, "check"):
            add_settings(inputs, ctx)

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `group_dataset`, and of `preview_groups` where nothing is to be written."""
        way = _read_way(ctx)
        options = {"into": read_text(ctx, "into", INTO), "config": read_config(ctx)}
        if way == DISCOVERED:
            options["n_groups"] = _read_count(ctx)
            if _read_action(ctx) == PREVIEW:
                return {"is_preview": True, **options}
        source: Any = read_text(ctx, "source") or None
        if way == TAG:
            source = [tag for each in read_text(ctx, "tags").split(",") if (tag := each.strip())] or None
        return {
            "is_preview": False,
            "by": way,
            "source": source if way in (FIELD, TAG) else None,
            "check": read_flag(ctx, "check"),
            "overwrite": read_flag(ctx, "overwrite"),
            **options,
        }

    def work(self, view: Any, progress: ProgressFn, *, is_preview: bool = False, **options: Any) -> Any:
        """Call `preview_groups` or `group_dataset`."""
        from umscosod.integrations.fiftyone import group_dataset, preview_groups

        return (preview_groups if is_preview else group_dataset)(view, **options, progress=progress)

    def describe_done(self, ctx: Any) -> str:
        """Say what there is now."""
        into = read_text(ctx, "into", INTO)
        if _read_way(ctx) == DISCOVERED and _read_action(ctx) == PREVIEW:
            return f"{_list_sizes(ctx, into)}. Run this again with the same settings and 'Write' to keep them"
        return f"Groups are in the field {into!r}; the saved view 'by-{into}' shows one tile a group"


def _read_way(ctx: Any) -> str:
    way = read_text(ctx, "by", FIELD)
    return way if way in WAYS else FIELD


def _read_action(ctx: Any) -> str:
    """A preview unless writing was asked for."""
    return WRITE if read_text(ctx, "action", PREVIEW) == WRITE else PREVIEW


def _read_count(ctx: Any) -> int | None:
    """Whole number of groups; None where it is to be chosen."""
    value = read_number(ctx, "n_groups", 0.0)
    return int(value) if value.is_integer() and value >= 1 else None


def _add_choice(inputs: Any, name: str, words: dict[str, str], default: str, label: str) -> None:
    choices = types.RadioGroup(orientation="vertical")
    for value, text in words.items():
        choices.add_choice(value, label=text)
    inputs.enum(name, choices.values(), view=choices, default=default, label=label)


def _add_source_choice(inputs: Any, dataset: Any) -> None:
    """Offer every field with one value a sample."""
    choices = types.AutocompleteView(allow_user_input=True)
    names = set(dataset.get_field_schema(embedded_doc_type=fo.Classification))
    for kind in (fo.StringField, fo.IntField, fo.FloatField, fo.BooleanField):
        names.update(dataset.get_field_schema(ftype=kind))
    for name in sorted(names - {"filepath"}):
        choices.add_choice(name, label=name)
    inputs.str("source", label="Field", view=choices, required=True)


def _add_into(inputs: Any, ctx: Any) -> None:
    """Ask for the field that receives the groups, refuse what cannot, and say what happens to one that exists."""
    name = read_text(ctx, "into", INTO)
    found = ctx.dataset.get_field(name) if name.isidentifier() else None
    problem = ""
    if not name.isidentifier() or name.startswith("_"):
        problem = "Letters, digits and '_', starting with a letter"
    elif name in ("id", "filepath") or not (found is None or type(found) is fo.StringField):
        problem = f"{name!r} exists and is no text field for groups"
    elif _read_way(ctx) == FIELD and name == read_text(ctx, "source"):
        problem = "This is the field that is read"
    inputs.str("into", label="Output field", default=INTO, invalid=bool(problem), error_message=problem)
    if problem:
        inputs.view("into_problem", types.Error(label=f"Output field: {problem}")).invalid = True
    elif found is not None:
        done = "are replaced" if read_flag(ctx, "overwrite") else "stay; other ones stop the work before it begins"
        inputs.view("into_note", types.Notice(label=f"{name!r} exists: its values {done}"))
    inputs.bool("overwrite", default=False, label="Replace other values in it")


def _add_discovery(inputs: Any, ctx: Any) -> None:
    """Ask for the number of groups and whether to write, and show what was proposed last."""
    inputs.int("n_groups", label="Number of groups", min=1, description="Empty: chosen by how well they are apart")
    inputs.view("sizes", types.Notice(label=_describe_proposal(ctx, read_text(ctx, "into", INTO))))
    _add_choice(inputs, "action", ACTIONS, PREVIEW, "What to do")


def _describe_proposal(ctx: Any, into: str) -> str:
    sizes = _list_sizes(ctx, into)
    return f"Proposed last for {into!r}: {sizes}" if sizes else f"No groups were proposed for {into!r} yet"


def _list_sizes(ctx: Any, into: str) -> str:
    """Sizes of the stored proposal, from a small file: nothing is computed here."""
    from umscosod.integrations.fiftyone import stored_preview

    sizes = stored_preview(ctx.dataset, into)
    shown = ", ".join(f"{name} ({size})" for name, size in list(sizes.items())[:_SHOWN])
    return shown + (", ..." if len(sizes) > _SHOWN else "")
