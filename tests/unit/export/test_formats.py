"""From an output folder to each format."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.synthetic import tiny_collection
from umscosod.data.groups import groups_from_folder
from umscosod.data.masks import decode_rle, read_mask
from umscosod.errors import ConfigError, DataError
from umscosod.export.formats import FORMATS, export_items, export_results
from umscosod.export.items import ExportItem
from umscosod.export.png import write_mask
from umscosod.export.report import read_report, write_report
from umscosod.types import BoolArray, ImageGroup, Labelled, Status


@pytest.fixture
def groups(tmp_path: Path) -> list[ImageGroup]:
    tiny_collection(tmp_path / "photos")
    return groups_from_folder(tmp_path / "photos")


@pytest.fixture
def results(tmp_path: Path, groups: list[ImageGroup]) -> Path:
    """What `umscosod label` leaves of two groups: the truth as masks, and one image that failed."""
    rows = []
    for group in groups:
        for image in group.images:
            is_last = image is groups[-1].images[-1]
            status, reason = (Status.FAILED, "file is empty") if is_last else (Status.LABELLED, "")
            row = Labelled(image_id=image.id, group=group.name, output=image.output, status=status, reason=reason)
            rows.append(row if is_last else Labelled(**{**as_dict(row), "confidence": 0.75}))
            if not is_last:
                truth = read_mask(tmp_path / "photos" / "gt" / image.output)
                write_mask(tmp_path / "results" / "masks" / image.output, truth)
    write_report(tmp_path / "results" / "report.json", rows, {})
    return tmp_path / "results"


def as_dict(row: Labelled) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def coco_masks(folder: Path) -> dict[str, BoolArray]:
    document = json.loads((folder / "instances.json").read_text())
    names = {image["id"]: image["file_name"] for image in document["images"]}
    return {names[entry["image_id"]]: decode_rle(entry["segmentation"]) for entry in document["annotations"]}


def test_masks_of_an_output_folder_as_coco(tmp_path: Path, results: Path, groups: list[ImageGroup]) -> None:
    seen: list[tuple[int, int, str]] = []
    report = export_results(results, tmp_path / "coco", "coco", progress=lambda *given: seen.append(given))
    masks = coco_masks(tmp_path / "coco")
    assert sorted(masks) == sorted(image.id for group in groups for image in group.images)[:-1]
    for name, mask in masks.items():
        assert np.array_equal(mask, read_mask(results / "masks" / Path(name).with_suffix(".png")))
    [reason] = report.skipped
    assert reason == f"{groups[-1].images[-1].id}: failed (file is empty)"
    assert (seen[0], seen[-1], len(seen)) == ((0, 5, "export"), (5, 5, "export"), 6)


def test_images_at_hand_are_named_by_their_place_and_linked(
    tmp_path: Path, results: Path, groups: list[ImageGroup]
) -> None:
    root = tmp_path / "photos"
    export_results(results, tmp_path / "coco", "coco", images=groups, image_root=root)
    assert all((root / name).is_file() for name in coco_masks(tmp_path / "coco"))  # image/GROUP/NAME.jpg
    export_results(results, tmp_path / "yolo", "yolo", images=groups, image_root=root)
    first = groups[0].images[0]
    assert (tmp_path / "yolo" / "images" / first.id).read_bytes() == first.path.read_bytes()


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_an_export_needs_room_on_its_own_disk_only(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """So that "cannot export to OUT: No space left on device" names the disk that is full."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such folder"))
    export_results(results, tmp_path / "out", form)
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) in ([".json", ".json"], [".json", ".xml"])


def test_png_equals_the_masks_byte_for_byte(tmp_path: Path, results: Path) -> None:
    export_results(results, tmp_path / "png", "png")
    made = {path.relative_to(tmp_path / "png"): path.read_bytes() for path in (tmp_path / "png").rglob("*.png")}
    masks = {path.relative_to(results / "masks"): path.read_bytes() for path in (results / "masks").rglob("*.png")}
    assert made == masks
    assert len(made) == 5


def test_pseudo_labels_are_taken_where_there_are_no_masks(tmp_path: Path, results: Path) -> None:
    (results / "masks").rename(results / "pseudo")
    assert export_results(results, tmp_path / "cvat", "cvat").n_objects == 5


