"""Masks that a person edited in the App, on a real database: noticed, read back, shown, protected, used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from tests.integration.app_edits import Window, add_object, draw, read, store_objects, stored_objects
from tests.jobs import quick_config
from umscosod.config import PipelineConfig
from umscosod.errors import ConfigError, DataError
from umscosod.integrations import fiftyone as ours

pytestmark = pytest.mark.mongod
CORNER: Window = (2 / 128, 3 / 96, 16 / 128, 15 / 96)
"""Where no object lies."""


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return quick_config(tmp_path / "cache")


def label(dataset: Any, config: PipelineConfig, **options: Any) -> None:
    given = {"group_field": "cls", "config": config, "train": False, "editable": True}
    ours.label_dataset(dataset, **(given | options))


def mask_of(dataset: Any, sample_id: str, field: str = "cosal") -> Any:
    dataset.reload()
    return read(dataset.select(sample_id).values(f"{field}.mask_path")[0])


def centre_of(mask: Any) -> Window:
    """A small window in the middle of the mask's widest row."""
    row = int(mask.sum(axis=1).argmax())
    column = int(np.median(np.flatnonzero(mask[row])))
    height, width = mask.shape
    return ((column - 3) / width, (row - 3) / height, (column + 3) / width, (row + 3) / height)


def in_window(mask: Any, window: Window) -> Any:
    height, width = mask.shape
    x0, y0, x1, y1 = window
    return np.s_[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]


