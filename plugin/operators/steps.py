"""Operators for single steps: pseudo-masks, training, prediction, refinement."""

from typing import Any

from umscosod.config import RefineConfig
from umscosod.progress import ProgressFn

from ..forms import (
    Form,
    add_field_choice,
    add_out_dir,
    read_flag,
    read_group_field,
    read_number,
    read_text,
    remember_values,
)
from ..interrupted import add_interrupted, call_library, choose_call
from ..jobs import NextStep
from ..outlook import open_form
from ..settings import add_overrides, add_settings, check_settings, is_advanced, read_config
from .base import JobOperator, steps_after_masks
from .step_fields import (
    CLUSTERING,
    COCO_FILE,
    FIELD,
    add_lessons,
    add_maker,
    add_network_choice,
    add_source,
    add_use_reviewed,
)

SWITCHES = {
    "adaptive": ("Adapt the threshold to each image", "Off: the same threshold for all"),
    "region_filter": ("Drop regions unlike the group's object", "Off: all that lies above the threshold stays"),
    "crf": ("Follow the borders in the picture (DenseCRF)", "Off: faster, with rougher borders"),
}


class GeneratePseudoMasks(JobOperator):
    """Stage 1 alone."""

    NAME = "generate_pseudo_masks"
    LABEL = "UMS-CoSOD: generate pseudo-masks"
    DESCRIPTION = "Make the pseudo-labels of each group (CM-SPLG), to look at and to train on"
    ACTION = "Make pseudo-masks of"
    ICON = "auto_fix_high"
    STAGES = ("features", "pseudo-labels")

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for groups and output field; for the maker of instance masks and the rest on demand."""
        form, outlook = open_form(self, inputs, ctx)
        outlook.add_headline(stages=self.STAGES)
        outlook.add_group_choice()
        field = add_field_choice(form, "pseudo")
        if add_interrupted(form, field):
            return
        check_settings(form)
        if is_advanced(form, "Where single objects come from. "):
            add_maker(form)
            add_settings(form)
            add_out_dir(form, field)

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `pseudo_label_dataset`."""
        remember_values(ctx, self.NAME)
        proposer = read_text(ctx, "proposer", CLUSTERING)
        file = {"pseudo.proposer": "coco-json", "pseudo.detections": read_text(ctx, "detections")}
        options = {
            "group_field": read_group_field(ctx),
            "field": read_text(ctx, "field", "pseudo"),
            "out_dir": read_text(ctx, "out_dir") or None,
            "config": read_config(ctx, file if proposer == COCO_FILE else {}),
            "detections_field": read_text(ctx, "detections_field") or None if proposer == FIELD else None,
            "overwrite": read_flag(ctx, "overwrite"),
        }
        return choose_call(ctx, read_text(ctx, "field", "pseudo"), options)

    def work(self, view: Any, progress: ProgressFn, **options: Any) -> Any:
        """Call `pseudo_label_dataset`."""
        from umscosod.integrations.fiftyone import pseudo_label_dataset

        return call_library(pseudo_label_dataset, view, progress, **options)

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Review, and train on them."""
        field = read_text(ctx, "field", "pseudo")
        train = NextStep(label="Train on them", operator="train", params={"labels": field})
        return (*steps_after_masks(ctx, field), train)

    def describe_done(self, ctx: Any) -> str:
        """Say in which field the result is."""
        return f"Pseudo-masks are in the field {read_text(ctx, 'field', 'pseudo')!r}"


class Train(JobOperator):
    """Stage 2 alone."""

    NAME = "train"
    LABEL = "UMS-CoSOD: train the network"
    DESCRIPTION = "Train on pseudo-masks, on masks that a person accepted, or on both; the network becomes a run"
    ACTION = "Train on"
    ICON = "model_training"
    STAGES = ("features", "training")

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for groups, masks to learn from and a name; for the rest on demand."""
        form, outlook = open_form(self, inputs, ctx)
        outlook.add_headline(stages=self.STAGES, train=True)
        outlook.add_group_choice()
        has_reviewed = add_lessons(form)
        key = form.text("key", "network", label="Name of the network")
        if add_interrupted(form, key):
            return
        if key in ctx.dataset.list_runs():
            form.flag("overwrite", label=f"Replace the network {key!r}", description="Off: a finished one stays")
        check_settings(form)
        if is_advanced(form):
            if has_reviewed:
                add_use_reviewed(form)
            add_settings(form)
            add_out_dir(form, key)

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `train_dataset`."""
        remember_values(ctx, self.NAME)
        from umscosod.integrations.fiftyone.runs.fields import REVIEWED

        labels = read_text(ctx, "labels", "pseudo")
        options = {
            "group_field": read_group_field(ctx),
            "labels": None if labels == "-" else labels,
            "reviewed": REVIEWED if read_flag(ctx, "use_reviewed", True) else None,
            "key": read_text(ctx, "key", "network"),
            "out_dir": read_text(ctx, "out_dir") or None,
            "config": read_config(ctx),
            "overwrite": read_flag(ctx, "overwrite"),
        }
        return choose_call(ctx, read_text(ctx, "key", "network"), options)

    def work(self, view: Any, progress: ProgressFn, **options: Any) -> Any:
        """Call `train_dataset`."""
        from umscosod.integrations.fiftyone import train_dataset

        return call_library(train_dataset, view, progress, **options)

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Label with the network."""
        return (
            NextStep(
                label="Label with it", operator="predict", params={"checkpoint": read_text(ctx, "key", "network")}
            ),
        )

    def describe_done(self, ctx: Any) -> str:
        """Say how to use the network."""
        return f"The network is the run {read_text(ctx, 'key', 'network')!r}; 'predict' labels any view with it"


