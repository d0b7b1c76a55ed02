"""FiftyOne as host: samples in, masks and maps on disk, label fields and runs on the data set.

Names are imported when first used: FiftyOne's own import takes seconds.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "CoSODDataset": "importer",
    "CoSODImporter": "importer",
    "CoSalEvaluationConfig": "evaluation_method",
    "CoSalModel": "model",
    "CoSalModelConfig": "model",
    "Comparison": "comparison_report",
    "EvaluationReport": "evaluation_report",
    "GroupingReport": "grouping_report",
    "ReviewReport": "review_state",
    "RunReport": "jobs",
    "RunSummary": "runs",
    "TrainOutcome": "training",
    "accept_masks": "review",
    "comparable_evaluations": "comparison",
    "compare_dataset": "comparison",
    "compute_metric": "evaluation",
    "delete_run": "runs",
    "evaluate_dataset": "evaluation",
    "export_dataset": "exporting",
    "get_run": "runs",
    "import_predictions": "predictions",
    "group_dataset": "grouping",
    "label_dataset": "labels",
    "list_for_review": "review_list",
    "list_runs": "runs",
    "predict_dataset": "labels",
    "preview_groups": "grouping",
    "pseudo_label_dataset": "labels",
    "refine_dataset": "labels",
    "reject_masks": "review",
    "replace_mask": "review",
    "review_counts": "review_list",
    "send_back": "review",
    "stored_preview": "grouping",
    "train_dataset": "training",
    "undo_review": "review",
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
