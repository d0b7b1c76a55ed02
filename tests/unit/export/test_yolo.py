"""YOLO: labels drawn as its trainers draw them, and a folder that can be trained on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.unit.export.masks import MASKS, write_items
from umscosod.export.formats import export_items
from umscosod.export.items import ExportItem
from umscosod.types import BoolArray

export_yolo = partial(export_items, form="yolo")


def draw(label: Path, size_hw: tuple[int, ...]) -> BoolArray:
    """Fill each line's polygon, its coordinates cut to whole pixels."""
    filled = np.zeros(size_hw, np.uint8)
    for line in label.read_text(encoding="ascii").splitlines():
        corners = np.array(line.split()[1:], float).reshape(-1, 2)
        assert len(corners) >= 3
        assert ((corners > 0) & (corners < 1)).all()
        one = np.zeros(size_hw, np.uint8)
        cv2.fillPoly(one, [(corners * size_hw[::-1]).astype(np.int32)], 1)
        filled |= one
    return filled.astype(bool)


def iou(first: BoolArray, second: BoolArray) -> float:
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


@pytest.mark.parametrize("name", MASKS)
def test_polygons_drawn_again_are_the_mask(tmp_path: Path, name: str) -> None:
    export_yolo(write_items(tmp_path), tmp_path / "out")
    mask = MASKS[name]
    assert iou(draw(tmp_path / "out" / "labels" / f"{name}.txt", mask.shape), mask) > 0.97


def test_polygons_fit_at_another_size_too(tmp_path: Path) -> None:
    """Half a pixel is lost along each border, as they run through the centres of pixels."""
    export_yolo(write_items(tmp_path), tmp_path / "out")
    mask = np.kron(MASKS["cat/target"], np.ones((4, 4), bool))
    assert iou(draw(tmp_path / "out" / "labels" / "cat" / "target.txt", mask.shape), mask) > 0.85


def test_the_folder_can_be_trained_on(tmp_path: Path) -> None:
    report = export_yolo(write_items(tmp_path), tmp_path / "out", per_group=True)
    out = tmp_path / "out"
    assert yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8")) == {
        "train": "images",
        "val": "images",
        "names": {0: "cat", 1: "dog"},
    }
    for name in MASKS:
        assert (out / "images" / f"{name}.jpg").read_bytes() == (tmp_path / "image" / f"{name}.jpg").read_bytes()
    lines = {name: (out / "labels" / f"{name}.txt").read_text(encoding="ascii").splitlines() for name in MASKS}
    assert lines["dog/empty"] == []
    assert {line.split()[0] for line in lines["dog/full"]} == {"1"}
    assert len(lines["cat/target"]) == 2  # the ring, and the island in it
    assert report.n_objects == sum(map(len, lines.values()))


def test_images_that_share_a_stem_keep_labels_of_their_own(tmp_path: Path) -> None:
    first, second, *_ = write_items(tmp_path)
    shared = [
        ExportItem(image=first.image, output="cat/7.jpg.png", group="cat", mask=first.mask),
        ExportItem(image=second.image, output="cat/7.bmp.png", group="cat", mask=second.mask),
    ]
    export_yolo(shared, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").rglob("7.*")) == [
        *("7.bmp.jpg", "7.bmp.txt"),
        *("7.jpg.jpg", "7.jpg.txt"),
    ]


def test_without_image_files_only_labels_are_written(tmp_path: Path) -> None:
    export_yolo(write_items(tmp_path, with_images=False), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data.yaml", "export.json", "labels"]


def test_regions_too_small_for_a_polygon_are_counted(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = mask[4, 4:6] = True
    report = export_yolo(write_items(tmp_path, {"cat/dots": mask}), tmp_path / "out")
    assert (report.n_objects, report.n_dropped) == (0, 2)
    assert "2 regions too small" in report.summary
