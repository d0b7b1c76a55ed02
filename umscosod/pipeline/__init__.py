"""The paper in six calls: features -> pseudo-labels -> network -> refinement -> outputs.

Names only: each is imported at its first use, so that asking for one loads nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umscosod.pipeline.report import LabelReport, TrainReport
    from umscosod.pipeline.verbs import label_groups, make_pseudo_labels, predict, refine_maps, train

__all__ = ["LabelReport", "TrainReport", "label_groups", "make_pseudo_labels", "predict", "refine_maps", "train"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module at first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "report" if name.endswith("Report") else "verbs"
    return getattr(importlib.import_module(f"umscosod.pipeline.{module}"), name)
