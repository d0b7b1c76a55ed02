"""Operator `label`: everything on a new collection, in one go."""

from typing import Any

from umscosod.estimate import estimate_stages
from umscosod.progress import ProgressFn

from ..forms import (
    add_field_choice,
    add_group_choice,
    add_method_choice,
    add_out_dir,
    add_settings,
    read_config,
    read_flag,
    read_group_field,
    read_text,
)
from ..jobs import NextStep
from .base import JobOperator, steps_after_masks


class Label(JobOperator):
    """All stages in one go."""

    NAME = "label"
    LABEL = "UMS-CoSOD: label the common object"
    DESCRIPTION = "Find and segment the object that recurs in each group of images, without annotation"
    ACTION = "Label"
    BUTTON = "Label the common object"

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for groups, output field, method, training and settings."""
        add_group_choice(inputs, ctx.dataset)
        add_field_choice(inputs, ctx, "cosal")
        add_method_choice(inputs)
        inputs.bool(
            "train",
            default=True,
            label="Train on these images",
            description="Off: stop at refined pseudo-labels, which is much faster",
        )
        add_out_dir(inputs)
        add_settings(inputs, ctx)

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `label_dataset`."""
        return {
            "group_field": read_group_field(ctx),
            "field": read_text(ctx, "field", "cosal"),
            "out_dir": read_text(ctx, "out_dir") or None,
            "config": read_config(ctx),
            "train": read_flag(ctx, "train", True),
            "overwrite": read_flag(ctx, "overwrite"),
        }

    def work(self, view: Any, progress: ProgressFn, **options: Any) -> Any:
        """Call `label_dataset`."""
        from umscosod.integrations.fiftyone import label_dataset

        return label_dataset(view, **options, progress=progress)

    def estimate(self, view: Any, options: dict[str, Any]) -> dict[str, float]:
        """All stages."""
        return estimate_stages(len(view), options["config"], train=options["train"])

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Review the worst, score, take away; and train where that was left out."""
        field = read_text(ctx, "field", "cosal")
        steps = steps_after_masks(ctx, field)
        if read_flag(ctx, "train", True):
            return steps
        again = {**ctx.params, "train": True, "field": f"{field}_trained", "overwrite": False}
        return (*steps, NextStep(label="Train for better masks", operator=self.NAME, params=again))

    def describe_done(self, ctx: Any) -> str:
        """Say in which fields the result is."""
        field = read_text(ctx, "field", "cosal")
        return f"Masks are in the field {field!r}, soft maps in '{field}_map', confidence in '{field}_confidence'"
