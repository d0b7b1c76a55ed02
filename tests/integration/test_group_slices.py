"""Data sets with several sensors: every slice that was asked for is read and written, none besides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.toys import write_toy_pictures
from tests.jobs import quick_config
from umscosod.config import PipelineConfig
from umscosod.errors import DataError
from umscosod.integrations import fiftyone as ours

pytestmark = pytest.mark.mongod


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return quick_config(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def sensors(mongod: Any, tmp_path: Path) -> Iterator[Any]:
    """Four scenes, each a left and a right picture of one of two kinds; left is the default slice."""
    import fiftyone as fo

    mongod.start()
    dataset = fo.Dataset(f"sensors-{tmp_path.name}", persistent=True)
    dataset.add_group_field("sensor", default="left")
    sides = {side: write_toy_pictures(tmp_path / side, 2, 2, seed=seed) for seed, side in enumerate(("left", "right"))}
    for pair in zip(*sides.values(), strict=True):
        scene = fo.Group()
        samples = []
        for side, (kind, image, mask) in zip(sides, pair, strict=True):
            sample = fo.Sample(filepath=str(image), sensor=scene.element(side), cls=kind)
            sample["ground_truth"] = fo.Segmentation(mask_path=str(mask))
            samples.append(sample)
        dataset.add_samples(samples)
    yield dataset
    dataset.delete()


def label(view: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.label_dataset(view, group_field="cls", config=config, train=False, **options)


def masks_of(view: Any, field: str = "cosal") -> list[str | None]:
    return list(view.values(f"{field}.mask_path"))


def test_a_slice_that_is_not_the_default_gets_its_labels(sensors: Any, config: PipelineConfig) -> None:
    with pytest.raises(DataError, match="select_group_slices"):
        label(sensors, config)
    right = sensors.select_group_slices("right")
    assert label(right, config).summary == "cosal: 4 labelled"
    assert all(path is not None and Path(path).is_file() for path in masks_of(right))
    assert masks_of(sensors.select_group_slices("left")) == [None] * 4
    assert ours.get_run(sensors, "cosal").counts == {"labelled": 4}
    assert label(right, config).summary == "cosal: 4 kept"


def test_all_slices_are_labelled_and_their_files_stay(sensors: Any, config: PipelineConfig) -> None:
    every = sensors.select_group_slices()
    assert label(every, config).summary == "cosal: 8 labelled"
    assert all(path is not None and Path(path).is_file() for path in masks_of(every))
    label(sensors.select_group_slices("left"), config, overwrite=True)  # drops files that nobody points to
    assert all(Path(str(path)).is_file() for path in masks_of(every))
    run = ours.get_run(sensors, "cosal")
    assert (run.counts, run.n_samples) == ({"labelled": 8}, 8)
    ours.delete_run(sensors, "cosal")
    assert not sensors.has_field("cosal")
    assert not run.folder.exists()


def test_review_and_training_see_every_slice(sensors: Any, config: PipelineConfig) -> None:
    every, right = sensors.select_group_slices(), sensors.select_group_slices("right")
    ours.pseudo_label_dataset(every, group_field="cls", config=config)
    ids = right.values("id")
    assert ours.accept_masks(every, "pseudo", ids=ids[:2]).accepted == 2
    assert ours.reject_masks(every, "pseudo", ids=ids[2:3]).rejected == 1
    assert ours.replace_mask(sensors[ids[3]], "pseudo", sensors[ids[3]]["ground_truth"].mask_path).is_file()
    assert ours.review_counts(every, "pseudo") == {"open": 4, "accepted": 3, "rejected": 1, "sent back": 0}
    assert [path is not None for path in masks_of(right, "reviewed")] == [True, True, False, True]
    outcome = ours.train_dataset(every, group_field="cls", config=config)
    assert (outcome.n_labels, outcome.n_reviewed) == (7, 3)
    assert ours.undo_review(every, "pseudo", ids=ids[:2]).undone == 2
    assert [path is not None for path in masks_of(right, "reviewed")] == [False, False, False, True]


def test_evaluation_comparison_and_export_see_every_slice(sensors: Any, config: PipelineConfig, tmp_path: Path) -> None:
    every = sensors.select_group_slices()
    for field in ("one", "two"):
        label(every, config, field=field)
        report = ours.evaluate_dataset(every, field, "ground_truth", group_field="cls")
        assert (report.n, report.missing) == (8, 0)
        assert None not in every.values(f"eval_{field}_iou")
    comparison = ours.compare_dataset(sensors, "eval_one", "eval_two")
    assert (comparison.n, comparison.n_equal) == (8, 8)
    assert ours.compare_dataset(sensors, "eval_one", "eval_two", view=sensors.select_group_slices("right")).n == 4
    assert ours.export_dataset(every, "one", tmp_path / "out").n_images == 8


def test_instances_of_every_slice_become_ground_truth(sensors: Any, config: PipelineConfig) -> None:
    import fiftyone as fo

    every = sensors.select_group_slices()
    for sample in every:
        truth = fo.Segmentation(mask=sample["ground_truth"].get_mask())
        sample["boxes"] = truth.to_detections(mask_targets={255: "object"})
        sample.save()
    report = ours.pseudo_label_dataset(every, group_field="cls", config=config, detections_field="boxes")
    assert report.counts["labelled"] == 8
    scored = ours.evaluate_dataset(every.select_fields(["boxes", "pseudo"]), "pseudo", "boxes", group_field="cls")
    assert (scored.n, scored.dataset.iou > 0.9) == (8, True)
    assert None not in masks_of(every, "boxes_mask")


def test_groups_and_imports_reach_every_slice(sensors: Any, tmp_path: Path) -> None:
    every = sensors.select_group_slices()
    report = ours.group_dataset(every, by="field", source="cls")
    assert every.values("cosal_group") == every.values("cls")
    assert sum(len(group) for group in sensors.load_saved_view(report.view_name).iter_dynamic_groups()) == 8
    right = sensors.select_group_slices("right")
    imported = ours.import_predictions(right, tmp_path / "right" / "gt", "other", group_field="cls")
    assert imported.counts["labelled"] == 4
    assert None not in masks_of(right, "other")
    refused = ours.group_dataset(every, by="field", source="cls")
    assert refused.sizes == report.sizes  # what is there already is no conflict
