"""Operator `label`: choose samples and a folder; masks, maps and scores of certainty come back as fields."""

import contextlib
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.errors import UmscosodError

from ..forms import get_help
from ..progress import Throttle, describe, iter_progress

BY_FOLDER = "(folder)"
BACKBONES = ("auto", "embedded", "dino_vitb8", "dino_vits8", "dinov2_vitb14_reg", "dinov2_vits14_reg", "dinov2_vits14")
# RiskLevel exists from FiftyOne 1.16 on; without it an operator counts as dangerous to agents.
RISK = getattr(getattr(types, "RiskLevel", None), "MEDIUM", None)


class Label(foo.Operator):
    """All stages on a new collection, in one go."""

    @property
    def config(self) -> Any:
        """Name, label and ways to run."""
        risk = {"risk_level": RISK} if RISK is not None else {}
        return foo.OperatorConfig(
            name="label",
            label="UMS-CoSOD: label the common object",
            description="Find and segment the object that recurs in each group of images, without annotation",
            dynamic=True,  # the form answers to what is typed
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            default_choice_to_delegated=False,
            **risk,
        )

    def resolve_placement(self, ctx: Any) -> Any:
        """Put a button above the grid."""
        button = types.Button(label="Label the common object", icon="auto_awesome", prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    def resolve_input(self, ctx: Any) -> Any:
        """Build the form; runs at every keystroke, so it asks the database for nothing but the schema."""
        inputs = types.Object()
        inputs.view_target(ctx, action_description="Label")
        _add_group_choice(inputs, ctx.dataset)
        inputs.str(
            "out_dir",
            label="Output folder",
            description="Masks, maps and the report are written here; the labels point to these files, so keep them",
            required=True,
        )
        _add_field_choice(inputs, ctx)
        backbones = types.DropdownView()
        for name in BACKBONES:
            backbones.add_choice(name, label=name)
        inputs.enum(
            "backbone",
            backbones.values(),
            view=backbones,
            default="auto",
            label="Features",
            description=get_help(FeaturesConfig, "backbone"),
        )
        inputs.str("weights", allow_empty=True, label="Weight file", description=get_help(FeaturesConfig, "weights"))
        inputs.bool(
            "train",
            default=True,
            label="Train on these images",
            description="Off: stop at refined pseudo-labels, which is much faster",
        )
        inputs.bool(
            "overwrite",
            default=False,
            label="Replace labels that are there",
            description="Off: samples that have a label in the output field keep it",
        )
        return types.Property(inputs, view=types.View(label="Label the common object"))

    def execute(self, ctx: Any) -> Any:
        """Run `label_dataset`, with its progress shown as it goes."""
        from umscosod.integrations.fiftyone import label_dataset

        options = _read_params(ctx)
        view = ctx.target_view()

        if ctx.delegated:
            label_dataset(view, **options, progress=Throttle(lambda *report: ctx.set_progress(**describe(*report))))
            return

        try:
            report = yield from _show_progress(
                ctx, iter_progress(lambda progress: label_dataset(view, **options, progress=Throttle(progress)))
            )
        except UmscosodError as error:
            raise ValueError(str(error)) from error  # the App shows a ValueError's text as it is
        counts = Counter(str(row.status) for row in report.rows)
        summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        yield ctx.ops.notify(
            f"{summary}; files in {report.out}", variant="success" if counts["labelled"] else "warning"
        )
        yield ctx.trigger("reload_dataset")  # the new fields appear in the sidebar

    def resolve_output(self, ctx: Any) -> Any:
        """Say where things are (a generator has no result of its own to show)."""
        outputs = types.Object()
        field, out = ctx.params.get("field", "cosal"), ctx.params.get("out_dir", "")
        text = f"Masks are in the field {field!r}, soft maps in '{field}_map'. Files: {out}"
        outputs.view("done", types.Notice(label=text))
        return types.Property(outputs, view=types.View(label="Done"))

    def __call__(self, sample_collection: Any, out_dir: str | Path, *, delegate: bool = False, **params: Any) -> Any:
        """Run from Python: ``foo.get_operator("@umscosod/umscosod/label")(dataset, "out", group_field="class")``."""
        given = {"out_dir": str(out_dir), "field": "cosal", **params}
        ctx = {"view": sample_collection.view(), "params": given}
        return foo.execute_operator(self.uri, ctx, request_delegation=delegate)


def _show_progress(ctx: Any, reports: Generator[tuple[int, int, str], None, Any]) -> Generator[Any, None, Any]:
    """Turn reports into the App's progress bar; return what the work returned."""
    with contextlib.closing(reports):  # closing this one stops the work too
        while True:
            try:
                report = next(reports)
            except StopIteration as end:
                return end.value
            yield ctx.ops.set_progress(**describe(*report))


def _add_group_choice(inputs: Any, dataset: Any) -> None:
    """Offer the image's folder and every text or Classification field."""
    choices = types.AutocompleteView(allow_user_input=True)
    choices.add_choice(BY_FOLDER, label="the folder an image lies in")
    names = {
        *dataset.get_field_schema(ftype=fo.StringField),
        *dataset.get_field_schema(embedded_doc_type=fo.Classification),
    }
    for name in sorted(names - {"filepath"}):
        choices.add_choice(name, label=name)
    inputs.str(
        "group_field",
        label="Group by",
        view=choices,
        default=BY_FOLDER,
        description="Images with one value are searched together for what they share",
    )


def _add_field_choice(inputs: Any, ctx: Any) -> None:
    """Ask for the output field, refuse bad names at once, and say what will happen to a field that exists."""
    name = str(ctx.params.get("field") or "cosal")  # raw: may be any type before validation
    found = ctx.dataset.get_field(name) if name.isidentifier() else None
    problem = ""
    if not name.isidentifier() or name.startswith("_"):
        problem = "Letters, digits and '_', starting with a letter"
    elif found is not None and getattr(found, "document_type", None) is not fo.Segmentation:
        problem = f"{name!r} exists and holds something other than masks"
    inputs.str(
        "field", label="Output field", default="cosal", required=True, invalid=bool(problem), error_message=problem
    )
    if problem:
        inputs.view("field_problem", types.Error(label=f"Output field: {problem}")).invalid = True
    elif found is not None:
        kept = "replaced" if ctx.params.get("overwrite") else "kept; only samples without one are labelled"
        inputs.view("field_note", types.Notice(label=f"{name!r} exists: its labels are {kept}"))


def _read_params(ctx: Any) -> dict[str, Any]:
    """Turn checked form values into arguments; calls from Python do not fill in the form's defaults."""
    params = ctx.params
    out_dir = str(params.get("out_dir") or "").strip()
    if not out_dir:
        raise ValueError("Choose an output folder")
    group_field = params.get("group_field") or BY_FOLDER
    features = FeaturesConfig(backbone=params.get("backbone") or "auto", weights=params.get("weights") or "")
    return {
        "group_field": None if group_field == BY_FOLDER else group_field,
        "out_dir": out_dir,
        "field": params.get("field") or "cosal",
        "config": PipelineConfig(features=features),
        "train": bool(params.get("train", True)),
        "overwrite": bool(params.get("overwrite", False)),
    }
