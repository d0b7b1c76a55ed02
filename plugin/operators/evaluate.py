"""Operators `evaluate` and `compare`."""

from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from umscosod.integrations.fiftyone.evaluation.report import IMAGE_FIELDS, WORDS

from ..forms import add_group_choice, add_mask_field_choice, read_flag, read_group_field, read_text
from .base import JobOperator, QuickOperator

PANEL = "compare_models"
STORE = "umscosod/compare"
STORED_FOR_S = 60
"""How long the panel may take to open and look for what it is to show."""
DEFINITIONS = {
    "cosod": "cosod: eval-co-sod, the figures of papers on co-saliency",
    "sod": "sod: PySODMetrics, the figures of papers on saliency",
}


class Evaluate(JobOperator):
    """Score a run against ground truths."""

    NAME = "evaluate"
    LABEL = "UMS-CoSOD: evaluate against ground truth"
    DESCRIPTION = "MAE, F, E, S and IoU of each image, each group and the data set; shown in Model Evaluation too"
    ACTION = "Evaluate"
    ICON = "ssid_chart"
    BUTTON = "Evaluate"
    RISK = "LOW"

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the two fields, the groups and the name."""
        add_mask_field_choice(
            inputs, ctx, "pred_field", "Predicted masks", default=_guess_prediction(ctx.dataset), required=True
        )
        _add_truth_choice(inputs, ctx)
        add_group_choice(inputs, ctx.dataset)
        pred_field, key = read_text(ctx, "pred_field"), _read_key(ctx)
        definitions = types.DropdownView()
        for name, label in DEFINITIONS.items():
            definitions.add_choice(name, label=label)
        inputs.enum("definition", definitions.values(), view=definitions, default="cosod", label="Definition")
        if pred_field and ctx.dataset.get_field(f"{pred_field}_map") is not None:
            inputs.bool("use_maps", default=False, label=f"Score the soft maps in {pred_field}_map, not the masks")
        inputs.bool(
            "all_measures",
            default=False,
            label="A field for each of the nine measures of an image",
            description="Off: IoU and S-measure; all others are kept with the evaluation",
        )
        inputs.str(
            "eval_key",
            allow_empty=True,
            label="Name of the evaluation",
            description=f"Empty: {'eval_' + pred_field if pred_field else 'made of the name of the field'}",
        )
        if key and key in ctx.dataset.list_evaluations():
            inputs.bool("overwrite", default=False, label=f"Replace the evaluation {key!r}")
            if not read_flag(ctx, "overwrite"):
                text = f"{key!r} exists: tick the box to replace it, or type another name"
                inputs.view("key_problem", types.Error(label=text)).invalid = True

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Arguments of `evaluate_dataset`."""
        return {
            "pred_field": read_text(ctx, "pred_field"),
            "gt_field": read_text(ctx, "gt_field"),
            "eval_key": read_text(ctx, "eval_key") or None,
            "group_field": read_group_field(ctx),
            "definition": read_text(ctx, "definition", "cosod"),
            "use_maps": read_flag(ctx, "use_maps"),
            "fields": tuple(WORDS) if read_flag(ctx, "all_measures") else IMAGE_FIELDS,
            "overwrite": read_flag(ctx, "overwrite"),
        }

    def work(self, view: Any, progress: Any, **options: Any) -> Any:
        """Call `evaluate_dataset`."""
        from umscosod.integrations.fiftyone import evaluate_dataset

        return evaluate_dataset(view, **options, progress=progress)

    def describe_done(self, ctx: Any) -> str:
        """Say where the figures are."""
        key = _read_key(ctx)
        return f"Figures are in the fields {key}_iou and {key}_s, and in the panels Model Evaluation and {PANEL}"


