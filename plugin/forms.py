"""Provides the form parts that several operators share. Every text of a form is here or in its operator.

FiftyOne passes parameters unchecked: missing, empty, or of any type. The ``read_`` functions here accept all of these.
The values last used on a data set become the defaults of the next form. Calls from Python have the plain defaults.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from umscosod.errors import UmscosodError

logger = logging.getLogger(__name__)

BY_FOLDER = "(folder)"
STORE = "umscosod/forms"
REMEMBERED_S = 365 * 24 * 3600
NOT_REMEMBERED = frozenset(
    ("out_dir", "overwrite", "view_target", "interrupted", "checkpoint", "eval_key", "action", "folder", "train")
)
"""Parameters that are not remembered: folders, what is replaced, values determined anew for each call."""


def read_text(ctx: Any, name: str, default: str = "") -> str:
    """Read a text parameter, stripped; the default if it is missing or empty."""
    value = ctx.params.get(name)
    return (str(value).strip() if value is not None else "") or default


def read_flag(ctx: Any, name: str, default: bool = False) -> bool:
    """Read a flag parameter; the default if it is missing or no truth value."""
    value = ctx.params.get(name)
    return value if isinstance(value, bool) else default


def read_number(ctx: Any, name: str, default: float) -> float:
    """Read a number parameter; the default if it is missing or no number."""
    value = ctx.params.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def read_group_field(ctx: Any) -> str | None:
    """Read the field that names the groups; None for the folder."""
    name = read_text(ctx, "group_field", BY_FOLDER)
    return None if name == BY_FOLDER else name


def remember_values(ctx: Any, operator: str) -> None:
    """Store the values of an executed form, as defaults of the operator's next form on this data set."""
    kept = {
        name: value
        for name, value in ctx.params.items()
        if name not in NOT_REMEMBERED and isinstance(value, str | bool | int | float)
    }
    if getattr(ctx, "store", None) is not None:
        ctx.store(STORE).set(operator, kept, ttl=REMEMBERED_S)


def recall_values(ctx: Any, operator: str) -> dict[str, Any]:
    """Return the values that `remember_values` stored; empty if there are none."""
    if getattr(ctx, "store", None) is None:
        return {}
    kept = ctx.store(STORE).get(operator)
    return kept if isinstance(kept, dict) else {}


class Form:
    """An operator's form under construction: each method adds a field and returns its present value.

    Parameters
    ----------
    inputs : fiftyone.operators.types.Object
    ctx : fiftyone.operators.ExecutionContext
    operator : str
        Name under which the last values are stored.
    """

    def __init__(self, inputs: Any, ctx: Any, operator: str) -> None:
        self.inputs, self.ctx, self.dataset = inputs, ctx, ctx.dataset
        self._last = recall_values(ctx, operator)

    def last(self, name: str, default: Any) -> Any:
        """Return the last value if it has the default's type, otherwise the default."""
        value = self._last.get(name)
        return value if type(value) is type(default) and value != "" else default

    def text(self, name: str, default: str = "", **options: Any) -> str:
        """Add a line of text."""
        self.inputs.str(name, default=self.last(name, default) or None, **options)
        return read_text(self.ctx, name, default)

    def flag(self, name: str, default: bool = False, **options: Any) -> bool:
        """Add a tick box."""
        self.inputs.bool(name, default=self.last(name, default), **options)
        return read_flag(self.ctx, name, default)

    def choice(
        self, name: str, words: Mapping[str, str], default: str, *, is_radio: bool = False, **options: Any
    ) -> str:
        """Add a choice of one key; each key is shown by its text."""
        view = types.RadioGroup(orientation="vertical") if is_radio else types.DropdownView()
        for value, text in words.items():
            view.add_choice(value, label=text)
        last = self.last(name, default)
        chosen = last if last in words else default
        self.inputs.enum(name, list(words), view=view, default=chosen, **options)
        value = read_text(self.ctx, name, default)
        return value if value in words else default

    def proposals(self, name: str, words: Mapping[str, str], default: str = "", **options: Any) -> str:
        """Add a line of text with proposals; the user may type any text."""
        view = types.AutocompleteView(allow_user_input=True)
        for value, text in words.items():
            view.add_choice(value, label=text)
        last = self.last(name, default)
        chosen = last if last in words else default
        self.inputs.str(name, view=view, default=chosen or None, **options)
        return read_text(self.ctx, name, default)

    def notice(self, name: str, text: str) -> None:
        """Add a note."""
        self.inputs.view(name, types.Notice(label=text))

    def warning(self, name: str, text: str) -> None:
        """Add a warning."""
        self.inputs.view(name, types.Warning(label=text))

    def error(self, name: str, text: str) -> None:
        """Add an error, which prevents the execution of the form."""
        self.inputs.view(name, types.Error(label=text)).invalid = True

    def refuse(self, name: str, check: Any, *values: Any) -> bool:
        """Add the message of a failing library check as an error; return whether the check failed."""
        try:
            check(*values)
        except UmscosodError as error:
            self.error(name, str(error))
            return True
        return False


