"""COCO-format files in all their shapes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.config import PseudoConfig
from umscosod.data.masks import encode_rle
from umscosod.data.resize import resize_mask
from umscosod.errors import DataError
from umscosod.pseudo import proposals
from umscosod.pseudo.coco_proposer import CocoProposer
from umscosod.pseudo.select import choose_labels

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


def load(file: Path, config: PseudoConfig = CONFIG, names: list[str] | None = None) -> CocoProposer:
    return CocoProposer(file, config, features(names).group.images)


def dump(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


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
    proposer = load(write(tmp_path / "d.json", [segmentation], file_name))
    (found,) = proposer.propose(features(), 0)
    np.testing.assert_array_equal(found.mask_hw, MASK)
    assert (found.score, found.level, found.source) == (1.0, 0, "coco-json")
    assert proposer.missed == {}
    assert "1 of 1" in proposer.summary()
    assert proposer.warnings() == []


def test_levels_come_from_the_file_or_from_coverage(tmp_path: Path) -> None:
    part = MASK.copy()
    part[:, 12:] = False
    both = [encode_rle(part), encode_rle(MASK)]
    told = load(write(tmp_path / "a.json", both, hier_level=2.0)).propose(features(), 0)
    assert [one.level for one in told] == [2, 2]
    found = load(write(tmp_path / "b.json", both)).propose(features(), 0)
    assert [one.level for one in found] == [1, 0]


@pytest.mark.parametrize("image_id", [139, 139.0, "139", "000000000139", "000000000139.jpg", "cat/000000000139.png"])
def test_a_bare_results_list_is_matched_by_number_stem_name_or_path(tmp_path: Path, image_id: Any) -> None:
    small = MASK.copy()
    small[:7] = False
    rows = [
        {"image_id": image_id, "category_id": 0, "score": score, "segmentation": encode_rle(mask)}
        for score, mask in [(0.2, ~MASK), (0.4, small), (0.9, MASK)]
    ]
    found = load(dump(tmp_path / "r.json", rows)).propose(features(), 0)
    assert [one.score for one in found] == [0.9, 0.4]  # best first; 0.2 lies below min_score
    np.testing.assert_array_equal(found[0].mask_hw, MASK)


def test_a_bare_results_list_is_resolved_through_a_companion(tmp_path: Path) -> None:
    companion = write(tmp_path / "images.json", [], "cat/a.jpg")
    rows = [{"image_id": 139.0, "score": 0.9, "segmentation": encode_rle(MASK)}]
    names = ["cat/a.jpg", "cat/000000000139.jpg"]
    file = dump(tmp_path / "r.json", rows)
    proposer = load(file, replace(CONFIG, detections_images=str(companion)), names)
    assert [len(proposer.propose(features(names), i)) for i in (0, 1)] == [1, 0]
    assert proposer.missed == {"cat/000000000139.jpg": "no entry"}
    assert proposer.sha256 != load(file, CONFIG, names).sha256


@pytest.mark.parametrize("names", [["b/01.jpg", "a/01.jpg"], ["a/01.jpg", "b/01.jpg"]])
@pytest.mark.parametrize("as_list", [False, True])
def test_masks_of_another_image_of_the_same_name_and_size_are_not_taken(
    tmp_path: Path, names: list[str], as_list: bool
) -> None:
    rows = [{"image_id": "a/01.jpg" if as_list else 7, "segmentation": encode_rle(MASK)}]
    images = [{"id": 7, "file_name": "a/01.jpg", "height": SIZE[0], "width": SIZE[1]}]
    file = dump(tmp_path / "d.json", rows if as_list else {"images": images, "annotations": rows})
    proposer, group = load(file, names=names), features(names)
    assert {name: len(proposer.propose(group, i)) for i, name in enumerate(names)} == {"a/01.jpg": 1, "b/01.jpg": 0}
    (line,) = proposer.warnings()
    assert line.startswith(f"{file}: images without masks from it: 1 of 2, such as 'b/01.jpg': ")
    assert line.endswith("its namesake 'a/01.jpg' lies in another folder")


def test_a_file_of_other_images_is_refused_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "d.json", [POLYGON], "a/01.jpg")
    with pytest.raises(
        DataError, match=r"names images such as 'a/01.jpg' \(1\), and none of .* such as 'b/01.jpg' \(1\)"
    ):
        load(file, names=["b/01.jpg"])
    with pytest.raises(DataError, match="names no image, and none"):
        load(dump(tmp_path / "e.json", []))


def test_misses_and_what_is_not_used_are_said_once_with_a_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [{"id": i, "file_name": name} for i, name in enumerate(["a/x.jpg", "b/x.jpg", "a/y.jpg", "w.jpg"])]
    file = dump(tmp_path / "d.json", {"images": images, "annotations": []})
    names = ["c/x.jpg", "a/x.jpg", "c/y.jpg", "c/z.jpg"]
    proposer, group = load(file, names=names), features(names)
    for index in (0, 1, 2, 3, 3):
        assert proposer.propose(group, index) == []
    assert proposer.missed == {
        "c/x.jpg": "its namesake 'a/x.jpg' lies in another folder",
        "c/y.jpg": "its namesake 'a/y.jpg' lies in another folder",
        "c/z.jpg": "no entry",
        "a/x.jpg": "no annotation of it",
    }
    assert "0 of 4 images found" in proposer.summary()
    misses, unused = proposer.warnings()
    assert "images without masks from it: 4 of 4, such as 'c/x.jpg'" in misses
    assert "images it names that are not in the collection: 3 of 4, such as 'b/x.jpg'" in unused
    assert caplog.text == ""


@pytest.mark.parametrize("factor", [0.5, 2, 3])
@pytest.mark.parametrize("kind", ["polygon", "runs", "rle"])
def test_masks_of_another_size_and_equal_aspect_are_rescaled_and_said(tmp_path: Path, factor: float, kind: str) -> None:
    height, width = (int(side * factor) for side in SIZE)
    mask = resize_mask(MASK, (height, width))
    polygon = [[number * factor for number in POLYGON[0]]]
    file = write(tmp_path / "d.json", [{"polygon": polygon, "runs": runs(mask), "rle": encode_rle(mask)}[kind]])
    content = json.loads(file.read_text())
    content["images"][0] |= {"height": height, "width": width}
    proposer = load(dump(file, content))
    (found,) = proposer.propose(features(), 0)
    np.testing.assert_array_equal(found.mask_hw, MASK)
    (line,) = proposer.warnings()
    assert "images whose masks were made for another size and rescaled: 1, such as annotation 70" in line
    assert f"from {height} x {width} to 20 x 30 pixels" in line


def test_masks_of_another_aspect_are_a_miss_and_do_not_end_the_job(tmp_path: Path) -> None:
    proposer = load(write(tmp_path / "d.json", [encode_rle(MASK.T)]))
    assert proposer.propose(features(), 0) == []
    reason = "annotation 70 of image 'cat/000000000139.jpg' is made for 30 x 20 pixels, the upright image has 20 x 30"
    assert proposer.missed == {"cat/000000000139.jpg": reason}
    file = write(tmp_path / "p.json", [POLYGON])
    content = json.loads(file.read_text())
    content["images"][0]["height"] = 40
    proposer = load(dump(file, content))
    assert proposer.propose(features(), 0) == []
    assert list(proposer.missed) == ["cat/000000000139.jpg"]
    mixed = load(write(tmp_path / "m.json", [encode_rle(MASK), encode_rle(MASK.T)]))
    assert len(mixed.propose(features(), 0)) == 1
    assert mixed.missed == {}
    assert "annotations left out: 1, such as annotation 71" in mixed.warnings()[0]


BAD_MASKS: list[Any] = [
    *(None, [], {}, 5, "text", True, [5], [[]], [None], [{}], [[1, 2, 3]], [[1, 2, 3, 4, 5, 6, 7]], [["a"] * 6]),
    *([[True] * 6], [[None] * 6], [[[1]] * 6], [[1, 2, 3, 4, 5, 10**400]], [POLYGON[0], [1, 2]], [[1e400] * 6]),
    *({"size": [20, 30], "counts": [1, 2]}, {"size": [20, 30]}, {"size": [20, 30], "counts": "000"}),
    *({"size": size, "counts": [600]} for size in (5, [5], [], {}, None, "20", [-20, -30], [20.5, 30], [1e9, 1.5e9])),
    *({"size": [20, 30], "counts": counts} for counts in (None, 5, {}, "\x00", "\xe9", [None], ["600"], [-1, 601])),
]


@pytest.mark.parametrize("segmentation", BAD_MASKS)
def test_a_mask_that_makes_no_sense_is_left_out_and_named(tmp_path: Path, segmentation: Any) -> None:
    proposer = load(write(tmp_path / "d.json", [POLYGON, segmentation]))
    (found,) = proposer.propose(features(), 0)
    np.testing.assert_array_equal(found.mask_hw, MASK)
    (line,) = proposer.warnings()
    assert f"{tmp_path / 'd.json'}: annotations left out: 1, such as annotation 71 of image 'cat/0000" in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("score", value) for value in ("high", "0.9", None, [0.9], {}, True, float("nan"), float("inf"), 10**400)),
        *(("hier_level", value) for value in ("whole", None, 0.5, -1, [], True, float("nan"), float("inf"))),
        *(("image_id", value) for value in (None, True, [], {}, "", 1.5, float("nan"), 1e300, 7, "other")),
    ],
)
def test_a_value_of_another_kind_leaves_its_annotation_out(tmp_path: Path, key: str, value: Any) -> None:
    file = write(tmp_path / "d.json", [POLYGON, encode_rle(MASK)])
    content = json.loads(file.read_text())
    content["annotations"][0][key] = value
    proposer = load(dump(file, content))
    assert len(proposer.propose(features(), 0)) == 1
    (line,) = proposer.warnings()
    assert "annotations left out: 1, such as annotation 70" in line


@pytest.mark.parametrize("row", [None, 5, "text", [], {}, {"id": 4}, {"id": True, "file_name": "a.jpg"}])
def test_rows_of_another_kind_are_left_out_and_counted(tmp_path: Path, row: Any) -> None:
    file = write(tmp_path / "d.json", [POLYGON])
    content = json.loads(file.read_text())
    content["images"].append(row)
    content["annotations"].append(row)
    proposer = load(dump(file, content))
    assert len(proposer.propose(features(), 0)) == 1
    images, annotations = proposer.warnings()
    assert "rows of images left out: 1, such as image " in images
    assert "annotations left out: 1, such as annotation " in annotations


def test_an_image_id_that_stands_for_two_images_is_used_for_neither(tmp_path: Path) -> None:
    file = write(tmp_path / "d.json", [POLYGON])
    content = json.loads(file.read_text())
    names = ["cat/000000000139.jpg", "cat/b.jpg", "cat/c.jpg"]
    content["images"] += [{"id": 139.0, "file_name": "cat/b.jpg"}, {"id": 8, "file_name": "cat/c.jpg"}]
    proposer = load(dump(file, content), names=names)
    assert [len(proposer.propose(features(names), i)) for i in range(3)] == [0, 0, 0]
    assert list(proposer.missed) == names  # the last has no annotation
    assert any("image id '139' stands for more than one image" in line for line in proposer.warnings())
    content["images"][1:] = content["images"][:1]
    assert len(load(dump(file, content)).propose(features(), 0)) == 1  # said twice, it is still one


def test_a_row_without_a_size_takes_the_images_own_and_one_with_a_bad_size_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "d.json", [POLYGON])
    content = json.loads(file.read_text())
    bad: list[tuple[Any, Any]] = [("20", 30), (0, 30), ([20], -1), (20, None), (None, 30)]
    for sides, count in [((None, None), 1), ((20.0, 30.0), 1), *((one, 0) for one in bad)]:
        content["images"][0] |= dict(zip(("height", "width"), sides, strict=True))
        proposer = load(dump(file, content))
        assert len(proposer.propose(features(), 0)) == count
        assert any("are not two whole numbers above 0" in line for line in proposer.warnings()) == (count == 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("{", "JSON"),
        ("\xff", "JSON"),
        ("3", "found 3"),
        ("null", "found null"),
        ('"text"', "found 'text'"),
        ("NaN", "found nan"),
        ("9" * 5000, "found inf"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("{}", "nothing in it"),
        ('{"info": 1}', "info"),
        ('{"images": [], "annotations": null}', "annotations"),
        ('{"images": {}, "annotations": []}', "images"),
        ('{"images": [{"id": 1}], "annotations": []}', "file_name"),
        ('{"images": [1, null], "annotations": []}', "at position 0"),
        ('[{"score": 1}]', "at position 0"),
        ("[1, [], null]", "at position 0"),
        ('{"images": [], "annotations": [{"id": 4}]}', "annotation 4"),
        ('[{"image_id": 139, "bbox": [1, 2, 3, 4]}]', "boxes alone"),
    ],
)
def test_files_of_another_shape_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "d.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "d.json")
    assert len(str(caught.value).splitlines()) == 1
    assert "d.json" in str(caught.value)


@pytest.mark.parametrize("name", ["gone.json", "folder", ".", "nul\x00.json"])
def test_what_is_no_file_is_refused_with_the_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"pseudo.detections: .*(cannot be found|is not a regular file)"):
        load(tmp_path / name)
    file = write(tmp_path / "d.json", [POLYGON])
    for companion, message in ((str(tmp_path / name), "pseudo.detections_images: "), (str(file), "image")):
        rows = dump(tmp_path / "r.json", [{"image_id": 3, "segmentation": POLYGON}])
        dump(file, {"images": [], "annotations": []} if companion == str(file) else [])
        with pytest.raises(DataError, match=message):
            load(rows, replace(CONFIG, detections_images=companion))


def test_a_number_that_python_refuses_to_read_leaves_out_its_annotation_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "d.json", [POLYGON, [[123456.0] * 6]])
    for digits in (5000, 400):
        longer = dump(tmp_path / "e.json", json.loads(file.read_text()))
        longer.write_text(longer.read_text().replace("123456.0", "9" * digits))
        proposer = load(longer)
        assert len(proposer.propose(features(), 0)) == 1
        assert "annotation 71" in proposer.warnings()[0]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = write(tmp_path / "d.json", [POLYGON])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(load(file).propose(features(), 0)) == 1


def test_a_second_file_that_is_not_needed_is_said_to_be_ignored(tmp_path: Path) -> None:
    file = write(tmp_path / "d.json", [POLYGON])
    proposer = load(file, replace(CONFIG, detections_images=str(tmp_path / "gone.json")))
    assert proposer.warnings() == [f"{file}: has images of its own; detections_images is not read"]


def test_polygons_that_kill_pycocotools_are_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "d.json", [POLYGON, [[6, 4, 18, 4, 123456.0, 10, 6, 123456.0]]])
    reaches = ["NaN", "Infinity", "-Infinity", "1e9", "-1e9", "1e308", "2147483648", "9" * 400]
    for number, reach in enumerate(reaches):
        (tmp_path / f"{number}.json").write_text(file.read_text().replace("123456.0", reach))
    code = (  # in a process of its own: it would take this one along
        "from tests.unit.pseudo.test_detections import *\n"
        f"for number in range({len(reaches)}):\n"
        f"    proposer = load(Path({str(tmp_path)!r}) / f'{{number}}.json')\n"
        "    assert len(proposer.propose(features(), 0)) == 1\n"
        "    print(proposer.warnings()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("annotations left out: 1, such as annotation 71") == len(reaches)


def test_an_outline_as_long_as_no_object_has_is_left_out(tmp_path: Path) -> None:
    zigzag = [[number for i in range(10_000) for number in ((-290, 0), (320, 1))[i % 2]]]
    proposer = load(write(tmp_path / "d.json", [zigzag, POLYGON]))
    assert len(proposer.propose(features(), 0)) == 1
    assert "the outline of its polygons is 61" in proposer.warnings()[0]


def test_corners_outside_the_image_leave_the_mask_inside_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "MAX_CORNERS", 4)
    proposer = load(write(tmp_path / "d.json", [[[12, -150, 300, -150, 300, 200, 12, 200]]]))
    (found,) = proposer.propose(features(), 0)
    expected = np.zeros(SIZE, dtype=bool)
    expected[:, 12:] = True
    np.testing.assert_array_equal(found.mask_hw, expected)


def test_labels_are_at_the_images_own_size(tmp_path: Path) -> None:
    proposer = load(write(tmp_path / "d.json", [POLYGON]))
    (label,) = choose_labels(features(), proposer, CONFIG)
    np.testing.assert_array_equal(label.mask_hw, MASK)
    assert label.source == "coco-json"
    assert label.details["overlap"] > 0.5


def test_more_masks_than_are_compared_are_the_best_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pycocotools counts in 8 bits, and comparing all with all takes memory with the square of their number."""
    file = write(tmp_path / "d.json", [[[x, 4, x + 6, 4, x + 6, 10, x, 10]] for x in range(20)] * 15)
    assert len(load(file).propose(features(), 0)) == 20  # of 300
    content = json.loads(file.read_text())
    content["annotations"][7]["score"], content["annotations"][8]["score"] = 0.9, 0.95
    for row in content["annotations"][9:]:
        row["score"] = 0.5
    for name, value in (("_MAX_MASKS", 2), ("_MAX_PIXELS", 2 * SIZE[0] * SIZE[1])):
        with monkeypatch.context() as patch:
            patch.setattr(f"umscosod.pseudo.coco_proposer.{name}", value)
            proposer = load(dump(file, {**content, "annotations": content["annotations"][7:]}))
            assert [proposal.score for proposal in proposer.propose(features(), 0)] == [0.95, 0.9]
            assert "its best 2 of 293 are used" in "".join(proposer.warnings())


