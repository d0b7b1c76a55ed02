"""Runs the method on FiftyOne data sets: masks and maps become files, label fields and runs.

Names are imported at first use, because the import of FiftyOne takes seconds.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "evaluation.comparison": ("Comparison", "comparable_evaluations", "compare_dataset"),
    "evaluation.dataset": ("compute_metric", "evaluate_dataset", "stale_evaluations"),
    "evaluation.method": ("CoSalEvaluationConfig", "EvaluationReport"),
    "exchange.exporting": ("export_dataset",),
    "exchange.importer": ("CoSODDataset", "CoSODImporter"),
    "exchange.predictions": ("import_predictions",),
    "grouping": ("GroupingReport", "group_dataset", "preview_groups", "preview_view", "stored_preview"),
    "model": ("CoSalModel", "CoSalModelConfig"),
    "review.decide": ("accept_masks", "reject_masks", "replace_mask", "send_back", "undo_review"),
    "review.listing": ("list_for_review", "review_counts"),
    "review.relabel": ("RelabelReport", "relabel_dataset", "undo_relabel_dataset"),
    "review.steering": ("MarkReport", "forget_examples", "mark_not_this", "mask_of_person", "use_as_example"),
    "runs.edits": ("read_edits",),
    "runs.fields": ("ReviewReport",),
    "runs.interrupted": ("InterruptedRun", "find_interrupted", "give_up_interrupted", "resume_dataset"),
    "runs.jobs": ("RunReport",),
    "runs.labels": ("label_dataset", "predict_dataset", "pseudo_label_dataset", "refine_dataset"),
    "runs.objects": ("make_editable",),
    "runs.record": ("DeletedRun", "RunSummary", "delete_run", "get_run", "list_runs"),
    "runs.survey": ("Network", "Survey", "group_fields", "likely_group_field", "list_networks", "survey"),
    "runs.training": ("TrainOutcome", "train_dataset"),
    "weights": ("WeightsReport", "get_weights", "offered_weights"),
}
"""Public names by module of this package."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from its module at first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