class Compare(QuickOperator):
    """Two evaluations side by side."""

    NAME = "compare"
    LABEL = "UMS-CoSOD: compare two evaluations"
    DESCRIPTION = (
        "Open the comparison of two evaluated runs: measures, groups, and the images where one beats the other"
    )
    ICON = "compare"
    BUTTON = "Compare models"
    RISK = "LOW"
    CHANGES_DATASET = False

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask which two."""
        from umscosod.integrations.fiftyone import comparable_evaluations

        keys, _ = comparable_evaluations(ctx.dataset)
        if len(keys) < 2:
            text = f"Two evaluations are needed and there {'is one' if keys else 'are none'}: run 'evaluate' first"
            inputs.view("too_few", types.Error(label=text)).invalid = True
            return
        for name, label, default in (("a", "A", keys[-2]), ("b", "B", keys[-1])):
            choices = types.DropdownView()
            for key in keys:
                choices.add_choice(key, label=key)
            inputs.enum(name, choices.values(), view=choices, default=default, label=label, required=True)
        if read_text(ctx, "a") and read_text(ctx, "a") == read_text(ctx, "b"):
            inputs.view("same", types.Error(label="Choose two different evaluations")).invalid = True
        measures = types.DropdownView()
        for name, label in WORDS.items():
            measures.add_choice(name, label=label)
        inputs.enum("measure", measures.values(), view=measures, default="iou", label="Measure of groups and images")

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Open the panel; the table goes to callers from Python. `a` and `b` may be names of runs as well."""
        from umscosod.integrations.fiftyone.evaluation.comparison import compare_dataset, find_evaluation

        a, b = (find_evaluation(ctx.dataset, read_text(ctx, name)) for name in ("a", "b"))
        measure: Any = read_text(ctx, "measure", "iou")
        found = compare_dataset(ctx.dataset, a, b, measure=measure)
        ctx.store(STORE).set("choice", {"a": a, "b": b, "measure": found.measure}, ttl=STORED_FOR_S)
        for panel_id in _open_panels(getattr(ctx, "spaces", None)):
            # one that is open would keep what it shows: opening it only brings it to the front
            ctx.trigger(f"{self.plugin_name}/{PANEL}", {"panel_id": panel_id, "__method__": "on_load"})
        ctx.ops.open_panel(PANEL, layout="horizontal", is_active=True)
        groups = [
            {"group": row.group, "n_a": row.n_a, "n_b": row.n_b, "a": row.a, "b": row.b, "gain": row.gain}
            for row in found.groups
        ]
        return {"summary": found.summary, "table": found.table(), "groups": groups}

    def resolve_output(self, ctx: Any) -> None:
        """No dialog: it would hide the panel, which shows it all."""


def _open_panels(space: Any) -> list[str]:
    """Ids of our panels in the App's layout; None (a call from Python) has none."""
    if getattr(space, "type", None) == PANEL:
        return [str(space.component_id)]
    return [panel for child in getattr(space, "children", None) or [] for panel in _open_panels(child)]


def _read_key(ctx: Any) -> str:
    pred_field = read_text(ctx, "pred_field")
    return read_text(ctx, "eval_key") or (f"eval_{pred_field}" if pred_field else "")


def _guess_prediction(dataset: Any) -> str:
    """First mask field that a run wrote: those have a status beside them."""
    masks = sorted(dataset.get_field_schema(embedded_doc_type=fo.Segmentation))
    return next((name for name in masks if dataset.get_field(f"{name}_status") is not None), "")


def _add_truth_choice(inputs: Any, ctx: Any) -> None:
    """Offer fields of masks and of instances, the usual name first."""
    dataset = ctx.dataset
    masks = sorted(dataset.get_field_schema(embedded_doc_type=fo.Segmentation))
    instances = sorted(dataset.get_field_schema(embedded_doc_type=fo.Detections))
    choices = types.AutocompleteView(allow_user_input=True)
    for name in masks:
        choices.add_choice(name, label=name)
    for name in instances:
        choices.add_choice(name, label=f"{name} (instances: their union)")
    inputs.str(
        "gt_field",
        label="Ground truth",
        view=choices,
        default="ground_truth" if "ground_truth" in (*masks, *instances) else None,
        required=True,
    )
