"""The paper in a few calls: features -> pseudo-labels -> network -> refinement -> outputs.

Names only: each is imported at its first use, so that asking for one loads nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umscosod.pipeline.report import LabelReport, TrainReport
    from umscosod.pipeline.steer import SteerReport, relabel, undo_relabel
    from umscosod.pipeline.verbs import label_groups, make_pseudo_labels, predict, refine_maps, train

_MODULES = {
    **dict.fromkeys(("LabelReport", "TrainReport"), "report"),
    **dict.fromkeys(("SteerReport", "relabel", "undo_relabel"), "steer"),
    **dict.fromkeys(("label_groups", "make_pseudo_labels", "predict", "refine_maps", "train"), "verbs"),
}
__all__ = [
    "LabelReport",
    "SteerReport",
    "TrainReport",
    "label_groups",
    "make_pseudo_labels",
    "predict",
    "refine_maps",
    "relabel",
    "train",
    "undo_relabel",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module at first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"umscosod.pipeline.{_MODULES[name]}"), name)
