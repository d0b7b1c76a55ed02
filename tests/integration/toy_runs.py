"""A run on a toy data set without any work: its masks are the ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from umscosod.integrations.fiftyone.runs.fields import LabelItem, declare_fields, write_labels
from umscosod.types import Labelled, Status


def add_run(dataset: Any, field: str = "cosal") -> list[str]:
    """The ground truth as a run's masks; the first sample is the least certain."""
    declare_fields(dataset, field, has_maps=False)
    ids, paths = dataset.values(["id", "ground_truth.mask_path"])
    items = [
        LabelItem(
            row=Labelled(image_id=id_, group="", output="", status=Status.LABELLED, confidence=(n + 1) / len(ids)),
            mask_path=Path(path),
            map_path=None,
        )
        for n, (id_, path) in enumerate(zip(ids, paths, strict=True))
    ]
    write_labels(dataset, field, items, has_maps=False)
    return list(ids)
