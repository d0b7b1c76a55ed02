"""COCO-format files in all their shapes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.config import PseudoConfig
from umscosod.data.masks import encode_rle
from umscosod.errors import DataError
from umscosod.pseudo.detections import CocoProposer
from umscosod.pseudo.select import make_pseudo_labels

CONFIG = PseudoConfig(proposer="coco-json")
SIZE = (20, 30)
MASK = np.zeros(SIZE, dtype=bool)
MASK[4:10, 6:18] = True
POLYGON = [[6, 4, 18, 4, 18, 10, 6, 10]]


def features(names: list[str] | None = None) -> Any:
    names = names or ["cat/000000000139.jpg"]
    count = len(names)
    saliency = [box(10, 2, 2, 5, 6) * 1.0] * count
    return make_features([paint(10, {(2, 2, 5, 6): 1})] * count, saliency, [SIZE] * count, names)


def runs(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed COCO run lengths: columns first, starting with background."""
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + counts}


def write(path: Path, segmentations: list[Any], file_name: str = "cat/000000000139.jpg", **extra: Any) -> Path:
    images = [{"id": 139, "file_name": file_name, "height": SIZE[0], "width": SIZE[1]}]
    rows = [
        {"id": 70 + i, "image_id": 139, "category_id": 1, "iscrowd": 0, "segmentation": s, **extra}
        for i, s in enumerate(segmentations)
    ]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "fg"}]}))
    return path


@pytest.mark.parametrize("segmentation", [POLYGON, runs(MASK), encode_rle(MASK)], ids=["polygon", "runs", "rle"])
@pytest.mark.parametrize("file_name", ["cat/000000000139.jpg", "train2017/000000000139.jpg"])
def test_every_kind_of_mask_comes_back(tmp_path: Path, segmentation: Any, file_name: str) -> None:
    proposer = CocoProposer(write(tmp_path / "d.json", [segmentation], file_name), CONFIG)
    (found,) = proposer.propose(features(), 0)
    np.testing.assert_array_equal(found.mask_hw, MASK)
    assert (found.score, found.level, found.source) == (1.0, 0, "coco-json")
    assert proposer.missed == {}
    assert "1 of 1" in proposer.summary()


def test_levels_come_from_the_file_or_from_coverage(tmp_path: Path) -> None:
    part = MASK.copy()
    part[:, 12:] = False
    both = [encode_rle(part), encode_rle(MASK)]
    told = CocoProposer(write(tmp_path / "a.json", both, hier_level=2), CONFIG).propose(features(), 0)
    assert [one.level for one in told] == [2, 2]
    found = CocoProposer(write(tmp_path / "b.json", both), CONFIG).propose(features(), 0)
    assert [one.level for one in found] == [1, 0]


@pytest.mark.parametrize("image_id", [139, "000000000139", "000000000139.jpg", "cat/000000000139.jpg"])
def test_a_bare_results_list_is_matched_by_stem_name_or_path(tmp_path: Path, image_id: int | str) -> None:
    small = MASK.copy()
    small[:7] = False
    rows = [
        {"image_id": image_id, "category_id": 0, "score": score, "segmentation": encode_rle(mask)}
        for score, mask in [(0.2, ~MASK), (0.4, small), (0.9, MASK)]
    ]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    found = CocoProposer(tmp_path / "r.json", CONFIG).propose(features(), 0)
    assert [one.score for one in found] == [0.9, 0.4]  # best first; 0.2 lies below min_score
    np.testing.assert_array_equal(found[0].mask_hw, MASK)


def test_a_bare_results_list_is_resolved_through_a_companion(tmp_path: Path) -> None:
    companion = write(tmp_path / "images.json", [], "cat/a.jpg")
    rows = [{"image_id": 139, "score": 0.9, "segmentation": encode_rle(MASK)}]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    proposer = CocoProposer(tmp_path / "r.json", replace(CONFIG, detections_images=str(companion)))
    group = features(["cat/a.jpg", "cat/000000000139.jpg"])
    assert [len(proposer.propose(group, i)) for i in (0, 1)] == [1, 0]
    assert list(proposer.missed) == ["cat/000000000139.jpg"]


def test_misses_and_ambiguous_names_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = [{"id": i, "file_name": name} for i, name in enumerate(["a/x.jpg", "b/x.jpg", "a/y.jpg"])]
    (tmp_path / "d.json").write_text(json.dumps({"images": images, "annotations": []}))
    proposer = CocoProposer(tmp_path / "d.json", CONFIG)
    group = features(["c/x.jpg", "a/x.jpg", "c/y.jpg", "c/z.jpg"])
    for index in (0, 1, 2, 3, 3):
        assert proposer.propose(group, index) == []
    assert proposer.missed == {"c/x.jpg": "2 entries are called so; give relative paths", "c/z.jpg": "no entry"}
    assert "2 of 4 images found, 2 missed" in proposer.summary()
    assert caplog.text.count("c/z.jpg") == 1


def test_a_wrong_size_names_the_annotation(tmp_path: Path) -> None:
    turned = write(tmp_path / "d.json", [encode_rle(MASK), encode_rle(MASK.T)])
    with pytest.raises(DataError, match=r"annotation 71 of image cat/000000000139.jpg .* 30 x 20 .* 20 x 30"):
        CocoProposer(turned, CONFIG).propose(features(), 0)
    file = write(tmp_path / "p.json", [POLYGON])
    content = json.loads(file.read_text())
    content["images"][0]["height"] = 40
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="annotation 70"):
        CocoProposer(file, CONFIG).propose(features(), 0)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[1, 2, 3]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [["a"] * 6],
        {"size": [20, 30], "counts": [1, 2]},
        {"size": [20, 30]},
        {"size": [20, 30], "counts": "000"},
    ],
)
def test_masks_that_make_no_sense_name_the_annotation(tmp_path: Path, segmentation: Any) -> None:
    file = write(tmp_path / "d.json", [segmentation])
    with pytest.raises(DataError, match="annotation 70"):
        CocoProposer(file, CONFIG).propose(features(), 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "JSON"),
        ("3", "found int"),
        ('{"info": 1}', "info"),
        ('{"images": [{"id": 1}], "annotations": []}', "file_name"),
        ('[{"score": 1}]', "at position 0"),
        ('{"images": [], "annotations": [{"id": 4}]}', "annotation 4"),
    ],
)
def test_files_of_another_shape_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(DataError, match=message):
        CocoProposer(tmp_path / "d.json", CONFIG)
    with pytest.raises(DataError, match="cannot read"):
        CocoProposer(tmp_path / "gone.json", CONFIG)


def test_labels_are_at_the_images_own_size(tmp_path: Path) -> None:
    proposer = CocoProposer(write(tmp_path / "d.json", [POLYGON]), CONFIG)
    (label,) = make_pseudo_labels(features(), proposer, CONFIG)
    np.testing.assert_array_equal(label.mask_hw, MASK)
    assert label.source == "coco-json"
    assert label.details["overlap"] > 0.5
