"""A mask that a person edits by mouse stays to the pixel when the images are labelled again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.app_edits import read
from tests.integration.app_page import AppPage
from tests.integration.editing import edit_first_mask, stored_detections
from tests.jobs import quick_config
from umscosod.integrations import fiftyone as ours

pytestmark = pytest.mark.slow
BRUSH = 0.05
"""More than the brush is wide, as a share of the image's height."""


def label(dataset: Any, tmp_path: Path, **options: Any) -> Any:
    config = quick_config(tmp_path / "cache")
    given = {"group_field": "cls", "config": config, "train": False, "editable": True}
    return ours.label_dataset(dataset, **(given | options))


def test_an_edit_by_mouse_stays(app_url: str, browser: Any, dataset_factory: Any, tmp_path: Path) -> None:
    dataset = dataset_factory(n_groups=2, n_images=3, size_hw=(241, 323))
    label(dataset, tmp_path)
    edited, *others = dataset.values("id")
    files = dict(zip(dataset.values("id"), dataset.values("cosal.mask_path"), strict=True))
    before = read(files[edited])
    assert before.any()
    row = int(before.sum(axis=1).argmax())
    columns = np.flatnonzero(before[row])
    height, width = before.shape
    y, x0, x1 = (row + 0.5) / height, columns[0] / width, columns[-1] / width

    app = AppPage(browser, app_url, dataset, tmp_path / "screenshots")
    stored = edit_first_mask(app, "cosal_objects", (x0, y), (x1, y), erase=True)  # the schema is set and active
    assert stored["mask"] is not None
    assert stored.get("mask_path") is None

    label(dataset, tmp_path, overwrite=True)
    dataset.reload()
    sample = dataset[edited]
    after = read(sample.cosal.mask_path)
    assert not after[row, columns[0] + 2 : columns[-1] - 1].any()
    assert not (after & ~before).any()
    far = np.abs((np.arange(height) + 0.5) / height - y) > BRUSH
    assert np.array_equal(
        after[far], before[far]
    )  # the App sampled the whole mask anew: borders are exact all the same
    assert (sample.cosal.provenance, sample.cosal_review, sample.cosal_confidence) == ("human", "accepted", 1.0)
    assert all(
        one["provenance"] == "human" and not one.get("mask") for one in stored_detections(dataset, "cosal_objects")
    )
    for other in others:
        assert dataset[other].cosal.provenance == "model"
        assert dataset[other].cosal.mask_path != files[other]

    app.page.reload()  # the objects that were made of the edit can be edited again
    stored = edit_first_mask(app, "cosal_objects", (x0, 0.05), (x1, 0.05), erase=False)
    assert stored["mask"] is not None
    assert ours.read_edits(dataset, "cosal") == [edited]
    dataset.reload()
    again = read(dataset[edited].cosal.mask_path)
    assert again[round(0.05 * height), (columns[0] + columns[-1]) // 2]
    assert np.array_equal(again[round(0.1 * height) :], after[round(0.1 * height) :])
    assert app.refused == []
    app.page.close()
