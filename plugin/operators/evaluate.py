"""Defines the operators `evaluate` and `compare`."""

from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from umscosod.integrations.fiftyone.evaluation.method import IMAGE_FIELDS, WORDS
from umscosod.integrations.fiftyone.runs.fields import REVIEWED

from ..forms import (
    Form,
    mask_fields,
    names_as_words,
    read_flag,
    read_group_field,
    read_text,
)
from ..jobs import NextStep
from ..outlook import open_form
from ..spaces import show_panel
from .base import JobOperator, QuickOperator

PANEL = "compare_models"
STORE = "umscosod/compare"
STORED_FOR_S = 60
"""Seconds in which the panel must open and read its request."""
USUAL_TRUTHS = ("ground_truth", "gt", "truth", "groundtruth")
DEFINITIONS = {
    "cosod": "As in papers on co-saliency (eval-co-sod)",
    "sod": "As in papers on saliency (PySODMetrics)",
}


class Evaluate(JobOperator):
    """Scores a run against ground truth."""

    NAME = "evaluate"
    LABEL = "UMS-CoSOD: evaluate against ground truth"
    DESCRIPTION = "MAE, F, E, S and IoU of each image, each group and the data set; shown in Model Evaluation too"
    ACTION = "Evaluate"
    ICON = "ssid_chart"
    BUTTON = "Evaluate"
    RISK = "LOW"
    CALL = "evaluate_dataset"
    OUTPUT = ""

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the two fields and the groups; on demand also for definition and name."""
        form, outlook = open_form(self, inputs, ctx)
        outlook.add_headline()
        pred_field = _add_prediction_choice(form)
        _add_truth_choice(form)
        outlook.add_group_choice()
        if form.flag("advanced", label="Advanced", description="Definition and number of measures, name, soft maps"):
            form.choice("definition", DEFINITIONS, "cosod", label="Definition")
            form.text(
                "mask_value",
                allow_empty=True,
                label="Ids of the object in the ground truth",
                description="Only if masks hold several ids: 15, 1,2, 1-20 or #ff0000; 255 is then ignored",
            )
            if pred_field and ctx.dataset.get_field(f"{pred_field}_map") is not None:
                form.flag("use_maps", label=f"Score the soft maps in {pred_field}_map, not the masks")
            form.flag(
                "all_measures",
                label="A field for each of the nine measures of an image",
                description="Off: IoU and S-measure; all others are kept with the evaluation",
            )
            inputs.str(
                "eval_key",
                allow_empty=True,
                label="Name of the evaluation",
                description=f"Empty: {'eval_' + pred_field if pred_field else 'made of the name of the field'}",
            )
        _add_key_check(form)

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return the two fields, the groups, the measures, and the name of the evaluation."""
        return {
            "pred_field": read_text(ctx, "pred_field"),
            "gt_field": read_text(ctx, "gt_field"),
            "eval_key": read_text(ctx, "eval_key") or None,
            "group_field": read_group_field(ctx),
            "definition": read_text(ctx, "definition", "cosod"),
            "mask_value": read_text(ctx, "mask_value") or None,
            "use_maps": read_flag(ctx, "use_maps"),
            "fields": tuple(WORDS) if read_flag(ctx, "all_measures") else IMAGE_FIELDS,
        }

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Offer a comparison if there is another evaluation."""
        from umscosod.integrations.fiftyone import comparable_evaluations

        ctx.dataset.reload()  # the evaluation was made in another thread
        keys, _ = comparable_evaluations(ctx.dataset)
        others = [key for key in keys if key != _read_key(ctx)]
        if not others:
            return ()
        return (NextStep(label="Compare", operator=Compare.NAME, params={"a": _read_key(ctx), "b": others[-1]}),)

    def describe_done(self, ctx: Any) -> str:
        """Return the text that says where the scores are."""
        key = _read_key(ctx)
        return f"Figures are in the fields {key}_iou and {key}_s, and in the panels Model Evaluation and {PANEL}"


class Compare(QuickOperator):
    """Compares two evaluations."""

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
        """Ask for the two evaluations."""
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
        """Open the panel; return the table to callers from Python. `a` and `b` may also be names of runs."""
        from umscosod.integrations.fiftyone.evaluation.comparison import compare_dataset, find_evaluation

        a, b = (find_evaluation(ctx.dataset, read_text(ctx, name)) for name in ("a", "b"))
        measure: Any = read_text(ctx, "measure", "iou")
        found = compare_dataset(ctx.dataset, a, b, measure=measure)
        ctx.store(STORE).set("choice", {"a": a, "b": b, "measure": found.measure}, ttl=STORED_FOR_S)
        list(show_panel(ctx, f"{self.plugin_name}/{PANEL}"))
        groups = [
            {"group": row.group, "n_a": row.n_a, "n_b": row.n_b, "a": row.a, "b": row.b, "gain": row.gain}
            for row in found.groups
        ]
        return {"summary": found.summary, "table": found.table(), "groups": groups}

    def resolve_output(self, ctx: Any) -> None:
        """Show no dialog: it would cover the panel, which shows the result."""


def _read_key(ctx: Any) -> str:
    pred_field = read_text(ctx, "pred_field")
    return read_text(ctx, "eval_key") or (f"eval_{pred_field}" if pred_field else "")


def _add_prediction_choice(form: Form) -> str:
    """Offer the mask fields; preselect one of a run, recognised by its status field."""
    names = mask_fields(form.dataset)
    ours = [name for name in names if form.dataset.get_field(f"{name}_status") is not None]
    default = "cosal" if "cosal" in ours else next(iter(ours), "")
    words = names_as_words(names)
    return form.proposals("pred_field", words, default, label="Predicted masks", required=True)


def _add_truth_choice(form: Form) -> None:
    """Offer fields of masks and instances; preselect the usual name, otherwise the only field that no run wrote."""
    masks = mask_fields(form.dataset)
    instances = sorted(form.dataset.get_field_schema(embedded_doc_type=fo.Detections))
    words = {**names_as_words(masks), **{name: f"{name} (instances: their union)" for name in instances}}
    others = [name for name in words if form.dataset.get_field(f"{name}_status") is None and name != REVIEWED]
    usual = next((name for name in USUAL_TRUTHS if name in words), "")
    default = usual or (others[0] if len(others) == 1 else "")
    form.proposals("gt_field", words, default, label="Ground truth", required=True)


def _add_key_check(form: Form) -> None:
    """Ask for consent before an evaluation is replaced."""
    key = _read_key(form.ctx)
    if not key or key not in form.dataset.list_evaluations():
        return
    if not form.flag("overwrite", label=f"Replace the evaluation {key!r}"):
        form.error("key_problem", f"{key!r} exists: tick the box to replace it, or give another name (Advanced)")
