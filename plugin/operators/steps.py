"""Defines the operators for single steps: pseudo-masks, training, prediction, refinement."""

from typing import Any

from umscosod.config import RefineConfig

from ..forms import (
    Form,
    add_editable,
    add_field_choice,
    add_out_dir,
    read_flag,
    read_group_field,
    read_number,
    read_text,
)
from ..interrupted import add_interrupted
from ..jobs import NextStep
from ..outlook import open_form
from ..settings import add_engine, add_overrides, add_settings, check_engine, check_settings, is_advanced, read_config
from .base import JobOperator
from .step_fields import (
    CLUSTERING,
    COCO_FILE,
    FIELD,
    add_lessons,
    add_mask_source,
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
    """Does stage 1 alone."""

    NAME = "generate_pseudo_masks"
    LABEL = "UMS-CoSOD: generate pseudo-masks"
    DESCRIPTION = "Make the pseudo-labels of each group (CM-SPLG), to look at and to train on"
    ACTION = "Make pseudo-masks of"
    ICON = "auto_fix_high"
    CALL = "pseudo_label_dataset"
    CAN_EDIT = True
    STAGES = ("features", "pseudo-labels")
    DEFAULT = "pseudo"
    DONE = "Pseudo-masks are in the field '{}'"

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for groups and output field; on demand also for the source of instance masks and the other settings."""
        form, outlook = open_form(self, inputs, ctx)
        outlook.add_headline(stages=self.STAGES)
        outlook.add_group_choice()
        field = add_field_choice(form, self.DEFAULT)
        if add_interrupted(form, field):
            return
        check_settings(form)
        if is_advanced(form, "Where single objects come from. "):
            add_mask_source(form)
            add_settings(form)
            add_editable(form)
            add_out_dir(form, field)

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return groups, settings, and the source of instance masks."""
        proposer = read_text(ctx, "proposer", CLUSTERING)
        file = {"pseudo.proposer": "coco-json", "pseudo.detections": read_text(ctx, "detections")}
        return {
            "group_field": read_group_field(ctx),
            "config": read_config(ctx, file if proposer == COCO_FILE else {}),
            "detections_field": read_text(ctx, "detections_field") or None if proposer == FIELD else None,
        }

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Offer to review the masks, and to train on them."""
        train = NextStep(label="Train on them", operator="train", params={"labels": self.name_of(ctx)})
        return (*super().next_steps(ctx), train)


class Train(JobOperator):
    """Does stage 2 alone."""

    NAME = "train"
    LABEL = "UMS-CoSOD: train the network"
    DESCRIPTION = "Train on pseudo-masks, on masks that a person accepted, or on both; the network becomes a run"
    ACTION = "Train on"
    ICON = "model_training"
    CALL = "train_dataset"
    STAGES = ("features", "training")
    OUTPUT, DEFAULT = "key", "network"
    DONE = "The network is the run '{}'; 'predict' labels any view with it"

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for groups, masks to learn from and a name; on demand also for the other settings."""
        form, outlook = open_form(self, inputs, ctx)
        outlook.add_headline(stages=self.STAGES, train=True)
        outlook.add_group_choice()
        has_reviewed = add_lessons(form)
        key = form.text("key", self.DEFAULT, label="Name of the network")
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

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return groups, settings, and the masks to learn from."""
        from umscosod.integrations.fiftyone.runs.fields import REVIEWED

        labels = read_text(ctx, "labels", "pseudo")
        return {
            "group_field": read_group_field(ctx),
            "labels": None if labels == "-" else labels,
            "reviewed": REVIEWED if read_flag(ctx, "use_reviewed", True) else None,
            "config": read_config(ctx),
        }

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Offer to label with the network."""
        return (NextStep(label="Label with it", operator="predict", params={"checkpoint": self.name_of(ctx)}),)


class Predict(JobOperator):
    """Labels a collection with a trained network."""

    NAME = "predict"
    LABEL = "UMS-CoSOD: predict with a trained network"
    DESCRIPTION = "Label a new collection with a run's network or a checkpoint on disk; nothing is trained"
    ACTION = "Label"
    ICON = "smart_toy"
    CALL = "predict_dataset"
    CAN_EDIT = True
    HAS_ENGINE = True
    STAGES = ("features", "prediction", "refinement")
    DEFAULT = "predicted"
    DONE = "Masks are in the field '{}'"

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the network, groups and output field; on demand also for the other settings."""
        form, outlook = open_form(self, inputs, ctx)
        outlook.add_headline(stages=self.STAGES)
        add_network_choice(form)
        outlook.add_group_choice()
        field = add_field_choice(form, self.DEFAULT)
        if add_interrupted(form, field):
            return
        check_settings(form)
        check_engine(form)
        if is_advanced(form):
            add_settings(form)
            add_engine(form)
            add_editable(form)
            add_out_dir(form, field)

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return the network, groups and settings."""
        return {
            "checkpoint": read_text(ctx, "checkpoint"),
            "group_field": read_group_field(ctx),
            "config": read_config(ctx),
        }


class Refine(JobOperator):
    """Does stage 3 alone, from stored soft maps."""

    NAME = "refine"
    LABEL = "UMS-CoSOD: refine soft maps"
    DESCRIPTION = "Threshold, filter regions and run DenseCRF anew on a run's stored soft maps; no network is run"
    ACTION = "Refine"
    ICON = "tune"
    CALL = "refine_dataset"
    CAN_EDIT = True
    DEFAULT = "refined"
    DONE = "Refined masks are in the field '{}'"
    SECTION = "refine."
    """The settings that the form reads; all others are those of the refined run."""

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the run, output field and threshold; on demand also for the other settings."""
        form = Form(inputs, ctx, self.NAME)
        add_source(form)
        field = add_field_choice(form, self.DEFAULT)
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
            add_editable(form)
            add_out_dir(form, field)

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return the run to refine, and settings of stage 3."""
        chosen = {
            "refine.adaptive": read_flag(ctx, "adaptive", True),
            "refine.region_filter": read_flag(ctx, "region_filter", True),
            "refine.crf.enabled": read_flag(ctx, "crf", True),
            "refine.th0": read_number(ctx, "th0", RefineConfig().th0),
        }
        return {
            "source": read_text(ctx, "source", "cosal"),
            "config": read_config(ctx, chosen, section=self.SECTION),
        }