def test_each_island_is_an_object(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    for sample in toy_dataset:
        mask = read(sample.cosal.mask_path)
        union = np.zeros_like(mask)
        objects = stored_objects(toy_dataset, sample.id)
        for one in objects:
            part = read(one["mask_path"])
            x, y = (round(one["bounding_box"][axis] * mask.shape[1 - axis]) for axis in (0, 1))
            assert not (union[y : y + part.shape[0], x : x + part.shape[1]] & part).any()
            union[y : y + part.shape[0], x : x + part.shape[1]] |= part
            known = (one["label"], one["run"], one["provenance"], one["confidence"])
            assert known == (sample.cls, "cosal", "model", pytest.approx(sample.cosal_confidence))
        assert np.array_equal(union, mask)
    assert toy_dataset.active_label_schemas == ["cosal_objects"]
    assert toy_dataset.label_schemas["cosal_objects"]["classes"] == ["disk-0", "square-1"]
    drawn = ["cls", "cosal", "cosal_objects", "cosal_confidence"]
    assert toy_dataset.app_config.active_fields.paths[-4:] == drawn  # the App edits only what it draws
    assert "cosal_objects" in ours.get_run(toy_dataset, "cosal").fields
    assert ours.read_edits(toy_dataset, "cosal") == []
    assert ours.delete_run(toy_dataset, "cosal").summary == "cosal: deleted with 7 fields"
    assert not toy_dataset.has_field("cosal_objects")
    assert toy_dataset.label_schemas == {}


def test_an_edit_becomes_the_persons_mask_and_no_run_changes_it(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    edited = toy_dataset.first().id
    others = toy_dataset.values("id")[1:]
    before = mask_of(toy_dataset, edited)
    hole = centre_of(before)
    draw(toy_dataset, edited, hole, erase=True)
    draw(toy_dataset, edited, CORNER, erase=False)
    wanted = before.copy()
    wanted[in_window(before, hole)] = False
    wanted[in_window(before, CORNER)] = True

    assert ours.read_edits(toy_dataset, "cosal") == [edited]
    toy_dataset.reload()
    after = mask_of(toy_dataset, edited)
    assert np.array_equal(after, wanted)  # to the pixel, although the App sampled the whole mask anew
    sample = toy_dataset[edited]
    told = (sample.cosal.provenance, sample.cosal_review, sample.cosal_confidence, sample.cosal_status)
    assert told == ("human", "accepted", 1.0, "labelled")
    assert sample.reviewed.mask_path == sample.cosal.mask_path
    objects = stored_objects(toy_dataset, edited)
    assert all(one["provenance"] == "human" and one.get("mask") is None for one in objects)

    label(toy_dataset, config, overwrite=True, editable=False)  # goes on to write objects
    assert np.array_equal(mask_of(toy_dataset, edited), wanted)
    assert stored_objects(toy_dataset, edited) == objects
    assert {one["run"] for one in stored_objects(toy_dataset, others[0])} == {"cosal"}
    label(toy_dataset, config, overwrite=True, editable=False)
    assert np.array_equal(mask_of(toy_dataset, edited), wanted)
    assert ours.read_edits(toy_dataset, "cosal") == [edited]
    assert [toy_dataset[other].cosal.provenance for other in others] == ["model"] * 7


def test_a_run_reads_what_nobody_has_read_yet(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    edited = toy_dataset.first().id
    wanted = mask_of(toy_dataset, edited)
    draw(toy_dataset, edited, CORNER, erase=False)
    wanted[in_window(wanted, CORNER)] = True
    label(toy_dataset, config, overwrite=True)
    assert np.array_equal(mask_of(toy_dataset, edited), wanted)
    # a second edit on top of the first
    hole = centre_of(wanted)
    draw(toy_dataset, edited, hole, erase=True)
    wanted[in_window(wanted, hole)] = False
    label(toy_dataset, config, overwrite=True)
    assert np.array_equal(mask_of(toy_dataset, edited), wanted)


def test_what_is_drawn_while_a_run_works_is_kept(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    edited = toy_dataset.values("id")[1]
    wanted = mask_of(toy_dataset, edited)
    wanted[in_window(wanted, CORNER)] = True
    drawn: list[str] = []

    def progress(done: int, total: int, stage: str) -> None:
        if not drawn and stage.startswith("refine"):  # the samples to write are fixed by now
            drawn.append(stage)
            draw(toy_dataset, edited, CORNER, erase=False)

    label(toy_dataset, config, overwrite=True, progress=progress)
    assert drawn
    assert np.array_equal(mask_of(toy_dataset, edited), wanted)
    assert ours.read_edits(toy_dataset, "cosal") == [edited]


@pytest.mark.parametrize("kind", ["deleted", "added", "moved", "rewritten"])
def test_other_edits_are_noticed(toy_dataset: Any, config: PipelineConfig, kind: str) -> None:
    label(toy_dataset, config)
    edited = toy_dataset.first().id
    wanted = mask_of(toy_dataset, edited)
    objects = stored_objects(toy_dataset, edited)
    width = wanted.shape[1]
    if kind == "deleted":
        store_objects(toy_dataset, edited, [])
        wanted[:] = False
    elif kind == "added":
        add_object(toy_dataset, edited, CORNER)
        wanted[in_window(wanted, CORNER)] = True
    elif kind == "moved":
        objects = [
            {**one, "bounding_box": [one["bounding_box"][0] + 2 / width, *one["bounding_box"][1:]]} for one in objects
        ]
        store_objects(toy_dataset, edited, objects)
        wanted = np.roll(wanted, 2, axis=1)
    else:  # as a later App may do: its server has a route that writes the mask back to the file
        file = Path(objects[0]["mask_path"])
        part = read(str(file))
        part[: part.shape[0] // 2] = False
        Image.fromarray(part.astype(np.uint8) * 255).save(file, compress_level=0)
        x, y = (round(objects[0]["bounding_box"][axis] * wanted.shape[1 - axis]) for axis in (0, 1))
        wanted[y : y + part.shape[0] // 2, x : x + part.shape[1]] = False
    assert ours.read_edits(toy_dataset, "cosal") == [edited]
    assert np.array_equal(mask_of(toy_dataset, edited), wanted)
    status = toy_dataset[edited].cosal_status
    assert status == ("empty" if kind == "deleted" else "labelled")
    assert ours.read_edits(toy_dataset, "cosal") == [edited]
    assert np.array_equal(mask_of(toy_dataset, edited), wanted)


def test_what_is_no_edit(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    undone, boxed, lost = toy_dataset.values("id")[:3]
    whole = stored_objects(toy_dataset, undone)
    draw(toy_dataset, undone, CORNER, erase=False)
    left = stored_objects(toy_dataset, undone)[0]["mask"]  # the App's undo leaves it, and restores the rest
    store_objects(toy_dataset, undone, [{**whole[0], "mask": left}, *whole[1:]])
    box = fo.Detection(label="disk-0", bounding_box=[0.1, 0.1, 0.2, 0.2]).to_dict()
    store_objects(toy_dataset, boxed, [*stored_objects(toy_dataset, boxed), box])
    Path(stored_objects(toy_dataset, lost)[0]["mask_path"]).unlink()
    assert ours.read_edits(toy_dataset, "cosal") == []
    label(toy_dataset, config, overwrite=True)
    assert set(toy_dataset.values("cosal.provenance")) == {"model"}
    assert stored_objects(toy_dataset, undone)[0].get("mask") is None
    assert stored_objects(toy_dataset, boxed)[-1]["bounding_box"] == [0.1, 0.1, 0.2, 0.2]


def test_edits_are_used(toy_dataset: Any, config: PipelineConfig, tmp_path: Path) -> None:
    label(toy_dataset, config)
    edited = toy_dataset.first().id
    ours.evaluate_dataset(toy_dataset, "cosal", "ground_truth", group_field="cls")
    draw(toy_dataset, edited, CORNER, erase=False)

    ours.refine_dataset(toy_dataset, "cosal", field="refined", config=config, editable=True)
    wanted = mask_of(toy_dataset, edited)
    assert np.array_equal(mask_of(toy_dataset, edited, "refined"), wanted)
    assert toy_dataset[edited].refined_confidence == 1.0
    assert "cosal" in toy_dataset[edited].refined_reason
    assert list(ours.stale_evaluations(toy_dataset)) == ["eval_cosal"]

    hole = centre_of(wanted)
    draw(toy_dataset, edited, hole, erase=True)
    ours.evaluate_dataset(toy_dataset, "cosal", "ground_truth", group_field="cls", overwrite=True)
    wanted[in_window(wanted, hole)] = False
    assert np.array_equal(mask_of(toy_dataset, edited), wanted)
    truth = read(toy_dataset[edited].ground_truth.mask_path)
    iou = (truth & wanted).sum() / (truth | wanted).sum()
    assert toy_dataset[edited]["eval_cosal_iou"] == pytest.approx(iou)

    corner: Window = (108 / 128, 3 / 96, 122 / 128, 15 / 96)
    draw(toy_dataset, edited, corner, erase=False)
    wanted[in_window(wanted, corner)] = True
    ours.export_dataset(toy_dataset, "cosal", tmp_path / "png", format="png")
    written = read(str(next((tmp_path / "png").rglob("disk-0/00.png"))))
    assert np.array_equal(written, wanted)
    ours.export_dataset(toy_dataset, "cosal", tmp_path / "coco", only_accepted=True)
    told = json.loads(next((tmp_path / "coco").rglob("*.json")).read_text())
    assert [one["area"] for one in told["annotations"]] == [wanted.sum()]


def test_deleting_a_run_asks_about_edits(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    edited = toy_dataset.first().id
    draw(toy_dataset, edited, CORNER, erase=False)
    with pytest.raises(DataError, match="a person edited 1 mask of the run 'cosal'"):
        ours.delete_run(toy_dataset, "cosal")
    with pytest.raises(ConfigError):
        ours.delete_run(toy_dataset, "cosal", edits="perhaps")  # type: ignore[arg-type]
    wanted = mask_of(toy_dataset, edited)
    folder = ours.get_run(toy_dataset, "cosal").folder
    told = ours.delete_run(toy_dataset, "cosal", edits="keep")
    assert "1 edited mask" in told.summary
    assert not folder.exists()
    assert np.array_equal(mask_of(toy_dataset, edited, "reviewed"), wanted)

    label(toy_dataset, config, field="again")
    draw(toy_dataset, edited, CORNER, erase=False, field="again_objects")
    ours.read_edits(toy_dataset, "again")
    file = Path(toy_dataset[edited].again.mask_path)
    assert file.is_file()
    assert ours.delete_run(toy_dataset, "again", edits="delete").deleted_edits == 1
    assert not file.exists()
    toy_dataset.reload()
    assert toy_dataset[edited].reviewed is None


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("way", ["clone", "export"])
def test_edits_go_along_with_the_data_set(
    toy_dataset: Any, config: PipelineConfig, tmp_path: Path, way: str, when: str
) -> None:
    label(toy_dataset, config)
    edited = toy_dataset.first().id
    wanted = mask_of(toy_dataset, edited)
    draw(toy_dataset, edited, CORNER, erase=False)
    wanted[in_window(wanted, CORNER)] = True
    if when == "before":
        ours.read_edits(toy_dataset, "cosal")
    name = f"{toy_dataset.name}-elsewhere"
    if way == "clone":
        other = toy_dataset.clone(name)
    else:
        toy_dataset.export(export_dir=str(tmp_path / "moved"), dataset_type=fo.types.FiftyOneDataset)
        other = fo.Dataset.from_dir(str(tmp_path / "moved"), dataset_type=fo.types.FiftyOneDataset, name=name)
    try:
        there = other.first().id
        assert ours.read_edits(other, "cosal") == [there]
        assert np.array_equal(mask_of(other, there), wanted)
        label(other, config, overwrite=True)
        assert np.array_equal(mask_of(other, there), wanted)
        assert other.values("cosal.provenance").count("human") == 1
    finally:
        other.delete()


def test_finished_masks_become_editable(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config, editable=False)
    assert not toy_dataset.has_field("cosal_objects")
    assert ours.make_editable(toy_dataset, "cosal") == 8
    edited = toy_dataset.first().id
    draw(toy_dataset, edited, CORNER, erase=False)
    assert ours.read_edits(toy_dataset, "cosal") == [edited]
    toy_dataset.add_sample_field("other_objects", fo.StringField)
    with pytest.raises(DataError, match="holds something else"):
        label(toy_dataset, config, field="other")
    assert not toy_dataset.has_field("other")


def test_an_edit_steers_its_group_and_the_objects_follow(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    edited = toy_dataset.first().id
    before = {sample.id: read(sample.cosal.mask_path) for sample in toy_dataset}
    wanted = before[edited].copy()
    draw(toy_dataset, edited, CORNER, erase=False)
    wanted[in_window(wanted, CORNER)] = True
    ours.use_as_example(toy_dataset, "cosal", ids=[edited])
    report = ours.relabel_dataset(toy_dataset, "cosal")
    assert edited not in report.changed
    assert np.array_equal(mask_of(toy_dataset, edited), wanted)
    assert report.changed
    for sample_id in report.changed:
        mask = mask_of(toy_dataset, sample_id)
        assert sum(read(one["mask_path"]).sum() for one in stored_objects(toy_dataset, sample_id)) == mask.sum()
    ours.undo_relabel_dataset(toy_dataset, "cosal")
    for sample_id in report.changed:
        assert np.array_equal(mask_of(toy_dataset, sample_id), before[sample_id])
        objects = stored_objects(toy_dataset, sample_id)
        assert sum(read(one["mask_path"]).sum() for one in objects) == before[sample_id].sum()
    assert np.array_equal(mask_of(toy_dataset, edited), wanted)
    assert ours.read_edits(toy_dataset, "cosal") == [edited]
