"""The file of instance masks as an input of a job: read at the door, bound by its content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.jobs import assert_same, read_results
from umscosod.config import PipelineConfig
from umscosod.data.masks import encode_rle, read_mask
from umscosod.errors import ConfigError, DataError, OtherResultsError
from umscosod.pipeline import label_groups, make_pseudo_labels


def with_file(config: PipelineConfig, file: str | Path, companion: str | Path = "") -> PipelineConfig:
    pseudo = replace(config.pseudo, proposer="coco-json", detections=str(file), detections_images=str(companion))
    return replace(config, pseudo=pseudo)


def rows_of(collection: Path) -> list[dict[str, Any]]:
    """Exact masks of all images, as a bare list of results."""
    masks = sorted((collection / "gt").rglob("*.png"))
    return [
        {"image_id": mask.relative_to(collection / "gt").as_posix(), "segmentation": encode_rle(read_mask(mask))}
        for mask in masks
    ]


def refuse_to_encode(*_: object, **__: object) -> None:
    pytest.fail("images were encoded before the detections were read")


@pytest.fixture
def rows(collection: Path) -> list[dict[str, Any]]:
    return rows_of(collection)


@pytest.mark.parametrize("verb", [label_groups, make_pseudo_labels])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.json", None, "cannot be found"),
        (".", None, "is not a regular file"),
        ("d.json", b"", "empty"),
        ("d.json", b"{", "is not a JSON file"),
        ("d.json", b"5", "expected a COCO data set"),
        ("d.json", b"[" * 100_000, "nested too deeply"),
        ("d.json", b'[{"image_id": "nobody/9.jpg", "segmentation": [[1, 1, 5, 1, 5, 5]]}]', "none of the collection"),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_job_before_any_image_is_encoded(
    tmp_path: Path,
    images: Path,
    config: PipelineConfig,
    monkeypatch: pytest.MonkeyPatch,
    verb: Callable[..., object],
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    monkeypatch.setattr(import_module("umscosod.pipeline.setup"), "build_backbones", refuse_to_encode)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        verb(images, tmp_path / "out", with_file(config, tmp_path / name))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_no_setting_asks_for_is_said_to_be_ignored(
    tmp_path: Path, images: Path, config: PipelineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    given = with_file(config, "masks.json")
    make_pseudo_labels(images, tmp_path / "out", replace(given, pseudo=replace(given.pseudo, proposer="hac")))
    assert "pseudo.detections masks.json is not used: pseudo.proposer is hac; set it to coco-json" in caplog.text


def test_no_file_named_is_said_of_the_setting(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    with pytest.raises(ConfigError, match=r"pseudo\.detections is empty"):
        make_pseudo_labels(images, tmp_path / "out", with_file(config, ""))


def test_a_baseline_needs_no_file(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    report = label_groups(images, tmp_path / "out", replace(with_file(config, ""), method="attention"))
    assert report.exit_code == 0


def test_an_edited_file_makes_other_results_and_a_moved_one_does_not(
    tmp_path: Path, images: Path, config: PipelineConfig, rows: list[dict[str, Any]]
) -> None:
    file, out = tmp_path / "d.json", tmp_path / "out"
    file.write_text(json.dumps(rows))
    make_pseudo_labels(images, out, with_file(config, file))
    before = read_results(out)
    shutil.move(file, tmp_path / "elsewhere.json")
    make_pseudo_labels(images, out, with_file(config, tmp_path / "elsewhere.json"))
    assert_same(read_results(out), before)
    name, segmentation = rows[0]["image_id"], rows[0]["segmentation"]
    height, width = segmentation["size"]
    mask = np.zeros((height, width), dtype=bool)
    mask[10:40, 10:40] = True
    rows[0]["segmentation"] = encode_rle(mask)
    file.write_text(json.dumps(rows))
    with pytest.raises(OtherResultsError, match="results of other detections"):
        make_pseudo_labels(images, out, with_file(config, file))
    assert_same(read_results(out), before)
    make_pseudo_labels(images, out, with_file(config, file), overwrite=True)
    np.testing.assert_array_equal(read_mask(out / "pseudo" / name), mask)


def test_the_second_file_is_bound_too(
    tmp_path: Path, images: Path, config: PipelineConfig, rows: list[dict[str, Any]]
) -> None:
    names = [row["image_id"] for row in rows]
    file, companion, out = tmp_path / "d.json", tmp_path / "images.json", tmp_path / "out"
    file.write_text(json.dumps([{**row, "image_id": number} for number, row in enumerate(rows)]))

    def name_images(order: list[str]) -> None:
        companion.write_text(json.dumps({"images": [{"id": i, "file_name": name} for i, name in enumerate(order)]}))

    name_images(names)
    make_pseudo_labels(images, out, with_file(config, file, companion))
    make_pseudo_labels(images, out, with_file(config, file, companion))
    name_images(names[::-1])
    with pytest.raises(OtherResultsError, match="results of other detections"):
        make_pseudo_labels(images, out, with_file(config, file, companion))


def test_what_was_not_taken_is_said_once_at_the_end(
    tmp_path: Path,
    images: Path,
    config: PipelineConfig,
    rows: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    missing = rows[0]["image_id"].removesuffix(".png")
    rows[1]["score"] = "high"
    rows[0]["image_id"] = rows[2]["image_id"] = "nobody/9.jpg"
    (tmp_path / "d.json").write_text(json.dumps(rows))
    report = make_pseudo_labels(images, tmp_path / "out", with_file(config, tmp_path / "d.json"))
    assert report.exit_code == 0
    told = [record.getMessage() for record in caplog.records if "d.json" in record.getMessage()]
    assert len(told) == 3
    assert "images without masks from it: 3 of 6" in told[0]
    assert f"such as '{missing}.jpg': no entry" in told[0]
    assert "images it names that are not in the collection: 1 of 5, such as 'nobody/9.jpg'" in told[1]
    assert "annotations left out: 1, such as annotation at position 1" in told[2]
    assert "score is 'high'" in told[2]


def test_the_report_names_the_content_and_no_place(
    tmp_path: Path, images: Path, config: PipelineConfig, rows: list[dict[str, Any]]
) -> None:
    (tmp_path / "d.json").write_text(json.dumps(rows))
    make_pseudo_labels(images, tmp_path / "out", with_file(config, tmp_path / "d.json"))
    report = (tmp_path / "out" / "report.json").read_text()
    assert "d.json" not in report
    assert json.loads(report)["config"]["detections"].startswith("sha256 ")
