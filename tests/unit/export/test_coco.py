"""COCO: what its own tools read is the mask, bit for bit."""

from __future__ import annotations

import contextlib
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from tests.unit.export.masks import MASKS, write_items
from umscosod.errors import ConfigError
from umscosod.export.formats import export_items

export_coco = partial(export_items, form="coco")


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools
@pytest.mark.parametrize("per_region", [False, True])
def test_pycocotools_reads_each_mask_back_bit_for_bit(tmp_path: Path, per_region: bool) -> None:
    report = export_coco(write_items(tmp_path), tmp_path / "out", image_root=tmp_path / "image", per_region=per_region)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        coco = COCO(str(tmp_path / "out" / "instances.json"))
    assert {image["file_name"] for image in coco.imgs.values()} == {f"{name}.jpg" for name in MASKS}
    for image in coco.imgs.values():
        expected = MASKS[image["file_name"].removesuffix(".jpg")]
        assert (image["height"], image["width"]) == expected.shape
        union = np.zeros(expected.shape, bool)
        for annotation in coco.imgToAnns[image["id"]]:
            part = coco.annToMask(annotation).astype(bool)
            assert not (union & part).any()
            union |= part
            assert annotation["area"] == part.sum() == rle.area(annotation["segmentation"])
            assert annotation["bbox"] == rle.toBbox(annotation["segmentation"]).tolist()
            assert (annotation["iscrowd"], annotation["category_id"]) == (0, 1)
        assert np.array_equal(union, expected)
    assert report.n_objects == len(coco.anns)
    assert coco.cats == {1: {"id": 1, "name": "co-salient", "supercategory": ""}}


def test_one_annotation_an_image_or_one_a_region(tmp_path: Path) -> None:
    items = write_items(tmp_path, {"cat/target": MASKS["cat/target"]})
    assert export_coco(items, tmp_path / "a").n_objects == 1
    assert export_coco(items, tmp_path / "b", per_region=True).n_objects == 2


def test_categories_of_groups_scores_and_empty_masks(tmp_path: Path) -> None:
    report = export_coco(write_items(tmp_path), tmp_path / "out", per_group=True)
    document = load(tmp_path / "out" / "instances.json")
    assert [(entry["id"], entry["name"]) for entry in document["categories"]] == [(1, "cat"), (2, "dog")]
    by_image = {entry["image_id"]: entry for entry in document["annotations"]}
    assert [image["group"] for image in document["images"]] == ["cat", "cat", "dog", "dog", "dog"]
    assert sorted(by_image) == [1, 2, 3, 5]  # the fourth mask is empty
    assert [by_image[number]["category_id"] for number in (1, 2, 3, 5)] == [1, 1, 2, 2]
    assert "score" not in by_image[1]
    assert by_image[2]["score"] == 0.6
    assert (report.n_images, report.n_objects, report.n_empty) == (5, 4, 1)


def test_nothing_to_export_is_still_a_valid_file(tmp_path: Path) -> None:
    report = export_coco([], tmp_path / "out", category="bird")
    document = load(tmp_path / "out" / "instances.json")
    assert (document["images"], document["annotations"]) == ([], [])
    assert document["categories"] == [{"id": 1, "name": "bird", "supercategory": ""}]
    assert not report.is_success


def test_a_category_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="category needs a name"):
        export_coco([], tmp_path / "out", category=" ")
    assert not (tmp_path / "out").exists()
