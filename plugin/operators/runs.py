"""Defines the operators `list_runs` and `delete_run`."""

from typing import Any

from fiftyone.operators import types

from umscosod.errors import count_of

from ..forms import read_flag, read_text
from .base import QuickOperator

COLUMNS = (
    ("key", "Run"),
    ("method", "Made by"),
    ("state", "State"),
    ("created", "Begun (UTC)"),
    ("counts", "Samples"),
    ("evaluations", "Evaluations"),
    ("backbones", "Features"),
    ("folder", "Files"),
)

FITTING = {"table": {"sx": {"minWidth": 0}}}
"""Lets the table be as narrow as the dialog; otherwise its last columns are cut off."""


class ListRuns(QuickOperator):
    """Lists the runs of this data set with their settings."""

    NAME = "list_runs"
    LABEL = "UMS-CoSOD: list runs"
    DESCRIPTION = "Show every run of this data set with its settings, counts and files"
    ICON = "list"
    RISK = "LOW"
    CHANGES_DATASET = False

    @property
    def config(self) -> Any:
        """As for all operators, but static: otherwise the App would ask for input with an empty form."""
        config = super().config
        config.dynamic = config.resolve_execution_options_on_change = False
        return config

    def resolve_input(self, ctx: Any) -> Any:
        """Return no form."""
        return types.Property(types.Object())

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Call `list_runs`."""
        from umscosod.integrations.fiftyone import list_runs

        if ctx.dataset is None:
            raise ValueError("Open a data set first")
        rows = []
        for run in list_runs(ctx.dataset):
            row = {
                "key": run.key,
                "method": run.method.removeprefix("umscosod/"),
                "state": f"{run.state} at {run.stopped_at}" if run.stopped_at else run.state,
                "created": run.created[:19],
                "counts": ", ".join(f"{count} {status}" for status, count in run.counts.items()),
                "backbones": ", ".join(run.backbones),
                "evaluations": ", ".join(f"{each} (old)" if each in run.stale else each for each in run.evaluations),
                "folder": str(run.folder),
            }
            rows.append(row)
        return {"runs": rows}

    def resolve_output(self, ctx: Any) -> Any:
        """Show a table."""
        outputs = types.Object()
        table = types.TableView(componentsProps=FITTING)
        for key, label in COLUMNS:
            table.add_column(key, label=label)
        outputs.list("runs", types.Object(), view=table, label="Runs")
        return types.Property(outputs, view=types.View(label=self.LABEL))


class DeleteRun(QuickOperator):
    """Removes a run: its fields, its files, its record."""

    NAME = "delete_run"
    LABEL = "UMS-CoSOD: delete a run"
    DESCRIPTION = "Remove a run's fields and files and nothing else; masks a person accepted stay"
    ICON = "delete"
    RISK = "DANGEROUS"
    OUTPUTS = (("deleted", "Deleted"), ("fields", "Fields removed"), ("folder", "Folder"), ("report", "In short"))

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the run and for a confirmation."""
        from umscosod.integrations.fiftyone import read_edits
        from umscosod.integrations.fiftyone.runs.record import evaluations_of

        choices = types.DropdownView()
        for key in sorted(ctx.dataset.list_runs()):
            choices.add_choice(key, label=key)
        inputs.enum("key", choices.values(), view=choices, label="Run", required=True)
        key = read_text(ctx, "key")
        if key:
            text = f"The fields and files of {key!r} are removed. Masks that a person accepted stay"
            inputs.view("warning", types.Warning(label=text))
            if names := evaluations_of(ctx.dataset, key):
                inputs.bool("evaluations", default=False, label=f"Its evaluations too: {', '.join(names)}")
            if count := len(read_edits(ctx.dataset, key)):
                _add_edits_choice(inputs, ctx, count)
        inputs.bool("sure", label="Yes, delete it", default=False, required=True)
        if key and not read_flag(ctx, "sure"):
            inputs.view("unsure", types.Error(label="Tick the box to delete")).invalid = True

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Call `delete_run`."""
        from umscosod.integrations.fiftyone import delete_run

        edits: Any = read_text(ctx, "edits", "ask")
        told = delete_run(ctx.dataset, read_text(ctx, "key"), evaluations=read_flag(ctx, "evaluations"), edits=edits)
        run = told.run
        fields = ", ".join(run.fields) or "none"
        return {"deleted": run.summary, "fields": fields, "folder": str(run.folder), "report": told.summary}


def _add_edits_choice(inputs: Any, ctx: Any, count: int) -> None:
    """Ask what becomes of the masks that a person edited; without an answer the run is not deleted."""
    view = types.RadioGroup(orientation="vertical")
    view.add_choice("keep", label="Keep them, as accepted masks in the field 'reviewed'")
    view.add_choice("delete", label="Delete them too")
    inputs.enum("edits", view.values(), view=view, label=f"{count_of(count, 'mask')} edited by a person", required=True)
    if read_text(ctx, "edits") not in view.values():
        inputs.view("edits_open", types.Error(label="Choose what becomes of the edited masks")).invalid = True
