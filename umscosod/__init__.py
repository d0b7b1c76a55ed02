"""Annotation-free labelling of image collections (UMS-CoSOD): finds and segments what recurs in a group of images.

Names are imported when first used, so that ``import umscosod`` loads neither torch nor FiftyOne.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umscosod.config import PipelineConfig
    from umscosod.config.io import load_config
    from umscosod.data.groups import groups_from_csv, groups_from_folder, groups_from_list
    from umscosod.evaluation import evaluate
    from umscosod.pipeline import label_groups, make_pseudo_labels, predict, refine_maps, train
    from umscosod.pipeline.predictor import load_model

__version__ = "0.1.0"

__all__ = [
    "PipelineConfig",
    "__version__",
    "evaluate",
    "groups_from_csv",
    "groups_from_folder",
    "groups_from_list",
    "label_groups",
    "load_config",
    "load_model",
    "make_pseudo_labels",
    "predict",
    "refine_maps",
    "train",
]

_HOMES = {
    "PipelineConfig": "umscosod.config",
    "evaluate": "umscosod.evaluation",
    "groups_from_csv": "umscosod.data.groups",
    "groups_from_folder": "umscosod.data.groups",
    "groups_from_list": "umscosod.data.groups",
    "label_groups": "umscosod.pipeline",
    "load_config": "umscosod.config.io",
    "load_model": "umscosod.pipeline.predictor",
    "make_pseudo_labels": "umscosod.pipeline",
    "predict": "umscosod.pipeline",
    "refine_maps": "umscosod.pipeline",
    "train": "umscosod.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