def names_as_words(names: Iterable[str]) -> dict[str, str]:
    """Make choices that are shown by their names, sorted."""
    return {name: name for name in sorted(names)}


def add_field_choice(form: Form, default: str) -> str:
    """Ask for the output ``field``, refuse bad names at once, and say what happens to an existing field."""
    name = read_text(form.ctx, "field", default)
    found = form.dataset.get_field(name) if name.isidentifier() else None
    problem = ""
    if not name.isidentifier() or name.startswith("_"):
        problem = "Letters, digits and '_', starting with a letter"
    elif found is not None and getattr(found, "document_type", None) is not fo.Segmentation:
        problem = f"{name!r} exists and holds something other than masks"
    # not required: if another field is missing, the App would report this one as missing too
    form.text("field", default, label="Output field", invalid=bool(problem), error_message=problem)
    if problem:
        form.error("field_problem", f"Output field: {problem}")
    elif found is not None and form.dataset.get_field(f"{name}_status") is None:
        text = f"{name!r} exists and no run made it: a run writes there only if no sample has a label in it"
        form.warning("field_note", text)
    elif found is not None:
        is_replaced = read_flag(form.ctx, "overwrite")
        kept = "replaced, but for a person's" if is_replaced else "kept; only samples without one are run"
        form.notice("field_note", f"{name!r} exists: its labels are {kept}")
        form.flag(
            "overwrite",
            label="Replace labels that are there",
            description="Off: samples that have a label in the output field keep it. A person's labels are always kept",
        )
    return name


def add_mask_field_choice(inputs: Any, ctx: Any, name: str, label: str, *, default: str = "", **options: Any) -> None:
    """Offer the mask fields of the data set; `options` go to the input."""
    choices = types.AutocompleteView(allow_user_input=True)
    for field in mask_fields(ctx.dataset):
        choices.add_choice(field, label=field)
    inputs.str(name, label=label, view=choices, default=default or None, **options)


def mask_fields(dataset: Any) -> list[str]:
    """Return the names of the fields that hold masks."""
    return sorted(dataset.get_field_schema(embedded_doc_type=fo.Segmentation))


def add_editable(form: Form) -> None:
    """Ask whether people can edit the masks in the App."""
    form.flag(
        "editable",
        True,
        label="Masks can be edited in the App",
        description="A sibling field has one object for each piece of a mask, for the tab Annotate. Edits are kept",
    )


def add_out_dir(form: Form, key: str) -> None:
    """Ask for a folder; the default is beside FiftyOne's own files. Refuse a folder that cannot be used."""
    from umscosod.integrations.fiftyone.runs.start import check_out_dir, foreign_files

    given = form.text(
        "out_dir",
        allow_empty=True,
        label="Folder for the files",
        description="Empty: a folder of the run's own beside FiftyOne's data. The labels point into it, so keep it",
    )
    if given and not form.refuse("out_dir_problem", check_out_dir, form.dataset, key, given):
        others = foreign_files(given)
        if others:
            form.warning("out_dir_note", f"The folder holds other files ({', '.join(others)}): they stay as they are")
