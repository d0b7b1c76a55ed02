"""What a run leaves that failed at its start, or was stopped on its way: a free name, or work to go on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.interrupted import stop_at
from tests.jobs import quick_config
from umscosod.config import PipelineConfig
from umscosod.data.files import lock_folder
from umscosod.errors import Cancelled, DataError, UmscosodError
from umscosod.integrations import fiftyone as ours

pytestmark = pytest.mark.mongod


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return quick_config(tmp_path_factory.mktemp("cache"))


def label(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.label_dataset(dataset, **{"group_field": "cls", "config": config, "train": False, **options})


def with_features(config: PipelineConfig, **changes: Any) -> PipelineConfig:
    return replace(config, features=replace(config.features, **changes))


def with_seed(config: PipelineConfig, seed: int) -> PipelineConfig:
    return replace(config, seed=seed)


def stop_before(stage: str) -> Callable[[int, int, str], None]:
    """Cancel before the first unit of a stage is done."""

    def progress(done: int, total: int, name: str) -> None:
        if name == stage:
            raise Cancelled("stop")

    return progress


def stop(dataset: Any, call: Callable[..., Any], stage: str, **options: Any) -> None:
    with pytest.raises(Cancelled):
        call(dataset, progress=stop_at(stage), **options)


def test_a_start_that_is_refused_takes_no_name(toy_dataset: Any, config: PipelineConfig, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder", encoding="utf-8")
    missing = tmp_path / "missing.pth"
    coco = replace(config, pseudo=replace(config.pseudo, proposer="coco-json", detections=str(missing)))
    toy_dataset.set_values("odd", ["../up"] * 8)
    starts: list[tuple[str, Callable[[], Any]]] = [
        ("device 'foo' is unknown", lambda: label(toy_dataset, replace(config, device="foo"))),
        ("missing.pth", lambda: label(toy_dataset, with_features(config, weights=str(missing)))),
        ("missing.pth", lambda: label(toy_dataset, with_features(config, backbone="auto", weights=str(missing)))),
        ("unknown backbone", lambda: label(toy_dataset, with_features(config, backbone="resnet"))),
        ("missing.pth", lambda: label(toy_dataset, coco)),
        ("seed", lambda: label(toy_dataset, replace(config, seed=-1))),
        ("a file, not a folder", lambda: label(toy_dataset, config, out_dir=file / "below")),
        ("cannot write", lambda: label(toy_dataset, config, out_dir="/proc/umscosod")),
        ("a folder without a checkpoint", lambda: label(toy_dataset, config, checkpoint=tmp_path)),
        ("no field 'nothing' to group by", lambda: label(toy_dataset, config, group_field="nothing")),
        ("group name", lambda: label(toy_dataset, config, group_field="odd")),
        ("no Detections", lambda: ours.pseudo_label_dataset(toy_dataset, config=config, detections_field="nothing")),
        ("there is no run 'nothing'", lambda: ours.refine_dataset(toy_dataset, "nothing", config=config)),
        ("mask field 'nothing'", lambda: ours.train_dataset(toy_dataset, labels="nothing", config=config)),
        ("device", lambda: ours.train_dataset(toy_dataset, labels="ground_truth", config=replace(config, device="?"))),
    ]
    for message, start in starts:
        with pytest.raises(UmscosodError, match=message):
            start()
        assert toy_dataset.list_runs() == [], message
    assert label(toy_dataset, config).counts["labelled"] == 8


def test_a_run_that_finished_nothing_begins_anew_with_any_settings(
    toy_dataset: Any, config: PipelineConfig, tmp_path: Path
) -> None:
    with pytest.raises(Cancelled):
        label(toy_dataset, config, progress=stop_before("features"))
    assert ours.get_run(toy_dataset, "cosal").state == "interrupted"
    stop(toy_dataset, ours.pseudo_label_dataset, "features", field="cosal", config=config, out_dir=tmp_path / "other")
    report = label(toy_dataset, with_seed(config, 7))
    assert (report.counts["labelled"], report.out.is_relative_to(tmp_path / "other")) == (8, False)
    assert not (tmp_path / "other").exists()
    run = ours.get_run(toy_dataset, "cosal")
    assert (run.state, run.seed, run.method) == ("complete", 7, "umscosod/label")
    assert [path.name for path in sorted(report.out.glob("part-*"))] == ["part-001", "part-001.json"]


def test_a_second_part_that_finished_nothing_does_not_bind_the_next(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset.limit(4), config)
    stop(toy_dataset, label, "features", config=config)
    assert label(toy_dataset, with_seed(config, 7)).summary == "cosal: 4 labelled, 4 kept"


def test_what_was_interrupted_is_found_and_gone_on_with(toy_dataset: Any, config: PipelineConfig) -> None:
    assert ours.find_interrupted(toy_dataset, "cosal") is None
    seen: list[str] = []

    def look(done: int, total: int, stage: str) -> None:
        run = ours.get_run(toy_dataset, "cosal")
        seen.append(run.state)
        assert ours.find_interrupted(toy_dataset, "cosal") is None  # somebody is at work on it
        if stage == "refinement" and done == 1:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        label(toy_dataset, with_seed(config, 7), progress=look)
    assert set(seen) == {"running"}
    run = ours.get_run(toy_dataset, "cosal")
    assert (run.state, run.stopped_at) == ("interrupted", "refinement 1/2")
    assert run.summary == "cosal: label, interrupted at refinement 1/2, 0 samples"
    left = ours.find_interrupted(toy_dataset, "cosal")
    assert left is not None
    assert (left.key, left.method, left.stage, left.group_field) == ("cosal", "umscosod/label", "refinement 1/2", "cls")
    assert (left.settings, left.config) == ({"verb": "label", "train": False, "checkpoint": ""}, with_seed(config, 7))
    assert run.created[:13] <= left.began[:13]
    with pytest.raises(DataError, match="was interrupted, with other settings: seed was 7, now"):
        label(toy_dataset, config)
    with lock_folder(run.folder):  # as a call that is at work
        assert ours.get_run(toy_dataset, "cosal").state == "running"
        with pytest.raises(DataError, match="nothing to go on with"):
            ours.resume_dataset(toy_dataset, "cosal")
    late = toy_dataset.first().copy()
    toy_dataset.add_sample(late)
    report = ours.resume_dataset(toy_dataset, "cosal")
    assert (report.counts["labelled"], toy_dataset[late.id]["cosal"]) == (8, None)
    run = ours.get_run(toy_dataset, "cosal")
    assert (run.state, run.stopped_at, run.seed) == ("complete", "", 7)
    assert run.seconds == pytest.approx(report.seconds, abs=0.01)
    assert report.seconds > 0
    assert ours.find_interrupted(toy_dataset, "cosal") is None


def test_every_verb_goes_on_with_its_own_settings(toy_dataset: Any, config: PipelineConfig, tmp_path: Path) -> None:
    add_boxes(toy_dataset)
    strict = replace(config, refine=replace(config.refine, th0=0.9))
    calls: list[tuple[str, str, Callable[..., Any], dict[str, Any]]] = [
        ("network", "training", ours.train_dataset, {"labels": "ground_truth", "key": "network", "config": config}),
        ("pseudo", "pseudo-labels", ours.pseudo_label_dataset, {"detections_field": "boxes", "config": config}),
        ("cosal", "refinement", label, {"config": config, "checkpoint": "network"}),
        ("refined", "refinement", ours.refine_dataset, {"source": "cosal", "config": strict}),
        ("other", "import", ours.import_predictions, {"folder": tmp_path / toy_dataset.name / "gt", "field": "other"}),
    ]
    for key, stage, call, options in calls:
        if "config" in options and call is not ours.refine_dataset:
            options = {"group_field": "cls", **options}
        stop(toy_dataset, call, stage, **options)
        left = ours.find_interrupted(toy_dataset, key)
        assert left is not None, key
        assert left.stage.startswith(stage)
        assert ours.resume_dataset(toy_dataset, key).is_success
        run = ours.get_run(toy_dataset, key)
        assert (run.state, run.method) == ("complete", left.method)
        assert len(list(run.folder.glob("part-*.json"))) == 1
    assert ours.get_run(toy_dataset, "refined").settings["refine"]["th0"] == 0.9


def add_boxes(dataset: Any) -> None:
    import fiftyone as fo

    for sample in dataset:
        truth = fo.Segmentation(mask=sample["ground_truth"].get_mask())
        sample["boxes"] = truth.to_detections(mask_targets={255: "object"})
        sample.save()
