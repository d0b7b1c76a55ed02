"""Two evaluations and an App that only records what it is told: for tests of forms and panels without a database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

import umscosod.integrations.fiftyone as integration
from umscosod.evaluation.scores import Curves, Scores
from umscosod.integrations.fiftyone.evaluation import comparison
from umscosod.integrations.fiftyone.evaluation.comparison import Evaluated, compare_dataset

PLUGIN = "@umscosod/umscosod"
MASKS = fo.EmbeddedDocumentField(fo.Segmentation)
FIELDS = {
    "cosal": MASKS,
    "cosal_map": fo.EmbeddedDocumentField(fo.Heatmap),
    "cosal_status": fo.StringField(),
    "ground_truth": MASKS,
    "instances": fo.EmbeddedDocumentField(fo.Detections),
}


VIEWS = "umscosod/views"
"""Store of the user's view; what panels do with it is tested on a real data set."""
IMAGES = {
    "a": {"sample_id": ["w", "x", "y"], "iou": [0.9, 0.5, 0.5]},
    "b": {"sample_id": ["w", "x", "y", "z"], "iou": [0.4, 0.7, 0.5, 0.1]},
}


class FakeDataset:
    """The schema, the names of evaluations, and four samples."""

    name = "toy"
    media_type = "image"

    def __init__(self, evaluations: tuple[str, ...] = ()) -> None:
        self.evaluations = evaluations

    def list_evaluations(self, **given: Any) -> list[str]:
        return list(self.evaluations)

    def get_evaluation_info(self, key: str) -> Any:
        return SimpleNamespace(config=SimpleNamespace(pred_field=key, made_of={}, gt_field="ground_truth"))

    def has_field(self, name: str) -> bool:
        return name in FIELDS

    def get_field(self, name: str) -> Any:
        return FIELDS.get(name)

    def get_field_schema(self, ftype: Any = None, embedded_doc_type: Any = None) -> dict[str, Any]:
        return {
            name: field
            for name, field in FIELDS.items()
            if embedded_doc_type is getattr(field, "document_type", object()) or (ftype and isinstance(field, ftype))
        }

    def values(self, name: str) -> list[Any]:
        return {"id": ["w", "x", "y", "z"]}[name]

    def select(self, ids: list[str], ordered: bool = False) -> Any:
        return ("select", ids, ordered)


def evaluated(key: str, offset: float) -> Evaluated:
    def scores(n: int) -> Scores:
        figures = ("mae", "f_max", "f_mean", "f_adaptive", "e_max", "e_mean", "e_adaptive", "s", "iou")
        return Scores(n=n, undefined_s=0, **dict.fromkeys(figures, 0.5 + offset))

    line_T = np.linspace(0, 1, 3)
    curves = Curves(thresholds_T=line_T, precision_T=line_T, recall_T=line_T, f_T=line_T + offset, e_T=line_T)
    return Evaluated(
        key=key,
        pred_field=key,
        gt_field="ground_truth",
        map_field=None,
        definition="cosod",
        dataset=scores(3),
        groups={"cat": scores(2), f"only-{key}": scores(1)},
        curves=curves,
        images=IMAGES[key],
        made=0.0,
    )


def put_two_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations ``a`` and ``b`` of three common images; ``plain`` was made by FiftyOne's own method."""

    def comparable(dataset: Any) -> tuple[list[str], list[str]]:
        return [key for key in dataset.evaluations if key != "plain"], [k for k in dataset.evaluations if k == "plain"]

    monkeypatch.setattr(comparison, "load_evaluated", lambda dataset, key: evaluated(key, {"a": 0.25, "b": 0.0}[key]))
    for module in (integration, comparison):
        monkeypatch.setattr(module, "comparable_evaluations", comparable, raising=False)
    monkeypatch.setattr(integration, "compare_dataset", compare_dataset, raising=False)


def make_context(params: dict[str, Any] | None = None, evaluations: tuple[str, ...] = (), spaces: Any = None) -> Any:
    calls: list[tuple[Any, ...]] = []
    stored: dict[str, Any] = {}

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **given: calls.append((name, *args, given))

    store = SimpleNamespace(
        set=lambda key, value, ttl=None: stored.__setitem__(key, value),
        get=stored.get,
        delete=lambda key: stored.pop(key, None),
    )
    others = SimpleNamespace(set=lambda *args, **given: None, get=lambda key: None)
    return SimpleNamespace(
        params=params or {},
        dataset=FakeDataset(evaluations),
        ops=Recorder(),
        calls=calls,
        stored=stored,
        store=lambda name: others if name == VIEWS else store,
        request_params={},
        spaces=spaces,
        delegated=False,
        trigger=lambda name, given=None: calls.append(("trigger", name, given)),
        target_view=lambda: "the chosen view",
    )
