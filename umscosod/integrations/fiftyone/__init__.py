"""Runs the method on FiftyOne data sets: masks and maps become files, label fields and runs.

Names are imported at first use, because the import of FiftyOne takes seconds.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "CoSODDataset": "exchange.importer",
    "CoSODImporter": "exchange.importer",
    "CoSalEvaluationConfig": "evaluation.method",
    "CoSalModel": "model",
    "CoSalModelConfig": "model",
    "Comparison": "evaluation.comparison",
    "DeletedRun": "runs.record",
    "EvaluationReport": "evaluation.method",
    "GroupingReport": "grouping.dataset",
    "ReviewReport": "runs.fields",
    "InterruptedRun": "runs.interrupted",
    "Network": "runs.survey",
    "RunReport": "runs.jobs",
    "RunSummary": "runs.record",
    "Survey": "runs.survey",
    "TrainOutcome": "runs.training",
    "accept_masks": "review.decide",
    "comparable_evaluations": "evaluation.comparison",
    "compare_dataset": "evaluation.comparison",
    "compute_metric": "evaluation.dataset",
    "delete_run": "runs.record",
    "evaluate_dataset": "evaluation.dataset",
    "export_dataset": "exchange.exporting",
    "find_interrupted": "runs.interrupted",
    "get_run": "runs.record",
    "give_up_interrupted": "runs.interrupted",
    "group_dataset": "grouping.dataset",
    "group_fields": "runs.survey",
    "import_predictions": "exchange.predictions",
    "label_dataset": "runs.labels",
    "likely_group_field": "runs.survey",
    "list_for_review": "review.listing",
    "list_networks": "runs.survey",
    "list_runs": "runs.record",
    "predict_dataset": "runs.labels",
    "preview_groups": "grouping.dataset",
    "preview_view": "grouping.proposals",
    "pseudo_label_dataset": "runs.labels",
    "refine_dataset": "runs.labels",
    "reject_masks": "review.decide",
    "replace_mask": "review.decide",
    "review_counts": "review.listing",
    "resume_dataset": "runs.interrupted",
    "stale_evaluations": "evaluation.dataset",
    "send_back": "review.decide",
    "stored_preview": "grouping.dataset",
    "survey": "runs.survey",
    "train_dataset": "runs.training",
    "undo_review": "review.decide",
}
"""Public name -> module of this package."""

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
