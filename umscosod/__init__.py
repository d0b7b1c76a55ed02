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
    from umscosod.deploy.export import export_model
    from umscosod.evaluation import evaluate
    from umscosod.features.hub import get_weights, import_weights, list_weights, verify_weights
    from umscosod.pipeline import label_groups, make_pseudo_labels, predict, refine_maps, relabel, train, undo_relabel
    from umscosod.pipeline.predictor import load_model

__version__ = "0.1.0"

__all__ = [
    "PipelineConfig",
    "__version__",
    "evaluate",
    "export_model",
    "get_weights",
    "groups_from_csv",
    "groups_from_folder",
    "groups_from_list",
    "import_weights",
    "label_groups",
    "list_weights",
    "load_config",
    "load_model",
    "make_pseudo_labels",
    "predict",
    "refine_maps",
    "relabel",
    "train",
    "undo_relabel",
    "verify_weights",
]

_HOMES = {
    "PipelineConfig": "umscosod.config",
    "evaluate": "umscosod.evaluation",
    "export_model": "umscosod.deploy.export",
    "get_weights": "umscosod.features.hub",
    "groups_from_csv": "umscosod.data.groups",
    "groups_from_folder": "umscosod.data.groups",
    "groups_from_list": "umscosod.data.groups",
    "import_weights": "umscosod.features.hub",
    "label_groups": "umscosod.pipeline",
    "list_weights": "umscosod.features.hub",
    "load_config": "umscosod.config.io",
    "load_model": "umscosod.pipeline.predictor",
    "make_pseudo_labels": "umscosod.pipeline",
    "predict": "umscosod.pipeline",
    "refine_maps": "umscosod.pipeline",
    "relabel": "umscosod.pipeline",
    "train": "umscosod.pipeline",
    "undo_relabel": "umscosod.pipeline",
    "verify_weights": "umscosod.features.hub",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
