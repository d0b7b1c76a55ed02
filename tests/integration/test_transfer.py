"""Predictions in, masks out, on a real database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.toys import DatasetFactory
from umscosod.data.masks import decode_rle, read_mask
from umscosod.errors import Cancelled, ConfigError, DataError
from umscosod.export.report import write_report
from umscosod.integrations import fiftyone as ours
from umscosod.types import Labelled, Status

pytestmark = pytest.mark.mongod


def group_and_name(path: str) -> str:
    return f"{Path(path).parent.name}/{Path(path).stem}"


def write_maps(root: Path, dataset: Any, *, scale: int = 1) -> dict[str, Any]:
    """Soft maps ``root/GROUP/NAME.png``: 200 in the true mask, 40 outside; by sample id."""
    maps = {}
    for sample in dataset:
        truth = read_mask(Path(sample.ground_truth.mask_path))
        grey = np.where(truth, np.uint8(200), np.uint8(40))[::scale, ::scale]
        path = root / f"{group_and_name(sample.filepath)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(path)
        maps[sample.id] = grey
    return maps


def read(path: str) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# predictions in


@pytest.mark.parametrize("group_field", ["cls", None])
def test_maps_of_another_method_become_a_run_of_copies(
    toy_dataset: Any, tmp_path: Path, group_field: str | None
) -> None:
    maps = write_maps(tmp_path / "theirs", toy_dataset)
    before = contents(tmp_path / "theirs")
    report = ours.import_predictions(toy_dataset, tmp_path / "theirs", "other", group_field=group_field)
    assert report.summary == "other: 8 labelled"
    for sample in toy_dataset:
        assert np.array_equal(read(sample["other_map"].map_path), maps[sample.id])
        truth = read_mask(Path(sample.ground_truth.mask_path))
        assert np.array_equal(read(sample["other"].mask_path) == 255, truth)
        assert sample["other"].mask_path.startswith(str(report.out))
        assert (sample["other"].provenance, sample["other"].run) == ("model", "other")
        assert sample["other_confidence"] is None
    (run,) = ours.list_runs(toy_dataset)
    assert (run.key, run.method, run.n_samples) == ("other", "umscosod/import", 8)
    assert run.counts == {"labelled": 8}
    ours.delete_run(toy_dataset, "other")
    assert not toy_dataset.has_field("other_map")
    assert not report.out.exists()
    assert contents(tmp_path / "theirs") == before


def test_masks_have_no_map_and_other_sizes_are_resized(toy_dataset: Any, tmp_path: Path) -> None:
    for sample in toy_dataset:
        truth = read_mask(Path(sample.ground_truth.mask_path))
        path = tmp_path / "theirs" / f"{group_and_name(sample.filepath)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(truth[::2, ::2].astype(np.uint8)).save(path)  # 0 and 1, half the size
    report = ours.import_predictions(toy_dataset, tmp_path / "theirs", "other")
    assert report.counts[Status.LABELLED] == 8
    assert not toy_dataset.has_field("other_map")
    for sample in toy_dataset:
        mask, truth = read(sample["other"].mask_path) == 255, read_mask(Path(sample.ground_truth.mask_path))
        assert mask.shape == truth.shape
        assert (mask & truth).sum() / (mask | truth).sum() > 0.9
        assert sample["other_confidence"] is None


def test_threshold_and_empty_predictions(toy_dataset: Any, tmp_path: Path) -> None:
    write_maps(tmp_path / "theirs", toy_dataset)
    report = ours.import_predictions(toy_dataset, tmp_path / "theirs", "high", threshold=0.9)
    assert report.counts[Status.EMPTY] == 8
    assert not report.is_success
    assert set(toy_dataset.values("high_reason")) == {"the prediction is empty"}
    low = ours.import_predictions(toy_dataset, tmp_path / "theirs", "low", threshold=40 / 255)
    assert low.counts[Status.LABELLED] == 8
    assert all(read(path).min() == 255 for path in toy_dataset.values("low.mask_path"))
    forced = ours.import_predictions(toy_dataset, tmp_path / "theirs", "masks", kind="mask")
    assert forced.counts[Status.LABELLED] == 8
    assert not toy_dataset.has_field("masks_map")


def test_what_fits_nothing_is_told_and_can_come_later(toy_dataset: Any, tmp_path: Path) -> None:
    write_maps(tmp_path / "theirs", toy_dataset)
    missing, broken, *_ = toy_dataset.limit(2)
    gone = tmp_path / "theirs" / f"{group_and_name(missing.filepath)}.png"
    content = gone.read_bytes()
    gone.unlink()
    (tmp_path / "theirs" / f"{group_and_name(broken.filepath)}.png").write_bytes(b"no image")
    (tmp_path / "theirs" / "stray.png").write_bytes(content)
    report = ours.import_predictions(toy_dataset, tmp_path / "theirs", "other")
    assert {str(status): count for status, count in report.counts.items()} == {
        "labelled": 6,
        "empty": 0,
        "failed": 1,
        "skipped": 1,
    }
    assert any("1 prediction fits no sample: stray.png" in note for note in report.notes)
    assert any(f"no prediction {group_and_name(missing.filepath)}" in note for note in report.notes)
    assert toy_dataset[missing.id]["other_status"] is None
    assert "cannot read" in toy_dataset[broken.id]["other_reason"]
    gone.write_bytes(content)
    again = ours.import_predictions(toy_dataset, tmp_path / "theirs", "other")
    assert [row.image_id for row in again.rows] == [missing.id]
    assert toy_dataset[missing.id]["other_status"] == "labelled"


def test_a_stopped_import_is_finished_by_the_next_call(toy_dataset: Any, tmp_path: Path) -> None:
    write_maps(tmp_path / "theirs", toy_dataset)

    def stop(done: int, total: int, stage: str) -> None:
        if done == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        ours.import_predictions(toy_dataset, tmp_path / "theirs", "other", progress=stop)
    assert ours.get_run(toy_dataset, "other").state == "interrupted"
    report = ours.import_predictions(toy_dataset.limit(1), tmp_path / "theirs", "other")
    assert report.counts[Status.LABELLED] == 8
    assert ours.get_run(toy_dataset, "other").state == "complete"


def test_an_output_folder_brings_status_and_confidence(toy_dataset: Any, tmp_path: Path) -> None:
    rows = []
    for number, sample in enumerate(toy_dataset):
        name = group_and_name(sample.filepath)
        status = Status.FAILED if number == 7 else Status.LABELLED
        rows.append(
            Labelled(
                image_id=f"{name}.jpg",
                group=name.partition("/")[0],
                output=f"{name}.png",
                status=status,
                confidence=0.0 if number == 7 else number / 10,
                reason="it was damaged" if number == 7 else "",
            )
        )
        for tree in ("masks", "maps"):
            path = tmp_path / "out" / tree / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(Path(sample.ground_truth.mask_path).read_bytes())
    write_report(tmp_path / "out" / "report.json", rows, {})
    report = ours.import_predictions(toy_dataset, tmp_path / "out", "ours")
    assert report.counts[Status.LABELLED] == 7
    assert toy_dataset.values("ours_confidence") == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0])
    assert toy_dataset.values("ours_reason")[-1] == "it was damaged"
    assert toy_dataset.last()["ours"] is None
    assert toy_dataset.first()["ours_map"] is not None


def test_imports_that_cannot_be(toy_dataset: Any, tmp_path: Path) -> None:
    write_maps(tmp_path / "theirs", toy_dataset)
    with pytest.raises(DataError, match=r"no prediction in .* fits any of the 8 samples"):
        ours.import_predictions(toy_dataset, tmp_path / "theirs" / "disk-0", "other", group_field="cls")
    with pytest.raises(ConfigError, match="threshold"):
        ours.import_predictions(toy_dataset, tmp_path / "theirs", "other", threshold=0)
    with pytest.raises(ConfigError, match="no kind"):
        ours.import_predictions(toy_dataset, tmp_path / "theirs", "other", kind="soft")
    with pytest.raises(DataError, match="that no run of umscosod wrote"):
        ours.import_predictions(toy_dataset, tmp_path / "theirs", "ground_truth", kind="mask")
    assert ours.list_runs(toy_dataset) == []


# masks out


def masks_of(folder: Path) -> dict[str, Any]:
    document = json.loads((folder / "instances.json").read_text())
    names = {image["id"]: image["file_name"] for image in document["images"]}
    return {names[entry["image_id"]]: decode_rle(entry["segmentation"]) for entry in document["annotations"]}


def test_ground_truth_leaves_as_coco_and_comes_back(toy_dataset: Any, tmp_path: Path) -> None:
    report = ours.export_dataset(toy_dataset, "ground_truth", tmp_path / "coco", category_field="cls")
    assert (report.n_images, report.n_objects, report.skipped) == (8, 8, ())
    assert report.is_success
    masks = masks_of(tmp_path / "coco")
    for sample in toy_dataset:
        name = f"{group_and_name(sample.filepath)}.jpg"  # below the folder that holds all images
        assert np.array_equal(masks[name], read_mask(Path(sample.ground_truth.mask_path)))
    document = json.loads((tmp_path / "coco" / "instances.json").read_text())
    assert [entry["name"] for entry in document["categories"]] == ["disk-0", "square-1"]
    assert not any("score" in entry for entry in document["annotations"])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools
def test_fiftyone_itself_reads_the_masks_back(toy_dataset: Any, tmp_path: Path) -> None:
    import fiftyone as fo

    ours.export_dataset(toy_dataset, "ground_truth", tmp_path / "coco", category_field="cls")
    back = fo.Dataset.from_dir(
        dataset_type=fo.types.COCODetectionDataset,
        data_path=str(Path(toy_dataset.first().filepath).parents[1]),
        labels_path=str(tmp_path / "coco" / "instances.json"),
        label_types="segmentations",
        label_field="back",
    )
    try:
        assert len(back) == 8
        for sample in back:
            (instance,) = sample["back"].detections
            original = toy_dataset[sample.filepath]
            assert instance.label == original.cls
            mask = instance.to_segmentation(frame_size=(128, 96), target=255).mask
            assert np.array_equal(mask == 255, read_mask(Path(original.ground_truth.mask_path)))
    finally:
        back.delete()


def test_scores_of_a_run_samples_without_a_mask_and_missing_files(toy_dataset: Any, tmp_path: Path) -> None:
    write_maps(tmp_path / "theirs", toy_dataset)
    ours.import_predictions(toy_dataset.limit(6), tmp_path / "theirs", "other")
    toy_dataset.limit(6).set_values("other_confidence", [0.625] * 6)  # as one of ours has; theirs have none
    gone = Path(toy_dataset.first()["other"].mask_path)
    gone.unlink()
    report = ours.export_dataset(toy_dataset.group_by("cls"), "other", tmp_path / "coco")
    assert (report.n_images, report.n_unlabelled, report.is_success) == (5, 2, False)
    (reason,) = report.skipped
    assert str(gone) in reason
    document = json.loads((tmp_path / "coco" / "instances.json").read_text())
    assert {entry["score"] for entry in document["annotations"]} == {0.625}


def test_accepted_masks_alone_and_corrections_in_place_of_the_run(toy_dataset: Any, tmp_path: Path) -> None:
    write_maps(tmp_path / "theirs", toy_dataset)
    ours.import_predictions(toy_dataset, tmp_path / "theirs", "other")
    first, second = toy_dataset.limit(2)
    ours.accept_masks(toy_dataset, "other", ids=[first.id])
    corrected = np.zeros((96, 128), np.uint8)
    corrected[:5] = 255
    Image.fromarray(corrected).save(tmp_path / "corrected.png")
    ours.replace_mask(toy_dataset[second.id], "other", tmp_path / "corrected.png")
    report = ours.export_dataset(toy_dataset, "other", tmp_path / "png", format="png", only_accepted=True)
    assert (report.n_images, report.n_unlabelled) == (2, 6)
    made = {path.stem: read(str(path)) for path in (tmp_path / "png").rglob("*.png")}
    assert np.array_equal(made[Path(first.filepath).stem] == 255, read_mask(Path(first.ground_truth.mask_path)))
    assert np.array_equal(made[Path(second.filepath).stem], corrected)
    assert ours.export_dataset(toy_dataset, "reviewed", tmp_path / "all", only_accepted=True).n_images == 2


@pytest.mark.parametrize("form", ["yolo", "cvat"])
def test_other_formats(toy_dataset: Any, tmp_path: Path, form: str) -> None:
    report = ours.export_dataset(toy_dataset, "ground_truth", tmp_path / form, format=form)
    assert report.n_objects == 8
    assert (tmp_path / form / ("data.yaml" if form == "yolo" else "annotations.xml")).is_file()


def test_exports_that_cannot_be(dataset_factory: DatasetFactory, tmp_path: Path) -> None:
    import fiftyone as fo

    dataset = dataset_factory(n_groups=1, n_images=2)
    with pytest.raises(DataError, match=r"no mask field 'cls' to export; fields with masks here: ground_truth"):
        ours.export_dataset(dataset, "cls", tmp_path / "o")
    with pytest.raises(DataError, match="none of the 2 samples has an accepted mask"):
        ours.export_dataset(dataset, "ground_truth", tmp_path / "o", only_accepted=True)
    sample = dataset.first()
    sample["ground_truth"] = fo.Segmentation(mask=np.ones((96, 128), np.uint8))
    sample.save()
    report = ours.export_dataset(dataset, "ground_truth", tmp_path / "o")
    assert (report.n_images, len(report.skipped)) == (1, 1)
    assert "lies in the database" in report.skipped[0]


# the operators


def test_operators_from_python(toy_dataset: Any, tmp_path: Path) -> None:
    import fiftyone.operators as foo

    write_maps(tmp_path / "theirs", toy_dataset)
    params = {"folder": str(tmp_path / "theirs"), "field": "other", "group_field": "cls"}
    foo.get_operator("@umscosod/umscosod/import_predictions")(toy_dataset, **params)
    assert toy_dataset.count("other") == 8
    params = {"field": "other", "out_dir": str(tmp_path / "coco"), "format": "coco", "category_field": "cls"}
    foo.get_operator("@umscosod/umscosod/export")(toy_dataset.limit(3), **params)
    assert len(masks_of(tmp_path / "coco")) == 3
