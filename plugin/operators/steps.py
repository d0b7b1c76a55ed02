"""Operators for single steps: pseudo-masks, training, prediction, refinement."""

from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from umscosod.config import CrfConfig, PseudoConfig, RefineConfig
from umscosod.estimate import estimate_stages
from umscosod.progress import ProgressFn

from ..forms import (
    add_field_choice,
    add_group_choice,
    add_mask_field_choice,
    add_out_dir,
    add_overrides,
    add_settings,
    get_help,
    read_config,
    read_flag,
    read_group_field,
    read_number,
    read_text,
)
from ..jobs import NextStep
from .base import JobOperator, steps_after_masks

CLUSTERING, COCO_FILE, FIELD = "clustering", "COCO file", "field"


class GeneratePseudoMasks(JobOperator):
    """Stage 1 alone."""

    NAME = "generate_pseudo_masks"
    LABEL = "UMS-CoSOD: generate pseudo-masks"
    DESCRIPTION = "Make the pseudo-labels of each group (CM-SPLG), to look at and to train on"
    ACTION = "Make pseudo-masks of"
    ICON = "auto_fix_high"

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for groups, output field, the maker of instance masks, and settings."""
        add_group_choice(inputs, ctx.dataset)
        add_field_choice(inputs, ctx, "pseudo")
        makers = types.RadioGroup()
        makers.add_choice(CLUSTERING, label="Cluster the features of each image")
        makers.add_choice(COCO_FILE, label="Read a COCO file, such as HASSOD's results")
        makers.add_choice(FIELD, label="Take a detections field with masks")
        inputs.enum(
            "proposer",
            makers.values(),
            view=makers,
            default=CLUSTERING,
            label="Instance masks",
            description="How objects are cut out of single images, before groups are looked at",
        )
        chosen = read_text(ctx, "proposer", CLUSTERING)
        if chosen == COCO_FILE:
            inputs.str("detections", label="COCO file", required=True, description=get_help(PseudoConfig, "detections"))
        elif chosen == FIELD:
            choices = types.DropdownView()
            for name in sorted(ctx.dataset.get_field_schema(embedded_doc_type=fo.Detections)):
                choices.add_choice(name, label=name)
            inputs.enum("detections_field", choices.values(), view=choices, label="Detections field", required=True)
        add_out_dir(inputs)
        add_settings(inputs, ctx)

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `pseudo_label_dataset`."""
        proposer = read_text(ctx, "proposer", CLUSTERING)
        file = {"pseudo.proposer": "coco-json", "pseudo.detections": read_text(ctx, "detections")}
        return {
            "group_field": read_group_field(ctx),
            "field": read_text(ctx, "field", "pseudo"),
            "out_dir": read_text(ctx, "out_dir") or None,
            "config": read_config(ctx, file if proposer == COCO_FILE else {}),
            "detections_field": read_text(ctx, "detections_field") or None if proposer == FIELD else None,
            "overwrite": read_flag(ctx, "overwrite"),
        }

    def work(self, view: Any, progress: ProgressFn, **options: Any) -> Any:
        """Call `pseudo_label_dataset`."""
        from umscosod.integrations.fiftyone import pseudo_label_dataset

        return pseudo_label_dataset(view, **options, progress=progress)

    def estimate(self, view: Any, options: dict[str, Any]) -> dict[str, float]:
        """Features and labels."""
        stages = estimate_stages(len(view), options["config"], train=False)
        return {name: stages[name] for name in ("features", "pseudo-labels")}

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

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for groups, masks to learn from, a name and settings."""
        add_group_choice(inputs, ctx.dataset)
        add_mask_field_choice(
            inputs,
            ctx,
            "labels",
            "Masks to learn from",
            default="pseudo",
            description="Such as pseudo-masks; samples with a rejected mask are left out. '-': accepted masks alone",
        )
        inputs.bool(
            "use_reviewed",
            default=True,
            label="Use accepted masks",
            description="Masks in the field 'reviewed' take the place of the others, with full weight",
        )
        inputs.str("key", label="Name of the network", default="network", required=True)
        inputs.bool("overwrite", default=False, label="Replace a network of that name")
        add_out_dir(inputs)
        add_settings(inputs, ctx)

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `train_dataset`."""
        from umscosod.integrations.fiftyone.runs.fields import REVIEWED

        labels = read_text(ctx, "labels", "pseudo")
        return {
            "group_field": read_group_field(ctx),
            "labels": None if labels == "-" else labels,
            "reviewed": REVIEWED if read_flag(ctx, "use_reviewed", True) else None,
            "key": read_text(ctx, "key", "network"),
            "out_dir": read_text(ctx, "out_dir") or None,
            "config": read_config(ctx),
            "overwrite": read_flag(ctx, "overwrite"),
        }

    def work(self, view: Any, progress: ProgressFn, **options: Any) -> Any:
        """Call `train_dataset`."""
        from umscosod.integrations.fiftyone import train_dataset

        return train_dataset(view, **options, progress=progress)

    def estimate(self, view: Any, options: dict[str, Any]) -> dict[str, float]:
        """Features and training."""
        stages = estimate_stages(len(view), options["config"], train=True)
        return {name: stages[name] for name in ("features", "training") if name in stages}

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

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the network, groups, output field and settings."""
        choices = types.AutocompleteView(allow_user_input=True)
        for key in sorted(ctx.dataset.list_runs()):
            choices.add_choice(key, label=key)
        inputs.str(
            "checkpoint",
            label="Network",
            view=choices,
            required=True,
            description="A run that trained, or the path of a checkpoint or of an output folder",
        )
        add_group_choice(inputs, ctx.dataset)
        add_field_choice(inputs, ctx, "predicted")
        add_out_dir(inputs)
        add_settings(inputs, ctx)

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `predict_dataset`."""
        return {
            "checkpoint": read_text(ctx, "checkpoint"),
            "group_field": read_group_field(ctx),
            "field": read_text(ctx, "field", "predicted"),
            "out_dir": read_text(ctx, "out_dir") or None,
            "config": read_config(ctx),
            "overwrite": read_flag(ctx, "overwrite"),
        }

    def work(self, view: Any, progress: ProgressFn, **options: Any) -> Any:
        """Call `predict_dataset`."""
        from umscosod.integrations.fiftyone import predict_dataset

        return predict_dataset(view, **options, progress=progress)

    def estimate(self, view: Any, options: dict[str, Any]) -> dict[str, float]:
        """Features and refinement."""
        stages = estimate_stages(len(view), options["config"], train=False)
        return {name: stages[name] for name in ("features", "refinement")}

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

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the run, output field and what to change."""
        choices = types.AutocompleteView(allow_user_input=True)
        schema = ctx.dataset.get_field_schema(embedded_doc_type=fo.Heatmap)
        for name in sorted(name.removesuffix("_map") for name in schema if name.endswith("_map")):
            choices.add_choice(name, label=name)
        inputs.str("source", label="Run", view=choices, default="cosal")
        add_field_choice(inputs, ctx, "refined")
        for name, label, default in (
            ("adaptive", "Threshold per image", True),
            ("region_filter", "Filter regions", True),
            ("crf", "DenseCRF", True),
        ):
            section, attribute = (CrfConfig, "enabled") if name == "crf" else (RefineConfig, name)
            inputs.bool(name, default=default, label=label, description=get_help(section, attribute))
        th0_help = get_help(RefineConfig, "th0")
        inputs.float("th0", label="Threshold", default=RefineConfig().th0, description=th0_help, min=0, max=1)
        add_out_dir(inputs)
        add_overrides(inputs, ctx, example="refine.sim_th=0.6")

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `refine_dataset`."""
        chosen = {
            "refine.adaptive": read_flag(ctx, "adaptive", True),
            "refine.region_filter": read_flag(ctx, "region_filter", True),
            "refine.crf.enabled": read_flag(ctx, "crf", True),
            "refine.th0": read_number(ctx, "th0", RefineConfig().th0),
        }
        return {
            "source": read_text(ctx, "source", "cosal"),
            "field": read_text(ctx, "field", "refined"),
            "out_dir": read_text(ctx, "out_dir") or None,
            "config": read_config(ctx, chosen),
            "overwrite": read_flag(ctx, "overwrite"),
        }

    def work(self, view: Any, progress: ProgressFn, **options: Any) -> Any:
        """Call `refine_dataset`."""
        from umscosod.integrations.fiftyone import refine_dataset

        return refine_dataset(view, **options, progress=progress)

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Review the worst, score, take away."""
        return steps_after_masks(ctx, read_text(ctx, "field", "refined"))

    def describe_done(self, ctx: Any) -> str:
        """Say in which field the result is."""
        return f"Refined masks are in the field {read_text(ctx, 'field', 'refined')!r}"
