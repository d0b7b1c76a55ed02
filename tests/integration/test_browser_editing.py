"""What FiftyOne's own mask tools do to a label and to its file, so that a change in a later FiftyOne is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.app_page import AppPage
from tests.integration.editing import (
    close_sample,
    draw_box,
    edit_first_mask,
    make_editable,
    open_annotation,
    stored_detections,
)

pytestmark = pytest.mark.slow
FIELD = "instances"
BOX = [0.25, 0.25, 0.5, 0.5]


@pytest.fixture
def instances(dataset_factory: Any, tmp_path: Path) -> Any:
    """Every sample has one detection whose mask, a file of its own, fills the box."""
    import fiftyone as fo

    dataset = dataset_factory(n_groups=1, n_images=2, size_hw=(96, 128))
    for number, sample in enumerate(dataset):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((48, 64), 255, np.uint8)).save(path)
        label = fo.Detection(label="co-salient", bounding_box=BOX, mask_path=str(path), run="cosal")
        sample[FIELD] = fo.Detections(detections=[label])
        sample.save()
    make_editable(dataset, FIELD, ["co-salient"])
    return dataset


def test_a_mask_is_edited_by_mouse(app_url: str, browser: Any, instances: Any, tmp_path: Path) -> None:
    before = instances.first()[FIELD].detections[0]
    file = Path(before.mask_path).read_bytes()
    app = AppPage(browser, app_url, instances, tmp_path / "screenshots")
    stored = edit_first_mask(app, FIELD, (0.4, 0.5), (0.6, 0.5), erase=True)
    # the label stays the same one, and its mask moves from the file into the database
    assert (stored["label"], stored["run"], stored.get("mask_path")) == ("co-salient", "cosal", None)
    assert Path(before.mask_path).read_bytes() == file
    assert np.allclose(stored["bounding_box"], BOX, atol=0.01)
    sample = instances.first()
    sample.reload()
    mask_HW = sample[FIELD].detections[0].mask
    assert mask_HW.shape > (48, 64)  # as many pixels as the box has on the screen
    height, width = mask_HW.shape
    assert mask_HW.dtype == np.uint8
    assert set(np.unique(mask_HW)) == {0, 1}
    assert mask_HW[height // 2, width // 2] == 0
    assert mask_HW[height // 4, width // 2] == 1
    # a box that a person draws is a new label without a mask
    open_annotation(app)
    draw_box(app, (0.05, 0.05), (0.15, 0.2))
    close_sample(app)
    boxes = stored_detections(instances, FIELD)
    assert len(boxes) == 2
    assert (boxes[1]["label"], boxes[1].get("mask")) == ("co-salient", None)
    assert np.allclose(boxes[1]["bounding_box"], [0.05, 0.05, 0.1, 0.15], atol=0.01)
    assert app.refused == []
    app.page.close()