def test_folders_that_do_not_fit_are_refused(tmp_path: Path, results: Path, groups: list[ImageGroup]) -> None:
    with pytest.raises(DataError, match=r"holds no report\.json"):
        export_results(tmp_path, tmp_path / "o", "png")
    with pytest.raises(DataError, match="the folder of results itself"):
        export_results(results, results, "png", overwrite=True)
    tiny_collection(tmp_path / "other")
    (tmp_path / "other" / "image").rename(tmp_path / "other" / "elsewhere")
    with pytest.raises(DataError, match="none of the 6 images"):
        export_results(results, tmp_path / "o", "png", images=groups_from_folder(tmp_path / "other"))
    partly = export_results(results, tmp_path / "o", "png", images=groups[:1])
    assert partly.n_images == 3
    assert sum("is not among the images given" in reason for reason in partly.skipped) == 2


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("voc", {}, "no format 'voc'"),
        ("png", {"per_group": True}, "png has no categories"),
        ("png", {"per_region": True}, "png has no choice of regions"),
        ("yolo", {"per_region": True}, "yolo has no choice of regions"),
    ],
)
def test_options_that_a_format_lacks(tmp_path: Path, form: str, options: dict[str, bool], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export_items([], tmp_path / "out", form, **options)


def test_report_round_trip(tmp_path: Path) -> None:
    rows = (
        Labelled(
            image_id="c/1.jpg", group="c", output="c/1.png", status=Status.LABELLED, confidence=0.5, source="mean"
        ),
        Labelled(
            image_id="c/2.jpg", group="c", output="c/2.png", status=Status.EMPTY, reason="nothing", threshold=0.25
        ),
    )
    write_report(tmp_path / "report.json", rows, {})
    assert read_report(tmp_path / "report.json") == rows


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99, "images": []}', '{"schema": 1, "images": [{}]}'])
def test_other_reports_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError, match=r"report\.json: is "):
        read_report(tmp_path / "report.json")


ROW = {
    **{"image": "c/1.jpg", "group": "c", "output": "c/1.png", "status": "labelled", "confidence": 0.5},
    **{"threshold": 0.5, "source": "network", "reason": "", "mixed_group": False},
}
WRONG = {
    "image": [None, 5, [], {}, True, "", "/etc/passwd", "../x.jpg", "a\\b", "a\0b"],
    "group": [None, 5, []],
    "output": [None, 5, [], {}, "", "/etc/x.png", "../../..", "a/../b.png"],
    "status": [None, 5, "done", []],
    "confidence": [None, "1", [], True, float("nan"), float("inf"), -0.1, 1.1, 10**400],
    "threshold": [None, "1", float("nan"), 7],
    "source": [None, 5],
    "reason": [None, 5, {}],
    "mixed_group": [5, "no", [1]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_report_with_a_wrong_value_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"schema": 1, "images": [ROW]}))
    assert read_report(path)[0].output == "c/1.png"
    path.write_text(json.dumps({"schema": 1, "images": [ROW | {key: value}]}))
    with pytest.raises(DataError, match=r"report\.json: is no report of ours, or is damaged \("):
        read_report(path)


@pytest.mark.parametrize("key", [key for key in ROW if key != "mixed_group"])
def test_a_report_without_a_key_is_refused(tmp_path: Path, key: str) -> None:
    row = {name: value for name, value in ROW.items() if name != key}
    (tmp_path / "report.json").write_text(json.dumps({"schema": 1, "images": [row]}))
    with pytest.raises(DataError, match=r"report\.json: is no report of ours, or is damaged \("):
        read_report(tmp_path / "report.json")


@pytest.mark.parametrize(
    "content",
    [
        *(b"\x00\xff", b"5", b"null", b"[" * 100_000, b'{"a":' * 100_000, b'{"schema": ' + b"1" * 5000 + b"}"),
        *(b'{"schema": 1, "images": 5}', b'{"schema": 1, "images": [5]}', b'{"schema": 1, "images": {"a": 1}}'),
        *(b'{"schema": 1, "images": null}', b'{"schema": [1], "images": []}', b'{"schema": NaN, "images": []}'),
    ],
    ids=lambda content: content[:30].decode("latin-1"),
)
def test_a_report_of_another_shape_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(DataError, match=r"report\.json: is "):
        read_report(tmp_path / "report.json")


def test_a_report_that_is_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report.json")
    with pytest.raises(DataError, match="is not a regular file"):
        read_report(tmp_path / "report.json")


def test_names_with_control_characters_come_back_from_coco_and_yolo(tmp_path: Path) -> None:
    name = "c\x1b[31mat\x07\r\n"
    write_mask(tmp_path / "m.png", np.ones((4, 4), bool))
    item = ExportItem(image=Path(f"{name}.jpg"), output=f"{name}.png", group=name, mask=tmp_path / "m.png")
    for form in ("coco", "yolo"):
        assert export_items([item], tmp_path / form, form, per_group=True).is_success
    coco = json.loads((tmp_path / "coco" / "instances.json").read_text(encoding="ascii"))
    assert (coco["images"][0]["file_name"], coco["categories"][0]["name"]) == (f"{name}.jpg", name)
    assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_bytes())["names"] == {0: name}
    assert (tmp_path / "yolo" / "labels" / f"{name}.txt").is_file()


def test_the_formats() -> None:
    assert FORMATS == ("png", "coco", "yolo", "cvat")


def test_pseudo_labels_are_never_taken_for_masks_that_are_gone(tmp_path: Path, results: Path) -> None:
    rows = [replace(row, threshold=0.5) for row in read_report(results / "report.json")]
    write_report(results / "report.json", rows, {})
    (results / "masks").rename(results / "pseudo")
    with pytest.raises(DataError, match="results: its folder of masks is gone; give the command that made it again"):
        export_results(results, tmp_path / "cvat", "cvat")
