"""Runs on a real database: what is written, what is kept, what goes when a run is deleted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.jobs import quick_config
from umscosod.config import PipelineConfig
from umscosod.errors import Cancelled, DataError
from umscosod.integrations import fiftyone as ours

pytestmark = pytest.mark.mongod


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return quick_config(tmp_path_factory.mktemp("cache"))


def label(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.label_dataset(dataset, group_field="cls", config=config, train=False, **options)


def read(path: str) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture)


def mask_paths(dataset: Any, field: str = "cosal") -> list[str]:
    return list(dataset.exists(field).values(f"{field}.mask_path"))


def test_labels_are_files_at_native_size_with_provenance(toy_dataset: Any, config: PipelineConfig) -> None:
    report = ours.label_dataset(toy_dataset, group_field="cls", config=config, train=True)
    assert report.is_success
    assert report.summary == "cosal: 8 labelled"
    for sample in toy_dataset:
        assert (sample["cosal"].provenance, sample["cosal"].run) == ("model", "cosal")
        assert sample["cosal"].mask is None  # never in the database
        mask = read(sample["cosal"].mask_path)
        assert mask.shape == read(sample.filepath).shape[:2]
        assert set(np.unique(mask)) <= {0, 255}
        assert read(sample["cosal_map"].map_path).dtype == np.uint8
        assert 0.0 <= sample["cosal_confidence"] <= 1.0
        assert sample["cosal_status"] == "labelled"
    assert toy_dataset.mask_targets["cosal"] == {255: "co-salient"}
    assert "cosal" in toy_dataset.app_config.active_fields.paths
    (run,) = ours.list_runs(toy_dataset)
    assert (run.key, run.method, run.state, run.n_samples) == ("cosal", "umscosod/label", "complete", 8)
    assert run.seed == config.seed
    assert run.settings["train"]["epochs"] == config.train.epochs
    assert {"torch", "umscosod"} <= run.versions.keys()
    assert all("embedded" in name for name in run.backbones)
    assert (Path(run.checkpoint) / "run" / "checkpoints").is_dir()


def test_the_same_call_again_does_nothing(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    before = {path: Path(path).stat().st_mtime_ns for path in mask_paths(toy_dataset)}
    report = label(toy_dataset, config)
    assert report.summary == "cosal: 8 kept"
    assert {path: Path(path).stat().st_mtime_ns for path in mask_paths(toy_dataset)} == before


def test_samples_that_come_later_are_a_part_of_their_own(toy_dataset: Any, config: PipelineConfig) -> None:
    late = toy_dataset.values("id")[:1]
    first = label(toy_dataset.exclude(late), config)
    kept = {sample.id: sample["cosal"].mask_path for sample in toy_dataset if sample["cosal"] is not None}
    report = label(toy_dataset, config)
    assert [row.image_id for row in report.rows] == late
    assert report.kept == 7
    assert report.out == first.out
    assert toy_dataset[late[0]]["cosal"].mask_path.startswith(str(report.out / "part-002"))
    assert all(toy_dataset[id_]["cosal"].mask_path == path for id_, path in kept.items())
    assert toy_dataset.load_run_results("cosal").sample_ids == sorted(toy_dataset.values("id"))


def test_overwrite_replaces_and_drops_files_nobody_points_to(toy_dataset: Any, config: PipelineConfig) -> None:
    first = label(toy_dataset, config)
    report = label(toy_dataset, config, overwrite=True)
    assert len(report.rows) == 8
    assert all("part-002" in path for path in mask_paths(toy_dataset))
    assert sorted(path.name for path in first.out.iterdir()) == ["part-002", "part-002.json"]


def test_overwrite_of_a_view_keeps_the_files_of_the_others(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    group = toy_dataset.first()["cls"]
    label(toy_dataset.match({"cls": group}), config, overwrite=True)
    assert len(mask_paths(toy_dataset)) == 8
    assert all(Path(path).is_file() for path in mask_paths(toy_dataset))
    assert sum("part-002" in path for path in mask_paths(toy_dataset)) == 4


def test_a_persons_mask_is_never_written(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    sample = toy_dataset.first()
    sample["cosal"]["provenance"] = "human"
    sample.save()
    path = sample["cosal"].mask_path
    label(toy_dataset, config, overwrite=True)
    sample.reload()
    assert sample["cosal"].mask_path == path
    assert Path(path).is_file()
    assert sum("part-002" in other for other in mask_paths(toy_dataset)) == 7


def test_somebody_elses_field_is_refused(toy_dataset: Any, config: PipelineConfig) -> None:
    with pytest.raises(DataError, match="holds 8 labels that no run of umscosod wrote"):
        label(toy_dataset, config, field="ground_truth", overwrite=True)
    with pytest.raises(DataError, match="exists and is a StringField"):
        label(toy_dataset, config, field="cls")
    with pytest.raises(DataError, match="no run writes it"):
        label(toy_dataset, config, field="reviewed")
    assert ours.list_runs(toy_dataset) == []


def test_a_run_keeps_its_folder(toy_dataset: Any, config: PipelineConfig, tmp_path: Path) -> None:
    label(toy_dataset, config, out_dir=tmp_path / "here")
    assert (tmp_path / "here" / "part-001" / "report.json").is_file()
    with pytest.raises(DataError, match="keeps its files in"):
        label(toy_dataset, config, out_dir=tmp_path / "there", overwrite=True)


def test_a_bad_image_is_reported_and_the_rest_labelled(toy_dataset: Any, config: PipelineConfig) -> None:
    broken = toy_dataset.first()
    Path(broken.filepath).write_bytes(b"no picture")
    report = label(toy_dataset, config)
    assert report.is_success
    assert report.summary.startswith("cosal: 7 labelled, 1 failed; ")
    broken.reload()
    assert (broken["cosal"], broken["cosal_status"]) == (None, "failed")
    assert broken["cosal_reason"]
    assert label(toy_dataset, config).summary == "cosal: 8 kept"


def test_delete_removes_the_runs_own_things_only(toy_dataset: Any, config: PipelineConfig, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    label(toy_dataset, config, out_dir=out)
    label(toy_dataset, config, field="other", out_dir=out)  # two runs in one folder
    (out / "notes.txt").write_text("mine")
    (out / "part-001" / "notes.txt").write_text("mine too")
    schema = set(toy_dataset.get_field_schema())
    ours.delete_run(toy_dataset, "cosal")
    gone = schema - set(toy_dataset.get_field_schema())
    assert gone == {"cosal", "cosal_map", "cosal_confidence", "cosal_status", "cosal_reason", "cosal_review"}
    assert [run.key for run in ours.list_runs(toy_dataset)] == ["other"]
    assert all(Path(path).is_file() for path in mask_paths(toy_dataset, "other"))
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "part-001", "part-002", "part-002.json"]
    assert [path.name for path in (out / "part-001").iterdir()] == ["notes.txt"]
    with pytest.raises(DataError, match="runs of this data set: other"):
        ours.delete_run(toy_dataset, "cosal")


def test_fiftyones_own_delete_cleans_up_too(toy_dataset: Any, config: PipelineConfig) -> None:
    report = label(toy_dataset, config)
    toy_dataset.delete_run("cosal")
    assert not toy_dataset.has_field("cosal_map")
    assert not report.out.exists()


def test_train_on_pseudo_and_reviewed_masks_then_predict(toy_dataset: Any, config: PipelineConfig) -> None:
    ours.pseudo_label_dataset(toy_dataset, group_field="cls", config=config)
    assert not toy_dataset.has_field("pseudo_map")
    ids = toy_dataset.values("id")
    ours.accept_masks(toy_dataset.select(ids[:2]), "pseudo")
    ours.reject_masks(toy_dataset.select(ids[2:3]), "pseudo")
    outcome = ours.train_dataset(toy_dataset, group_field="cls", config=config)
    assert (outcome.n_labels, outcome.n_reviewed) == (7, 2)
    manifest = outcome.out / "part-001" / "labels" / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    assert {row["image"] for row in rows} == set(ids[3:])  # the others are a person's, or rejected
    run = ours.get_run(toy_dataset, "network")
    assert (run.method, run.checkpoint) == ("umscosod/train", str(outcome.checkpoint))
    with pytest.raises(DataError, match="is complete; choose another name"):
        ours.train_dataset(toy_dataset, group_field="cls", config=config)
    report = ours.predict_dataset(toy_dataset, "network", group_field="cls", config=config)
    assert report.counts["labelled"] + report.counts["empty"] == 8
    assert ours.get_run(toy_dataset, "predicted").method == "umscosod/predict"
    with pytest.raises(DataError, match="has no trained network"):
        ours.predict_dataset(toy_dataset, "pseudo", group_field="cls", config=config, field="p2")


def test_training_again_replaces_the_network_when_told(toy_dataset: Any, config: PipelineConfig) -> None:
    options = {"group_field": "cls", "labels": "ground_truth", "config": config}
    first = ours.train_dataset(toy_dataset, **options)
    second = ours.train_dataset(toy_dataset, overwrite=True, **options)
    assert not first.checkpoint.exists()
    assert second.checkpoint.is_dir()
    ours.delete_run(toy_dataset, "network")
    assert not second.out.exists()
    assert len(mask_paths(toy_dataset, "ground_truth")) == 8


def test_training_needs_masks(toy_dataset: Any, config: PipelineConfig) -> None:
    with pytest.raises(DataError, match="there is no mask field 'pseudo'"):
        ours.train_dataset(toy_dataset, group_field="cls", config=config)
    with pytest.raises(DataError, match="accept masks first"):
        ours.train_dataset(toy_dataset, group_field="cls", labels=None, config=config)
    with pytest.raises(DataError, match="is a field of this data set"):
        ours.train_dataset(toy_dataset, group_field="cls", labels=None, key="cls", config=config)


def test_what_was_sent_back_is_done_again(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    chosen = toy_dataset.values("id")[:1]
    ours.send_back(toy_dataset.select(chosen), "cosal")
    report = label(toy_dataset, config)
    assert [row.image_id for row in report.rows] == chosen
    assert toy_dataset[chosen[0]]["cosal_review"] is None


def test_refine_from_stored_maps(toy_dataset: Any, config: PipelineConfig) -> None:
    from dataclasses import replace

    label(toy_dataset, config)
    strict = replace(
        config, refine=replace(config.refine, adaptive=False, th0=0.9, crf=replace(config.refine.crf, enabled=False))
    )
    ours.refine_dataset(toy_dataset, "cosal", field="strict", config=strict)
    loose = replace(strict, refine=replace(strict.refine, th0=0.2))
    ours.refine_dataset(toy_dataset, "cosal", field="loose", config=loose)

    def area(field: str) -> float:
        return float(np.mean([read(path).mean() for path in mask_paths(toy_dataset, field)]))

    assert area("strict") < area("loose")
    with pytest.raises(DataError, match="would lose its masks"):
        ours.refine_dataset(toy_dataset, "cosal", field="cosal", config=config)
    with pytest.raises(DataError, match="there is no run 'nothing'"):
        ours.refine_dataset(toy_dataset, "nothing", config=config)


def test_pseudo_masks_from_a_detections_field(toy_dataset: Any, config: PipelineConfig) -> None:
    import fiftyone as fo

    for sample in toy_dataset:
        truth = fo.Segmentation(mask=sample["ground_truth"].get_mask())
        sample["boxes"] = truth.to_detections(mask_targets={255: "object"})
        sample.save()
    ours.pseudo_label_dataset(toy_dataset, group_field="cls", config=config, detections_field="boxes")
    for sample in toy_dataset:
        mask, truth = (read(sample[name].mask_path) > 0 for name in ("pseudo", "ground_truth"))
        assert (mask & truth).sum() / (mask | truth).sum() > 0.9
    with pytest.raises(DataError, match="is no Detections field"):
        ours.pseudo_label_dataset(toy_dataset, group_field="cls", config=config, detections_field="cls", field="p2")


def test_pseudo_masks_from_a_coco_file_named_by_file(toy_dataset: Any, config: PipelineConfig, tmp_path: Path) -> None:
    from dataclasses import replace

    from umscosod.data.masks import encode_rle

    images, annotations = [], []
    for number, sample in enumerate(toy_dataset):
        images.append({"id": number, "file_name": "/".join(Path(sample.filepath).parts[-2:])})
        mask = read(sample["ground_truth"].mask_path) > 0
        annotations.append({"image_id": number, "segmentation": encode_rle(mask), "score": 0.9})
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    chosen = replace(config, pseudo=replace(config.pseudo, proposer="coco-json", detections=str(file)))
    ours.pseudo_label_dataset(toy_dataset, group_field="cls", config=chosen)
    sample = toy_dataset.first()
    mask, truth = (read(sample[name].mask_path) > 0 for name in ("pseudo", "ground_truth"))
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_a_coco_file_that_was_edited_meanwhile_is_not_mixed_with_the_old_one(
    toy_dataset: Any, config: PipelineConfig, tmp_path: Path
) -> None:
    from dataclasses import replace

    from umscosod.data.masks import encode_rle

    file = tmp_path / "results.json"
    rows = [
        {"image_id": sample.filepath, "segmentation": encode_rle(read(sample["ground_truth"].mask_path) > 0)}
        for sample in toy_dataset
    ]
    file.write_text(json.dumps(rows))
    chosen = replace(config, pseudo=replace(config.pseudo, proposer="coco-json", detections=str(file)))

    def stop(done: int, total: int, stage: str) -> None:
        if stage == "pseudo-labels" and done:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        ours.pseudo_label_dataset(toy_dataset, group_field="cls", config=chosen, progress=stop)
    file.write_text(json.dumps(rows[::-1]))
    with pytest.raises(DataError, match="detections or weights have changed"):
        ours.pseudo_label_dataset(toy_dataset, group_field="cls", config=chosen)
    report = ours.pseudo_label_dataset(toy_dataset, group_field="cls", config=chosen, overwrite=True)
    assert report.counts["labelled"] == 8


def test_samples_deleted_meanwhile_are_passed_over(toy_dataset: Any, config: PipelineConfig) -> None:
    doomed = toy_dataset.values("id")[0]

    def delete(done: int, total: int, stage: str) -> None:
        if stage == "refinement" and doomed in toy_dataset.values("id"):
            toy_dataset.delete_samples([doomed])

    assert len(label(toy_dataset, config, progress=delete).rows) == 8
    assert len(mask_paths(toy_dataset)) == 7


def test_grouped_and_missing_views_are_refused_or_flattened(toy_dataset: Any, config: PipelineConfig) -> None:
    assert label(toy_dataset.group_by("cls"), config).counts["labelled"] == 8
    with pytest.raises(DataError, match="no samples"):
        label(toy_dataset.limit(0), config, field="other")


def test_a_vanished_run_folder_is_made_again(toy_dataset: Any, config: PipelineConfig) -> None:
    report = label(toy_dataset, config)
    shutil.rmtree(report.out)
    assert label(toy_dataset, config, overwrite=True).counts["labelled"] == 8
    assert all(Path(path).is_file() for path in mask_paths(toy_dataset))


def test_samples_without_a_group_are_told_apart(toy_dataset: Any, config: PipelineConfig) -> None:
    sample = toy_dataset.first()
    sample["cls"] = None
    sample.save()
    report = label(toy_dataset, config)
    assert (report.kept, report.ungrouped) == (0, 1)
    assert report.summary == "cosal: 7 labelled, 1 without a group"
    assert label(toy_dataset, config).summary == "cosal: 7 kept, 1 without a group"


def test_refinement_uses_the_features_of_its_source(toy_dataset: Any, config: PipelineConfig) -> None:
    from dataclasses import replace

    label(toy_dataset, config)
    other = replace(
        config, features=replace(config.features, size_px=224), refine=replace(config.refine, th0=0.9, adaptive=False)
    )
    report = ours.refine_dataset(toy_dataset, "cosal", field="strict", config=other)
    assert ours.get_run(toy_dataset, "strict").backbones == ours.get_run(toy_dataset, "cosal").backbones
    settings = ours.get_run(toy_dataset, "strict").settings
    assert (settings["features"]["size_px"], settings["refine"]["th0"]) == (config.features.size_px, 0.9)
    ours.refine_dataset(toy_dataset, "cosal", field="same")
    for old, new in zip(mask_paths(toy_dataset), mask_paths(toy_dataset, "same"), strict=True):
        assert (read(old) == read(new)).mean() > 0.98  # stored maps have 256 levels
    assert report.seconds > 0


def test_fiftyones_progress_bar_is_shown_where_it_is_on(
    toy_dataset: Any, config: PipelineConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fiftyone as fo

    monkeypatch.setattr(fo.config, "show_progress_bars", False)
    label(toy_dataset, config, field="quiet")
    assert "features" not in capsys.readouterr().out
    label(toy_dataset, config, field="told", progress=True)
    assert "features 0/8" in capsys.readouterr().out
    monkeypatch.setattr(fo.config, "show_progress_bars", True)
    label(toy_dataset, config, field="asked", progress=False)
    assert "features" not in capsys.readouterr().out
    label(toy_dataset, config, field="usual")
    assert "features 0/8" in capsys.readouterr().out


def test_an_evaluation_of_labels_that_are_no_more_is_stale(toy_dataset: Any, config: PipelineConfig) -> None:
    def evaluate(**options: Any) -> None:
        ours.evaluate_dataset(toy_dataset, "cosal", "ground_truth", group_field="cls", **options)

    label(toy_dataset, config)
    label(toy_dataset, config, field="other")
    evaluate()
    ours.evaluate_dataset(toy_dataset, "other", "ground_truth", group_field="cls")
    label(toy_dataset, config)  # has nothing to do
    assert ours.stale_evaluations(toy_dataset) == {}
    assert ours.compare_dataset(toy_dataset, "eval_cosal", "eval_other").notes == ()
    label(toy_dataset, config, overwrite=True)
    words = "eval_cosal was made before cosal was labelled anew; evaluate again"
    assert ours.stale_evaluations(toy_dataset) == {"eval_cosal": words}
    run = ours.get_run(toy_dataset, "cosal")
    assert (run.evaluations, run.stale) == (("eval_cosal",), {"eval_cosal": words})
    assert ours.compare_dataset(toy_dataset, "eval_cosal", "eval_other").notes == (words,)
    evaluate(overwrite=True)
    assert ours.stale_evaluations(toy_dataset) == {}


def test_evaluations_of_a_deleted_run_stay_unless_told(toy_dataset: Any, config: PipelineConfig) -> None:
    before = set(toy_dataset.get_field_schema())
    for field in ("cosal", "other"):
        label(toy_dataset, config, field=field)
        ours.evaluate_dataset(toy_dataset, field, "ground_truth", group_field="cls")
    told = ours.delete_run(toy_dataset, "cosal")
    assert told.summary == (
        "cosal: deleted with 6 fields; evaluations that stay: eval_cosal with the fields eval_cosal_iou, eval_cosal_s"
    )
    assert ours.stale_evaluations(toy_dataset) == {"eval_cosal": "eval_cosal was made of cosal, which is deleted"}
    told = ours.delete_run(toy_dataset, "other", evaluations=True)
    assert (told.evaluations, told.kept_evaluations) == (("eval_other",), ())
    assert toy_dataset.list_evaluations() == ["eval_cosal"]
    toy_dataset.delete_evaluation("eval_cosal")
    assert set(toy_dataset.get_field_schema()) == before
