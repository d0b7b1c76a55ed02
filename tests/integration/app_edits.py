"""Edits of object masks as FiftyOne's App writes them (docs/editing.md), without a browser."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np
from PIL import Image

Window = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of the image."""
SCREEN_HW = (749, 1123)
"""The picture's size on the screen: no multiple of the toy pictures'."""


def stored_objects(dataset: Any, sample_id: str, field: str = "cosal_objects") -> list[dict[str, Any]]:
    """What the database has."""
    document = dataset._sample_collection.find_one({"_id": dataset[sample_id]._id})
    return list(document[field]["detections"])


def store_objects(dataset: Any, sample_id: str, objects: list[dict[str, Any]], field: str = "cosal_objects") -> None:
    """Write the database as the App's server does: past the objects of this process."""
    change = {f"{field}.detections": objects, "last_modified_at": datetime.now(UTC)}
    dataset._sample_collection.update_one({"_id": dataset[sample_id]._id}, {"$set": change})
    dataset.reload()


def draw(
    dataset: Any, sample_id: str, window: Window, *, erase: bool, index: int = 0, field: str = "cosal_objects"
) -> None:
    """Draw a rectangle on one object: the mask moves into the database, at the screen's resolution and fitted anew."""
    objects = stored_objects(dataset, sample_id, field)
    one = objects[index]
    screen_hw, (top, left) = _on_screen(one)
    canvas_hw = np.zeros(SCREEN_HW, bool)
    canvas_hw[top : top + screen_hw.shape[0], left : left + screen_hw.shape[1]] = screen_hw
    height, width = SCREEN_HW
    x0, y0, x1, y1 = window
    canvas_hw[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = not erase
    one |= _as_stored(canvas_hw)
    store_objects(dataset, sample_id, objects, field)


def add_object(dataset: Any, sample_id: str, window: Window, field: str = "cosal_objects") -> None:
    """Draw a new object with the brush."""
    height, width = SCREEN_HW
    canvas_hw = np.zeros(SCREEN_HW, bool)
    x0, y0, x1, y1 = window
    canvas_hw[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = True
    new = fo.Detection(label="co-salient").to_dict() | _as_stored(canvas_hw)
    store_objects(dataset, sample_id, [*stored_objects(dataset, sample_id, field), new], field)


def _on_screen(one: dict[str, Any]) -> tuple[Any, tuple[int, int]]:
    """The mask of an object at the screen's resolution, by the nearest pixel, and its place."""
    mask_hw = np.asarray(Image.open(one["mask_path"])) > 0 if one.get("mask_path") else None
    if mask_hw is None:
        mask_hw = fou.deserialize_numpy_array(one["mask"]) > 0
    left, top, width, height = one["bounding_box"]
    size = (round(height * SCREEN_HW[0]), round(width * SCREEN_HW[1]))
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * length / new).astype(int), length - 1)
        for new, length in zip(size, mask_hw.shape, strict=True)
    )
    return mask_hw[np.ix_(rows, columns)], (round(top * SCREEN_HW[0]), round(left * SCREEN_HW[1]))


def _as_stored(canvas_hw: Any) -> dict[str, Any]:
    rows, columns = (np.flatnonzero(canvas_hw.any(axis=axis)) for axis in (1, 0))
    cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    height, width = SCREEN_HW
    mask_hw = canvas_hw[cut].astype(np.uint8)
    box = [columns[0] / width, rows[0] / height, mask_hw.shape[1] / width, mask_hw.shape[0] / height]
    return {
        "mask": fou.serialize_numpy_array(mask_hw),
        "mask_path": None,
        "bounding_box": [float(side) for side in box],
    }


def read(path: str) -> Any:
    """A mask file as truth values, (H, W)."""
    with Image.open(Path(path)) as picture:
        return np.asarray(picture) > 0
