"""Runs that were interrupted, and what became of samples, images and records before the next call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.interrupted import folder_of, label, read_labels, stop_at, train
from tests.integration.toys import DatasetFactory
from tests.jobs import quick_config
from umscosod.config import PipelineConfig
from umscosod.errors import Cancelled, DataError
from umscosod.integrations import fiftyone as ours
from umscosod.integrations.fiftyone.runs import fields

pytestmark = pytest.mark.mongod


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return quick_config(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def make(dataset_factory: DatasetFactory) -> Callable[[], Any]:
    """A data set of 2 x 2 small pictures, each time of the same ones."""
    return lambda: dataset_factory(n_images=2, size_hw=(64, 80))


def test_what_a_person_did_meanwhile_is_kept(
    make: Callable[[], Any], config: PipelineConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dataset = make()
    written: list[fields.LabelItem] = []

    def write_three(dataset: Any, field: str, items: list[fields.LabelItem], **options: Any) -> int:
        written.extend(items[:3])
        fields.write_labels(dataset, field, written, **options)
        raise Cancelled("stop")

    with monkeypatch.context() as patch:
        patch.setattr("umscosod.integrations.fiftyone.runs.jobs.write_labels", write_three)
        with pytest.raises(Cancelled):
            label(dataset, config, train=False)
    drawn, accepted, left = (dataset[item.row.image_id] for item in written)
    own = tmp_path / "own.png"
    own.write_bytes(Path(drawn["cosal"].mask_path).read_bytes())
    drawn["cosal"]["mask_path"], drawn["cosal"]["provenance"] = str(own), "human"
    drawn.save()
    ours.accept_masks(dataset.select(accepted.id), "cosal")
    times = {sample.id: sample["last_modified_at"] for sample in dataset.select(left.id)}
    report = label(dataset, config, train=False)
    assert len(report.rows) == 4
    for sample in (drawn, accepted, left):
        sample.reload()
    assert (drawn["cosal"].mask_path, drawn["cosal"].provenance) == (str(own), "human")
    assert accepted["cosal_review"] == "accepted"
    assert times == {left.id: left["last_modified_at"]}
    assert dataset.count("cosal") == 4


def test_images_changed_meanwhile_need_an_overwrite_which_is_then_enough(
    make: Callable[[], Any], config: PipelineConfig
) -> None:
    for call, field, stage in ((label, "cosal", "refinement"), (train, "network", "training")):
        dataset = make()
        picture = Path(dataset.first().filepath)
        with pytest.raises(Cancelled):
            call(dataset, config, overwrite=True, progress=stop_at(stage))
        picture.write_bytes(Path(dataset.last().filepath).read_bytes())
        with pytest.raises(DataError, match="was interrupted, and its images, labels, detections or weights have"):
            call(dataset, config)
        call(dataset, config, overwrite=True)  # the call that was interrupted
        assert ours.get_run(dataset, field).state == "complete"
        assert [file.name for file in folder_of(dataset, field).glob("*.json")] == ["part-002.json"]


def test_masks_copied_for_a_training_that_never_began_are_copied_again(
    make: Callable[[], Any], config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make()

    def stop(*args: Any, **options: Any) -> None:
        raise Cancelled("stop")

    with monkeypatch.context() as patch:
        patch.setattr("umscosod.integrations.fiftyone.runs.training.add_part", stop)
        with pytest.raises(Cancelled):
            train(dataset, config)
    assert not list(folder_of(dataset, "network").glob("*"))
    assert train(dataset, config).n_labels == 4
    assert len(list(folder_of(dataset, "network").glob("part-001/labels/**/*.png"))) == 4


def test_a_run_at_work_cannot_be_deleted(make: Callable[[], Any], config: PipelineConfig) -> None:
    dataset, refused = make(), []

    def delete(done: int, total: int, stage: str) -> None:
        if stage == "refinement" and not refused:
            with pytest.raises(DataError, match="is being worked on by another process") as caught:
                ours.delete_run(dataset, "cosal")
            refused.append(caught)

    assert label(dataset, config, train=False, progress=delete).counts["labelled"] == 4
    assert len(refused) == 1
    assert all(status == "labelled" for *_, status in read_labels(dataset, "cosal").values())


def test_a_view_that_is_refused_registers_nothing(make: Callable[[], Any], config: PipelineConfig) -> None:
    dataset = make()
    with pytest.raises(DataError, match="no samples"):
        label(dataset.limit(0), config)
    assert ours.list_runs(dataset) == []
    assert not folder_of(dataset).exists()