class Predict(JobOperator):
    """Label a collection with a trained network."""

    NAME = "predict"
    LABEL = "UMS-CoSOD: predict with a trained network"
    DESCRIPTION = "Label a new collection with a run's network or a checkpoint on disk; nothing is trained"
    ACTION = "Label"
    ICON = "smart_toy"
    STAGES = ("features", "prediction", "refinement")

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the network, groups and output field; for the rest on demand."""
        form, outlook = open_form(self, inputs, ctx)
        outlook.add_headline(stages=self.STAGES)
        add_network_choice(form)
        outlook.add_group_choice()
        field = add_field_choice(form, "predicted")
        if add_interrupted(form, field):
            return
        check_settings(form)
        if is_advanced(form):
            add_settings(form)
            add_out_dir(form, field)

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `predict_dataset`."""
        remember_values(ctx, self.NAME)
        options = {
            "checkpoint": read_text(ctx, "checkpoint"),
            "group_field": read_group_field(ctx),
            "field": read_text(ctx, "field", "predicted"),
            "out_dir": read_text(ctx, "out_dir") or None,
            "config": read_config(ctx),
            "overwrite": read_flag(ctx, "overwrite"),
        }
        return choose_call(ctx, read_text(ctx, "field", "predicted"), options)

    def work(self, view: Any, progress: ProgressFn, **options: Any) -> Any:
        """Call `predict_dataset`."""
        from umscosod.integrations.fiftyone import predict_dataset

        return call_library(predict_dataset, view, progress, **options)

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Review the worst, score, take away."""
        return steps_after_masks(ctx, read_text(ctx, "field", "predicted"))

    def describe_done(self, ctx: Any) -> str:
        """Say in which field the result is."""
        return f"Masks are in the field {read_text(ctx, 'field', 'predicted')!r}"


class Refine(JobOperator):
    """Stage 3 alone, from stored soft maps."""

    NAME = "refine"
    LABEL = "UMS-CoSOD: refine soft maps"
    DESCRIPTION = "Threshold, filter regions and run DenseCRF anew on a run's stored soft maps; no network is run"
    ACTION = "Refine"
    ICON = "tune"
    SECTION = "refine."
    """Of the settings: all others are those of the run that is refined."""

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the run, output field and threshold; for the rest on demand."""
        form = Form(inputs, ctx, self.NAME)
        add_source(form)
        field = add_field_choice(form, "refined")
        if add_interrupted(form, field):
            return
        inputs.float(
            "th0",
            label="Threshold",
            default=form.last("th0", RefineConfig().th0),
            description="Of the soft map, 0 to 1: what lies above belongs to the object. Higher: smaller masks",
            min=0,
            max=1,
        )
        check_settings(form, self.SECTION)
        if form.flag("advanced", label="Advanced", description="What else makes a mask of a map, and the folder"):
            for name, (label, description) in SWITCHES.items():
                form.flag(name, True, label=label, description=description)
            add_overrides(form, example="refine.sim_th=0.6")
            add_out_dir(form, field)

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `refine_dataset`."""
        remember_values(ctx, self.NAME)
        chosen = {
            "refine.adaptive": read_flag(ctx, "adaptive", True),
            "refine.region_filter": read_flag(ctx, "region_filter", True),
            "refine.crf.enabled": read_flag(ctx, "crf", True),
            "refine.th0": read_number(ctx, "th0", RefineConfig().th0),
        }
        options = {
            "source": read_text(ctx, "source", "cosal"),
            "field": read_text(ctx, "field", "refined"),
            "out_dir": read_text(ctx, "out_dir") or None,
            "config": read_config(ctx, chosen, section=self.SECTION),
            "overwrite": read_flag(ctx, "overwrite"),
        }
        return choose_call(ctx, read_text(ctx, "field", "refined"), options)

    def work(self, view: Any, progress: ProgressFn, **options: Any) -> Any:
        """Call `refine_dataset`."""
        from umscosod.integrations.fiftyone import refine_dataset

        return call_library(refine_dataset, view, progress, **options)

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Review the worst, score, take away."""
        return steps_after_masks(ctx, read_text(ctx, "field", "refined"))

    def describe_done(self, ctx: Any) -> str:
        """Say in which field the result is."""
        return f"Refined masks are in the field {read_text(ctx, 'field', 'refined')!r}"
