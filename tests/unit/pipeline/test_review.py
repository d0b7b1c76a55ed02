"""Pseudo-labels that a person replaced: kept, used, and never mixed with results made without them."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.jobs import assert_same, read_results, read_tree
from tests.unit.pipeline.conftest import Finished
from umscosod.config import PipelineConfig
from umscosod.data.groups import groups_from_folder
from umscosod.errors import DataError
from umscosod.pipeline import LabelReport, label_groups, make_pseudo_labels, predict, refine_maps, train
from umscosod.pseudo.store import load_pseudo_labels
from umscosod.types import Status

CHOSEN = "coffee/coffee_01"


def paint(path: Path, size_hw: tuple[int, int] = (30, 40)) -> bytes:
    """Put a person's mask, of any size that has the image's aspect, in the place of a pseudo-label."""
    mask_HW = np.zeros(size_hw, np.uint8)
    mask_HW[size_hw[0] // 3 :, : size_hw[1] // 2] = 255
    Image.fromarray(mask_HW).save(path)
    return path.read_bytes()


@pytest.fixture
def reviewed(tmp_path: Path, images: Path, config: PipelineConfig) -> Path:
    """An output folder of pseudo-labels, one of them replaced."""
    out = tmp_path / "labels"
    make_pseudo_labels(images, out, config)
    paint(out / "pseudo" / f"{CHOSEN}.png")
    return out


def test_pseudo_stops_at_pseudo_labels(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    report = make_pseudo_labels(images, tmp_path / "out", config)
    assert report.exit_code == 0
    assert {row.source for row in report.rows} == {"pseudo-label"}
    assert not (tmp_path / "out" / "masks").exists()
    assert_same(read_tree(tmp_path / "out" / "pseudo"), read_tree(finished.out / "pseudo"))
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["totals"]["images"] == 6


def test_training_uses_the_replaced_mask(
    tmp_path: Path, images: Path, config: PipelineConfig, reviewed: Path, finished: Finished
) -> None:
    labels = load_pseudo_labels(reviewed / "pseudo", groups_from_folder(images))
    human = [label for label in labels.values() if label.source == "human"]
    assert [label.image_id for label in human] == [f"{CHOSEN}.jpg"]
    report = train(images, reviewed / "pseudo", tmp_path / "trained", config)
    (machine,) = finished.out.glob("run/checkpoints/step-00000006")
    assert (report.checkpoint / "model.safetensors").read_bytes() != (machine / "model.safetensors").read_bytes()


def test_making_pseudo_labels_again_keeps_the_replaced_mask(
    images: Path, config: PipelineConfig, reviewed: Path
) -> None:
    before = read_tree(reviewed / "pseudo")
    make_pseudo_labels(images, reviewed, config)
    assert_same(read_tree(reviewed / "pseudo"), before)
    make_pseudo_labels(images, reviewed, replace(config, seed=9), overwrite=True)
    assert (reviewed / "pseudo" / f"{CHOSEN}.png").read_bytes() == before[f"{CHOSEN}.png"]


def test_label_over_reviewed_pseudo_labels_keeps_and_uses_them(
    images: Path, config: PipelineConfig, reviewed: Path, finished: Finished
) -> None:
    human = (reviewed / "pseudo" / f"{CHOSEN}.png").read_bytes()
    config = replace(config, keep="network")
    with pytest.raises(DataError, match="verb: was 'pseudo', now 'label'"):
        label_groups(images, reviewed, config, train=True)
    label_groups(images, reviewed, config, overwrite=True, train=True)
    assert (reviewed / "pseudo" / f"{CHOSEN}.png").read_bytes() == human
    ours, theirs = (read_tree(out) for out in (reviewed, finished.out))
    assert (
        ours["run/checkpoints/step-00000006/model.safetensors"]
        != theirs["run/checkpoints/step-00000006/model.safetensors"]
    )
    before = read_results(reviewed)
    label_groups(images, reviewed, config, train=True)
    assert_same(read_results(reviewed), before)


@pytest.mark.parametrize("with_training", [True, False])
def test_a_mask_replaced_after_the_job_is_not_passed_over(
    tmp_path: Path, images: Path, config: PipelineConfig, with_training: bool
) -> None:
    out = tmp_path / "out"
    label_groups(images, out, config, train=with_training)
    human = paint(out / "pseudo" / f"{CHOSEN}.png")
    with pytest.raises(DataError, match=r"other pseudo-labels:\n.*replaced or removed.*\n.*--overwrite"):
        label_groups(images, out, config, train=with_training)
    report = label_groups(images, out, config, train=with_training, overwrite=True)
    assert report.exit_code == 0
    assert (out / "pseudo" / f"{CHOSEN}.png").read_bytes() == human


def test_the_mask_of_a_person_is_the_final_mask(images: Path, config: PipelineConfig, reviewed: Path) -> None:
    paint(reviewed / "pseudo" / f"{CHOSEN}.png", (72, 96))
    report = label_groups(images, reviewed, config, overwrite=True, train=True)
    (row,) = [row for row in report.rows if row.image_id == f"{CHOSEN}.jpg"]
    assert (row.status, row.source, row.confidence) == (Status.LABELLED, "human", 1.0)
    final = Image.open(reviewed / "masks" / f"{CHOSEN}.png")
    with Image.open(images / f"{CHOSEN}.jpg") as photo:
        assert final.size == photo.size
    painted = Image.open(reviewed / "pseudo" / f"{CHOSEN}.png").resize(final.size, Image.Resampling.NEAREST)
    assert (np.asarray(final) == np.asarray(painted)).mean() > 0.97  # equal but for the border that resizing moves
    assert {row.source for row in report.rows if row.group == "coffee"} > {"human"}, "the others stay the group's"


@pytest.mark.parametrize("verb", ["label", "no-train", "attention", "predict", "refine"])
def test_a_finished_job_builds_encodes_and_computes_nothing_again(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def run() -> LabelReport:
        out = tmp_path / "out"
        if verb == "predict":
            return predict(images, out, finished.out, config)
        if verb == "refine":
            return refine_maps(images, finished.out, out, config)
        one = replace(config, method="attention") if verb == "attention" else config
        return label_groups(images, out, one, train=verb == "label")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("called on a finished job")

    first = run()
    before = read_tree(tmp_path / "out")
    for name in (
        "setup.build_backbones",
        "setup.FeatureCollection",
        "stages.clean_collection",
        "stages.train_network",
        "checkpoints.load_network",
        "maps.predict_maps",
        "segment.begin_refining",
        "identity.read_upright_size",
    ):
        monkeypatch.setattr(f"umscosod.pipeline.{name}", never)
    again = run()
    assert (again.rows, again.notes) == (first.rows, first.notes)
    assert_same(read_tree(tmp_path / "out"), before)
    result = next((tmp_path / "out" / "maps").rglob("*.png"))
    other_size = io.BytesIO()
    Image.new("L", (3, 5)).save(other_size, "PNG")
    for content in (b"", other_size.getvalue()):
        result.write_bytes(content)
        with pytest.raises(AssertionError, match="called on a finished job"):  # what is not whole is made anew
            run()


def test_a_finished_job_with_a_failed_image_looks_at_it_again(
    tmp_path: Path, images: Path, config: PipelineConfig
) -> None:
    shutil.copytree(images, tmp_path / "image")
    broken = tmp_path / "image" / f"{CHOSEN}.jpg"
    broken.write_bytes(b"")
    report = label_groups(tmp_path / "image", tmp_path / "out", config, train=False)
    assert label_groups(tmp_path / "image", tmp_path / "out", config, train=False).rows == report.rows
    shutil.copy(images / f"{CHOSEN}.jpg", broken)
    with pytest.raises(DataError, match="other images"):
        label_groups(tmp_path / "image", tmp_path / "out", config, train=False)


def test_training_goes_on_only_with_the_labels_it_began_with(
    tmp_path: Path, images: Path, config: PipelineConfig, reviewed: Path
) -> None:
    train(images, reviewed, tmp_path / "out", config)
    paint(reviewed / "pseudo" / "shuttle" / "shuttle_00.png", (48, 48))
    with pytest.raises(DataError, match="other pseudo-labels"):
        train(images, reviewed, tmp_path / "out", config)
    assert train(images, reviewed, tmp_path / "out", config, overwrite=True).steps == 6


def test_a_pseudo_label_that_was_removed_is_left_out(
    tmp_path: Path, images: Path, config: PipelineConfig, reviewed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (reviewed / "pseudo" / f"{CHOSEN}.png").unlink()
    train(images, reviewed, tmp_path / "out", config)
    assert f"{CHOSEN}.jpg (group coffee) is left out" in caplog.text


def test_any_folder_of_masks_can_be_trained_on(
    tmp_path: Path, collection: Path, images: Path, config: PipelineConfig
) -> None:
    report = train(images, collection / "gt", tmp_path / "out", config)
    assert report.steps == 6
    assert 0.0 < report.final_loss < 5.0
    again = train(images, collection / "gt", tmp_path / "out", config)
    assert (again.final_loss, again.steps, again.checkpoint) == (report.final_loss, report.steps, report.checkpoint)


def test_a_large_mask_of_a_person_is_shrunk_to_what_the_network_sees(images: Path, reviewed: Path) -> None:
    paint(reviewed / "pseudo" / f"{CHOSEN}.png", (900, 1200))
    labels = load_pseudo_labels(reviewed / "pseudo", groups_from_folder(images), max_side_px=112)
    mask_HW = labels[f"{CHOSEN}.jpg"].mask_hw
    assert mask_HW.shape == (84, 112)
    assert abs(mask_HW.mean() - 1 / 3) < 0.03  # the lower two thirds of the left half


def test_training_without_labels_says_how_to_make_them(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    with pytest.raises(DataError, match="umscosod pseudo"):
        train(images, tmp_path / "missing", tmp_path / "out", config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="none of the 6 images"):
        train(images, tmp_path / "empty", tmp_path / "out", config)


def test_a_mask_that_is_unfit_fails_its_image_and_no_other(
    tmp_path: Path, images: Path, config: PipelineConfig, reviewed: Path
) -> None:
    mask, stamp = (reviewed / "pseudo" / f"coffee/coffee_0{number}.png" for number in (1, 0))
    mask.write_bytes(b"not a picture")
    paint(stamp, (1, 1))
    for report in (
        train(images, reviewed, tmp_path / "out", config),
        label_groups(images, reviewed, config, overwrite=True, train=True),
    ):
        failed = [row for row in report.rows if row.status is Status.FAILED]
        assert [row.output for row in failed] == ["coffee/coffee_00.png", "coffee/coffee_01.png"]
        assert failed[0].reason == (
            f"{stamp}: the mask has 1 x 1 pixels, its image coffee/coffee_00.jpg 96 x 96; save the mask at the size of "
            "the image"
        )
        assert failed[1].reason.startswith(f"cannot read the mask {mask}: ")
    assert report.exit_code == 1
    for name in ("report.json", "index.html"):
        text = (reviewed / name).read_text(encoding="utf-8")
        assert str(tmp_path) not in text
        assert "cannot read the mask pseudo/coffee/coffee_01.png" in text


def test_masks_none_of_which_is_fit_end_the_job(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    for image in images.rglob("*.jpg"):
        mask = tmp_path / "mine" / image.relative_to(images).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        paint(mask, (3, 3))
    with pytest.raises(DataError, match=r"none of 6 masks in .*mine can be used: .*coffee_00\.png: the mask has 3 x 3"):
        train(images, tmp_path / "mine", tmp_path / "out", config)


def test_a_damaged_list_of_finished_groups_costs_time_only(
    tmp_path: Path, images: Path, config: PipelineConfig
) -> None:
    make_pseudo_labels(images, tmp_path / "out", config)
    before = read_tree(tmp_path / "out" / "pseudo")
    (tmp_path / "out" / "run" / "pseudo-done").write_bytes(bytes(range(256)))
    assert make_pseudo_labels(images, tmp_path / "out", config).exit_code == 0
    assert_same(read_tree(tmp_path / "out" / "pseudo"), before)


def test_images_that_training_cannot_use_are_reported(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    shutil.copytree(images, tmp_path / "image")
    (tmp_path / "image" / f"{CHOSEN}.jpg").write_bytes(b"")
    report = train(tmp_path / "image", finished.out, tmp_path / "out", config)
    assert [(row.image_id, row.status) for row in report.rows] == [(f"{CHOSEN}.jpg", Status.FAILED)]