@pytest.mark.parametrize(
    "rows",
    [
        [{"segmentation": POLYGON, "score": 0.0}],
        [{"segmentation": POLYGON, "score": -3.5}],
        [{"segmentation": [[0, 0, 30, 0, 30, 20, 0, 20]]}],
        [{"segmentation": [[0.2, 0.2, 0.8, 0.2, 0.8, 0.8]]}],
        [{"segmentation": MASK.astype(int).tolist()}],
        [],
    ],
    ids=["score", "logit", "frame", "shares", "pixels", "none"],
)
def test_an_image_of_whose_masks_none_is_used_is_said(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    file = write(tmp_path / "d.json", [])
    content = json.loads(file.read_text())
    content["annotations"] = [{"image_id": 139, **row} for row in rows]
    proposer = load(dump(file, content))
    assert proposer.propose(features(), 0) == []
    assert "0 of 1 image found" in proposer.summary()
    assert "images without masks from it: 1 of 1" in "".join(proposer.warnings())


def test_scores_above_one_keep_their_order_and_are_said(tmp_path: Path) -> None:
    file = write(tmp_path / "d.json", [POLYGON, [[0, 12, 20, 12, 20, 18, 0, 18]]], hier_level=0)
    content = json.loads(file.read_text())
    content["annotations"][0]["score"], content["annotations"][1]["score"] = 60, 95
    proposer = load(dump(file, content))
    first, second = proposer.propose(features(), 0)
    assert (first.mask_hw[15, 10], second.mask_hw[5, 10]) == (True, True)
    assert (first.score, second.score) == (1.0, 1.0)
    assert "scores above 1, which count as 1: 2" in "".join(proposer.warnings())


def test_corners_outside_an_image_of_unstated_size_are_of_another_size(tmp_path: Path) -> None:
    file = write(tmp_path / "d.json", [[[2 * x for x in POLYGON[0]]], POLYGON])
    content = json.loads(file.read_text())
    del content["images"][0]["height"], content["images"][0]["width"]
    proposer = load(dump(file, content))
    assert [proposal.mask_hw.sum() for proposal in proposer.propose(features(), 0)] == [MASK.sum()]
    assert "its row of 'images' must say 'width' and 'height'" in "".join(proposer.warnings())


def test_run_lengths_of_a_stamp_are_not_stretched(tmp_path: Path) -> None:
    proposer = load(write(tmp_path / "d.json", [{"size": [2, 3], "counts": [1, 2, 3]}]))
    assert proposer.propose(features(), 0) == []
    assert "is made for 2 x 3 pixels" in "".join(proposer.warnings())


@pytest.mark.parametrize(("image_id", "of_row"), [(139, "0139"), ("0139", 139), ("000139", "139"), (0, "000")])
def test_leading_zeros_of_an_id_do_not_matter_where_one_image_has_the_number(
    tmp_path: Path, image_id: Any, of_row: Any
) -> None:
    file = write(tmp_path / "d.json", [POLYGON])
    content = json.loads(file.read_text())
    content["images"][0]["id"], content["annotations"][0]["image_id"] = image_id, of_row
    assert len(load(dump(file, content)).propose(features(), 0)) == 1
    content["images"] += [{"id": f"0000{image_id}", "file_name": "cat/b.jpg"}]
    with_two = load(dump(file, content), names=["cat/000000000139.jpg", "cat/b.jpg"])
    assert with_two.propose(features(["cat/000000000139.jpg", "cat/b.jpg"]), 1) == []


def test_lvis_names_its_images_by_their_address(tmp_path: Path) -> None:
    file = write(tmp_path / "d.json", [POLYGON])
    content = json.loads(file.read_text())
    del content["images"][0]["file_name"]
    content["images"][0]["coco_url"] = "http://images.cocodataset.org/train2017/000000000139.jpg"
    assert len(load(dump(file, content)).propose(features(), 0)) == 1


def test_images_found_by_a_number_in_their_name_are_said(tmp_path: Path) -> None:
    names = ["cat/IMG_9 (1).jpg", "cat/000000000002.jpg", "cat/3.jpg"]
    rows = [{"image_id": number, "segmentation": POLYGON} for number in (1, 2, 3)]
    proposer = load(dump(tmp_path / "d.json", rows), names=names)
    assert proposer.missed == {}
    assert ["images found by a number" in line for line in proposer.warnings()] == [True]
    assert "1, such as 'cat/IMG_9 (1).jpg' for 1; if it is another's, give" in proposer.warnings()[0]
