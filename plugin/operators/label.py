"""Defines the operator `label`, which does all steps on a new collection."""

from typing import Any

from umscosod.estimate import first_width
from umscosod.pipeline.identity import advise_training

from ..forms import add_editable, add_field_choice, add_out_dir, read_flag, read_group_field
from ..interrupted import add_interrupted
from ..jobs import NextStep
from ..outlook import Outlook, config_or_none, open_form
from ..settings import (
    add_engine,
    add_method_choice,
    add_settings,
    check_engine,
    check_settings,
    is_advanced,
    read_config,
)
from .base import JobOperator


class Label(JobOperator):
    """Does all stages in one job."""

    NAME = "label"
    LABEL = "UMS-CoSOD: label the common object"
    DESCRIPTION = "Find and segment the object that recurs in each group of images, without annotation"
    ACTION = "Label"
    BUTTON = "Label the common object"
    CALL = "label_dataset"
    CAN_EDIT = True
    HAS_ENGINE = True
    DEFAULT = "cosal"
    DONE = "Masks are in the field '{0}', soft maps in '{0}_map', confidence in '{0}_confidence'"
    STAGES = ("features", "pseudo-labels", "training", "prediction", "refinement")

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for groups, output field and training; on demand also for the other settings."""
        form, outlook = open_form(self, inputs, ctx)
        pays, why = _advise_training(ctx, outlook)
        outlook.add_headline(stages=self.STAGES, train=read_flag(ctx, "train", pays))
        outlook.add_group_choice()
        field = add_field_choice(form, self.DEFAULT)
        if add_interrupted(form, field):
            return
        form.flag("train", pays, label="Train on these images", description=why)
        check_settings(form)
        check_engine(form)
        if is_advanced(form, "Method. "):
            add_method_choice(form)
            add_settings(form)
            add_engine(form)
            add_editable(form)
            add_out_dir(form, field)

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return groups, settings, and whether to train."""
        return {
            "group_field": read_group_field(ctx),
            "config": read_config(ctx),
            "train": _read_train(ctx),
        }

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Offer to review the worst masks, evaluate and export; also to train, if the job did not."""
        steps = super().next_steps(ctx)
        if _read_train(ctx):
            return steps
        again = {**ctx.params, "train": True, "field": f"{self.name_of(ctx)}_trained", "overwrite": False}
        return (*steps, NextStep(label="Train for better masks", operator=self.NAME, params=again))


def _read_train(ctx: Any) -> bool | None:
    """Whether to train; None, where nobody chose, leaves it to `label_dataset`."""
    value = ctx.params.get("train")
    return value if isinstance(value, bool) else None


def _advise_training(ctx: Any, outlook: Outlook) -> tuple[bool, str]:
    """Return whether to train by default, and the reason."""
    config = config_or_none(ctx)
    if config is None:
        return True, "Off: much faster"
    pays, why = advise_training(outlook.n_images, first_width(config.features))
    return pays, f"{why[0].upper()}{why[1:]}. {'Off: much faster' if pays else 'You can train later'}"
