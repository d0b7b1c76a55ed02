"""Evaluations that no longer say anything of what is in their fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.record import find_run


def mark_of(dataset: Any, field: str) -> str:
    """What a run last wrote into a field, as a mark that changes with it; ``""`` for a field of no run of ours."""
    try:
        run = find_run(dataset, field)
    except DataError:
        run = None
    return "" if run is None else f"{run.run_id}/{getattr(run, 'changed', '')}"


def marks_of(dataset: Any, fields: Iterable[str]) -> dict[str, str]:
    """Marks of the fields that runs wrote."""
    return {field: mark for field in fields if (mark := mark_of(dataset, field))}


def stale_evaluations(dataset: Any, pred_field: str | None = None) -> dict[str, str]:
    """Say which evaluations were made before one of their fields was written anew, or deleted, by a run.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    pred_field : str, optional
        Only evaluations of this field.

    Returns
    -------
    dict of str to str
        By key of the evaluation, in words. Evaluations made by earlier versions, and fields that no run wrote, cannot
        be told and are not among them.
    """
    told = {}
    for key in dataset.list_evaluations():
        config = dataset.get_evaluation_info(key).config
        if pred_field is not None and getattr(config, "pred_field", None) != pred_field:
            continue
        for field, mark in (getattr(config, "made_of", None) or {}).items():
            if not dataset.has_field(field):
                told[key] = f"{key} was made of {field}, which is deleted"
            elif mark_of(dataset, field) != mark:
                told[key] = f"{key} was made before {field} was labelled anew; evaluate again"
    return told
