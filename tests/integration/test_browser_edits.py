"""A mask edited by mouse: what FiftyOne's own tools store, and that it stays when the images are labelled again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.app_edits import read
from tests.integration.app_page import AppPage
from tests.integration.editing import close_sample, draw_box, edit_first_mask, open_annotation, stored_detections
from tests.jobs import quick_config
from umscosod.integrations import fiftyone as ours

pytestmark = pytest.mark.slow
BRUSH = 0.05
"""More than the brush is wide, as a share of the image's height."""


def label(dataset: Any, tmp_path: Path, **options: Any) -> Any:
    config = quick_config(tmp_path / "cache")
    given = {"group_field": "cls", "config": config, "train": False, "editable": True}
    return ours.label_dataset(dataset, **(given | options))


def check_stored(stored: dict[str, Any], shown: Any) -> None:
    """The label stays the same one; its mask moves from the file into the database, at the screen's resolution."""
    import fiftyone.core.utils as fou

    assert (stored["label"], stored["run"], stored.get("mask_path")) == (shown.label, shown.run, None)
    mask_HW = fou.deserialize_numpy_array(stored["mask"])
    assert mask_HW.dtype == np.uint8
    assert set(np.unique(mask_HW)) == {0, 1}
    assert min(mask_HW.shape) > min(read(shown.mask_path).shape)


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

    shown = dataset[edited].cosal_objects.detections[0]
    file = Path(shown.mask_path).read_bytes()
    app = AppPage(browser, app_url, dataset, tmp_path / "screenshots")
    stored = edit_first_mask(app, "cosal_objects", (x0, y), (x1, y), erase=True)  # the schema is set and active
    check_stored(stored, shown)
    assert Path(shown.mask_path).read_bytes() == file

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
    open_annotation(app)
    draw_box(app, (0.9, 0.85), (0.98, 0.95))
    close_sample(app)
    box = stored_detections(dataset, "cosal_objects")[-1]  # a new label without a mask
    assert (box["label"], box.get("mask"), box.get("mask_path")) == (stored["label"], None, None)
    assert np.allclose(box["bounding_box"], [0.9, 0.85, 0.08, 0.1], atol=0.01)

    assert ours.read_edits(dataset, "cosal") == [edited]
    dataset.reload()
    again = read(dataset[edited].cosal.mask_path)
    assert again[round(0.05 * height), (columns[0] + columns[-1]) // 2]
    assert np.array_equal(again[round(0.1 * height) :], after[round(0.1 * height) :])
    assert app.refused == []
    app.page.close()
