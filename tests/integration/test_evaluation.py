"""Evaluation in FiftyOne: the command line's figures, in fields, in results that load back, and out of them again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402

from umscosod.errors import ConfigError, DataError  # noqa: E402
from umscosod.evaluation import Evaluation, evaluate  # noqa: E402
from umscosod.evaluation.scoring import MEASURES  # noqa: E402
from umscosod.integrations.fiftyone.evaluation.dataset import (  # noqa: E402
    CoSalEvaluationConfig,
    compute_metric,
    evaluate_dataset,
)
from umscosod.integrations.fiftyone.runs.fields import dataset_folder  # noqa: E402

pytestmark = pytest.mark.mongod
CLOSE = 1e-6
PLUGIN = "@umscosod/umscosod"


def add_predictions(dataset: Any, field: str, root: Path, *, seed: int = 0) -> Path:
    """Masks and soft maps that are wrong in different ways, in folders the command line can score; the masks' root."""
    rng = np.random.default_rng(seed)
    masks, maps = {}, {}
    for sample in dataset:
        truth_HW = np.asarray(Image.open(sample.ground_truth.mask_path))
        shifted_HW = np.roll(truth_HW, tuple(rng.integers(-12, 12, 2)), axis=(0, 1))
        soft_HW = np.clip(shifted_HW * 0.7 + rng.uniform(0, 90, truth_HW.shape), 0, 255).astype(np.uint8)
        name = f"{Path(sample.filepath).parent.name}/{Path(sample.filepath).stem}.png"
        for kind, picture_HW in (("masks", shifted_HW), ("maps", soft_HW)):
            path = root / field / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture_HW).save(path)
        masks[sample.id] = fo.Segmentation(mask_path=str(root / field / "masks" / name))
        maps[sample.id] = fo.Heatmap(map_path=str(root / field / "maps" / name))
    dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
    dataset.add_sample_field(f"{field}_map", fo.EmbeddedDocumentField, embedded_doc_type=fo.Heatmap)
    dataset.set_values(field, masks, key_field="id")
    dataset.set_values(f"{field}_map", maps, key_field="id")
    return root / field


@pytest.fixture
def predicted(toy_dataset: Any, tmp_path: Path) -> tuple[Any, Path, Path]:
    """The data set, the root of its predictions, and the folder of its ground truths."""
    return toy_dataset, add_predictions(toy_dataset, "cosal", tmp_path), tmp_path / toy_dataset.name / "gt"


def assert_equal_scores(found: Any, wanted: Any) -> None:
    assert dataclasses.asdict(found) == pytest.approx(dataclasses.asdict(wanted), abs=CLOSE)


def assert_equals_command_line(dataset: Any, key: str, wanted: Evaluation) -> None:
    by_name = {f"{image.group}/{Path(image.name).name}": image for image in wanted.images}
    for sample in dataset:
        image = by_name[f"{Path(sample.filepath).parent.name}/{Path(sample.filepath).stem}"]
        found = {measure: sample[f"{key}_{measure}"] for measure in MEASURES}
        assert found == pytest.approx({measure: getattr(image, measure) for measure in MEASURES}, abs=CLOSE)


@pytest.mark.parametrize(("definition", "use_maps"), [("cosod", False), ("cosod", True), ("sod", True)])
def test_figures_equal_the_command_line(predicted: Any, definition: Any, use_maps: bool) -> None:
    dataset, pred_root, gt_root = predicted
    seen: list[tuple[int, int, str]] = []
    report = evaluate_dataset(
        dataset,
        "cosal",
        "ground_truth",
        definition=definition,
        use_maps=use_maps,
        fields=MEASURES,
        progress=lambda *step: seen.append(step),
    )
    wanted = evaluate(pred_root / ("maps" if use_maps else "masks"), gt_root, definition=definition)
    assert (report.eval_key, report.n, report.missing, report.definition) == ("eval_cosal", 8, 0, definition)
    assert report.is_success
    assert 0 < wanted.dataset.iou < 1, "predictions neither perfect nor useless, or the test shows nothing"
    assert_equal_scores(report.dataset, wanted.dataset)
    assert list(report.groups) == list(wanted.groups) == ["disk-0", "square-1"]
    for name, scores in wanted.groups.items():
        assert_equal_scores(report.groups[name], scores)
    assert_equals_command_line(dataset, "eval_cosal", wanted)
    assert seen[-1] == (8, 8, "evaluate")
    assert len(seen) == 8


def test_results_load_back_with_groups_and_curves(predicted: Any) -> None:
    dataset, pred_root, gt_root = predicted
    evaluate_dataset(dataset, "cosal", "ground_truth", group_field="cls", use_maps=True)
    dataset.clear_cache()
    results = dataset.load_evaluation_results("eval_cosal", cache=False)
    wanted = evaluate(pred_root / "maps", gt_root)
    assert_equal_scores(results.dataset_scores, wanted.dataset)
    assert_equal_scores(results.group_scores["disk-0"], wanted.groups["disk-0"])
    for name in ("thresholds_T", "precision_T", "recall_T", "f_T", "e_T"):
        np.testing.assert_allclose(getattr(results.dataset_curves, name), getattr(wanted.curves, name), atol=CLOSE)
        ours, theirs = results.group_curves["square-1"], wanted.group_curves["square-1"]
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=CLOSE)
    assert results.config.method == "cosal"
    assert (results.config.definition, results.config.group_field, results.config.map_field) == (
        "cosod",
        "cls",
        "cosal_map",
    )
    assert results.definition == "cosod"


def test_built_in_panel_gets_what_fiftyone_itself_would_give(predicted: Any) -> None:
    dataset, _, _ = predicted
    evaluate_dataset(dataset, "cosal", "ground_truth")
    ours = dataset.load_evaluation_results("eval_cosal")
    targets = {0: "background", 255: "co-salient"}
    theirs = dataset.evaluate_segmentations("cosal", "ground_truth", eval_key="plain", mask_targets=targets)
    np.testing.assert_array_equal(ours.pixel_confusion_matrix, theirs.pixel_confusion_matrix)
    assert sorted(zip(ours.ytrue, ours.ypred, ours.weights, ours.ytrue_ids, ours.ypred_ids, strict=True)) == sorted(
        zip(theirs.ytrue, theirs.ypred, theirs.weights, theirs.ytrue_ids, theirs.ypred_ids, strict=True)
    )
    assert (list(ours.classes), ours.missing) == (list(theirs.classes), theirs.missing)
    assert ours.report() == theirs.report()
    options = {"eval_key": "direct", "method": CoSalEvaluationConfig, "mask_targets": targets}
    dataset.evaluate_segmentations("cosal", "ground_truth", **options)
    for name in ("accuracy", "precision", "recall"):
        assert dataset.values(f"direct_{name}") == pytest.approx(dataset.values(f"plain_{name}"))
    assert ours.metrics()["accuracy"] == theirs.metrics()["accuracy"]
    lower = {metric["key"]: metric["lower_is_better"] for metric in ours.custom_metrics.values()}
    assert lower == {measure: measure == "mae" for measure in MEASURES}
    assert ours.metrics()["s"] == pytest.approx(ours.dataset_scores.s)
    with ours.use_subset(dataset.limit(2)):
        assert "s" not in ours.metrics()  # it is not the figure of that part


def test_fields_come_rename_and_go(predicted: Any) -> None:
    dataset, _, _ = predicted
    before = set(dataset.get_field_schema())
    evaluate_dataset(dataset, "cosal", "ground_truth", eval_key="first")
    assert set(dataset.get_field_schema()) - before == {"first_iou", "first_s"}
    assert dataset.list_evaluations(type="segmentation", method="cosal") == ["first"]
    dataset.rename_evaluation("first", "second")
    assert dataset.values("second_iou")
    assert not dataset.has_field("first_iou")
    dataset.delete_evaluation("second")
    assert set(dataset.get_field_schema()) == before
    evaluate_dataset(dataset, "cosal", "ground_truth", eval_key="all", fields=MEASURES)
    assert set(dataset.get_field_schema()) - before == {f"all_{name}" for name in MEASURES}
    with pytest.raises(ConfigError, match="'dice'"):
        evaluate_dataset(dataset, "cosal", "ground_truth", eval_key="odd", fields=("dice",))  # type: ignore[arg-type]


def test_a_key_is_replaced_only_when_asked(predicted: Any) -> None:
    dataset, _, _ = predicted
    first = evaluate_dataset(dataset, "cosal", "ground_truth")
    with pytest.raises(DataError, match="'eval_cosal' exists"):
        evaluate_dataset(dataset, "cosal", "ground_truth")
    half = evaluate_dataset(dataset.limit(4), "cosal", "ground_truth", overwrite=True, use_maps=True)
    assert (first.n, half.n) == (8, 4)
    assert sum(value is not None for value in dataset.values("eval_cosal_iou")) == 4
    dataset.add_sample_field("mine_iou", fo.FloatField)
    with pytest.raises(DataError, match="'mine_iou'"):
        evaluate_dataset(dataset, "cosal", "ground_truth", eval_key="mine")
    with pytest.raises(DataError, match="two words"):
        evaluate_dataset(dataset, "cosal", "ground_truth", eval_key="two words")


def test_a_stopped_call_leaves_what_was_there(predicted: Any) -> None:
    dataset, _, _ = predicted
    evaluate_dataset(dataset, "cosal", "ground_truth")
    before = dataset.values("eval_cosal_iou")

    def stop(done: int, total: int, stage: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_dataset(dataset, "cosal", "ground_truth", use_maps=True, overwrite=True, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate_dataset(dataset, "cosal", "ground_truth", eval_key="other", progress=stop)
    assert dataset.list_evaluations() == ["eval_cosal"]
    assert dataset.values("eval_cosal_iou") == before
    assert not dataset.has_field("other_iou")


def test_what_cannot_be_scored_is_left_out_and_named(predicted: Any) -> None:
    dataset, pred_root, gt_root = predicted
    samples = list(dataset)
    samples[0]["cosal"] = None
    samples[1]["ground_truth"] = None
    Path(samples[2]["cosal"].mask_path).write_bytes(b"no picture")
    Path(samples[3]["ground_truth"].mask_path).unlink()
    for sample in samples[:2]:
        sample.save()
    report = evaluate_dataset(dataset, "cosal", "ground_truth")
    assert (report.n, report.missing, report.is_success) == (4, 4, False)
    reasons = {row.sample_id: row.reason for row in report.missing_reasons}
    assert "no prediction" in reasons[samples[0].id]
    assert "no ground truth" in reasons[samples[1].id]
    assert samples[2]["cosal"].mask_path in reasons[samples[2].id]
    assert samples[3]["ground_truth"].mask_path in reasons[samples[3].id]
    assert "4 left out" in report.summary
    assert [value is None for value in dataset.values("eval_cosal_iou")] == [True] * 4 + [False] * 4
    assert list(report.groups) == ["square-1"]
    assert_equal_scores(
        report.groups["square-1"], evaluate(pred_root / "masks" / "square-1", gt_root / "square-1").dataset
    )
    with pytest.raises(DataError, match="none of the 4 samples"):
        evaluate_dataset(dataset.limit(4), "cosal", "ground_truth", eval_key="nothing")
    assert dataset.list_evaluations() == ["eval_cosal"]


def test_masks_in_the_database_score_like_files(predicted: Any) -> None:
    dataset, _, _ = predicted
    from_files = evaluate_dataset(dataset, "cosal", "ground_truth")
    for number, sample in enumerate(dataset):
        truth_HW = np.asarray(Image.open(sample.ground_truth.mask_path))
        sample["stored_truth"] = fo.Segmentation(mask=(truth_HW > 0) if number % 2 else truth_HW // 255)
        sample["stored"] = fo.Segmentation(mask=np.asarray(Image.open(sample.cosal.mask_path)))
        sample.save()
    assert_equal_scores(evaluate_dataset(dataset, "stored", "stored_truth").dataset, from_files.dataset)
    mixed = evaluate_dataset(dataset, "cosal", "stored_truth", eval_key="mixed")
    assert_equal_scores(mixed.dataset, from_files.dataset)


def test_views_are_flattened_and_groups_come_from_fields(predicted: Any) -> None:
    dataset, _, _ = predicted
    whole = evaluate_dataset(dataset, "cosal", "ground_truth", group_field="cls")
    grouped = evaluate_dataset(dataset.group_by("cls"), "cosal", "ground_truth", eval_key="g", group_field="cls")
    assert_equal_scores(grouped.dataset, whole.dataset)
    assert grouped.groups == whole.groups
    assert len(dataset.load_evaluation_view("g")) == 8
    part = evaluate_dataset(dataset.sort_by("filepath").limit(4), "cosal", "ground_truth", eval_key="part")
    assert_equal_scores(part.dataset, whole.groups["disk-0"])
    sample = dataset.first()
    sample["cls"] = None
    sample.save()
    loose = evaluate_dataset(dataset, "cosal", "ground_truth", eval_key="loose", group_field="cls")
    assert loose.n == 8
    assert {name: scores.n for name, scores in loose.groups.items()} == {"(no group)": 1, "disk-0": 3, "square-1": 4}


def test_instances_become_masks_once(predicted: Any, caplog: pytest.LogCaptureFixture) -> None:
    dataset, _, _ = predicted
    wanted = evaluate_dataset(dataset, "cosal", "ground_truth")
    for sample in dataset:
        sample["truth"] = fo.Segmentation(mask=np.array(Image.open(sample.ground_truth.mask_path))).to_detections(
            mask_targets={255: "object"}
        )
        sample.save()
    with caplog.at_level("INFO", logger="umscosod"):
        report = evaluate_dataset(dataset, "cosal", "truth", eval_key="boxes")
    assert "8 masks made" in caplog.text
    assert report.gt_field == "truth_mask"
    assert "'truth_mask'" in report.summary
    assert_equal_scores(report.dataset, wanted.dataset)
    folder = dataset_folder(dataset) / "ground_truth" / "truth"
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {path.name for path in times} == {f"{id_}.png" for id_ in dataset.values("id")}
    changed = dataset.first()
    changed["truth"] = fo.Detections()
    changed.save()
    caplog.clear()
    with caplog.at_level("INFO", logger="umscosod"):
        evaluate_dataset(dataset, "cosal", "truth", eval_key="boxes", overwrite=True)
    assert "1 mask made" in caplog.text
    rewritten = {path.stem for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert rewritten == {changed.id}
    assert not np.asarray(Image.open(folder / f"{changed.id}.png")).any()
    narrow = evaluate_dataset(dataset.select_fields(["cosal", "truth"]), "cosal", "truth", eval_key="narrow")
    assert narrow.n == 8


def test_instances_without_masks_are_refused(predicted: Any) -> None:
    dataset, _, _ = predicted
    box = fo.Detection(label="object", bounding_box=[0.1, 0.1, 0.5, 0.5])
    masked = fo.Detection(label="object", bounding_box=[0.1, 0.1, 0.5, 0.5], mask=np.ones((4, 4), bool))
    dataset.set_values("boxes", [fo.Detections(detections=[box.copy()]) for _ in range(8)])
    with pytest.raises(DataError, match="only boxes"):
        evaluate_dataset(dataset, "cosal", "boxes")
    assert not dataset.has_field("boxes_mask")
    dataset.set_values("some", [fo.Detections(detections=[(box if i else masked).copy()]) for i in range(8)])
    report = evaluate_dataset(dataset, "cosal", "some")
    assert (report.n, report.missing) == (1, 7)
    assert "1 of 1 instances have no mask" in report.missing_reasons[0].reason
    dataset.clone_sample_field("ground_truth", "boxes_mask")
    with pytest.raises(DataError, match="'boxes_mask'"):
        evaluate_dataset(dataset, "cosal", "boxes", eval_key="taken")


@pytest.mark.parametrize(
    ("pred", "gt", "options", "words"),
    [
        ("nothing", "ground_truth", {}, "such fields here: cosal, ground_truth"),
        ("cosal_map", "ground_truth", {}, "use_maps=True"),
        ("cosal", "cls", {}, "'cls'"),
        ("cosal", "cosal", {}, "two different fields"),
        ("ground_truth", "cosal", {"use_maps": True}, "ground_truth_map"),
        ("cosal", "ground_truth", {"group_field": "colour"}, "colour"),
        ("cosal", "ground_truth", {"definition": "other"}, "other"),
    ],
)
def test_wrong_arguments_are_named(predicted: Any, pred: str, gt: str, options: dict[str, Any], words: str) -> None:
    dataset, _, _ = predicted
    with pytest.raises((DataError, ConfigError), match=words):
        evaluate_dataset(dataset, pred, gt, **options)
    assert dataset.list_evaluations() == []


def test_as_a_method_of_fiftyones_own_call(predicted: Any) -> None:
    dataset, pred_root, gt_root = predicted
    results = dataset.evaluate_segmentations(
        "cosal", gt_field="ground_truth", eval_key="direct", method=CoSalEvaluationConfig, group_field="cls"
    )
    wanted = evaluate(pred_root / "masks", gt_root)
    assert_equal_scores(results.dataset_scores, wanted.dataset)
    assert_equals_command_line(dataset, "direct", wanted)
    for option in ({"compute_dice": True}, {"bandwidth": 5}):
        with pytest.raises(ConfigError, match=next(iter(option))):
            dataset.evaluate_segmentations(
                "cosal", gt_field="ground_truth", eval_key="no", method=CoSalEvaluationConfig, **option
            )
    assert dataset.list_evaluations() == ["direct"]


def test_metric_of_an_evaluation_of_fiftyones_own_method(predicted: Any) -> None:
    dataset, pred_root, gt_root = predicted
    results = dataset.evaluate_segmentations(
        "cosal", gt_field="ground_truth", eval_key="plain", mask_targets={0: "background", 255: "co-salient"}
    )
    wanted = evaluate(pred_root / "masks", gt_root)
    for measure in ("s", "mae", "f_max"):
        value = compute_metric(dataset, results, measure, f"plain_{measure}")
        assert value == pytest.approx(getattr(wanted.dataset, measure), abs=CLOSE)
    assert np.mean(dataset.values("plain_mae")) == pytest.approx(wanted.dataset.mae, abs=CLOSE)


def test_metric_operators_in_fiftyones_own_call(predicted: Any) -> None:
    dataset, pred_root, gt_root = predicted
    before = set(dataset.get_field_schema())
    uris = [f"{PLUGIN}/metric_{measure}" for measure in ("mae", "s", "e_max", "f_max", "iou")]
    results = dataset.evaluate_segmentations(
        "cosal",
        gt_field="ground_truth",
        eval_key="plain",
        mask_targets={0: "background", 255: "co-salient"},
        custom_metrics=uris,
    )
    wanted = evaluate(pred_root / "masks", gt_root).dataset
    assert [results.custom_metrics[uri]["lower_is_better"] for uri in uris] == [True] + [False] * 4
    found = results.metrics()
    assert {name: found[name] for name in ("mae", "s", "e_max", "f_max", "iou")} == pytest.approx(
        {name: getattr(wanted, name) for name in ("mae", "s", "e_max", "f_max", "iou")}, abs=CLOSE
    )
    assert dataset.has_field("plain_e_max")
    dataset.delete_evaluation("plain")
    assert set(dataset.get_field_schema()) == before


def test_operators_from_python(predicted: Any, tmp_path: Path) -> None:
    dataset, pred_root, gt_root = predicted
    add_predictions(dataset, "other", tmp_path, seed=1)
    for field in ("cosal", "other"):
        params = {"pred_field": field, "gt_field": "ground_truth", "group_field": "cls", "definition": "cosod"}
        foo.get_operator(f"{PLUGIN}/evaluate")(dataset, **params)
    wanted = evaluate(pred_root / "masks", gt_root).dataset
    assert_equal_scores(dataset.load_evaluation_results("eval_cosal").dataset_scores, wanted)
    result = foo.get_operator(f"{PLUGIN}/compare")(dataset, a="eval_cosal", b="eval_other", measure="s").result
    assert result["summary"].startswith(f"S-measure (cosod): A eval_cosal {wanted.s:.3f}")
    assert len(result["table"]) == 9
    assert {row["group"] for row in result["groups"]} == {"disk-0", "square-1"}


def rewrite_truths(dataset: Any, folder: Path, make: Any) -> None:
    """Give each sample a ground truth of other values, as a file or, every second one, in the database."""
    truths = {}
    for number, sample in enumerate(dataset):
        values = make(np.asarray(Image.open(sample.ground_truth.mask_path)) > 0)
        if number % 2:
            truths[sample.id] = fo.Segmentation(mask=values)
        else:
            path = folder / f"{sample.id}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(values).save(path)
            truths[sample.id] = fo.Segmentation(mask_path=str(path))
    dataset.add_sample_field("foreign", fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
    dataset.set_values("foreign", truths, key_field="id")


@pytest.mark.parametrize("value", [1, 38])
def test_ground_truths_of_other_values_score_alike(predicted: Any, tmp_path: Path, value: int) -> None:
    dataset, _, _ = predicted
    rewrite_truths(dataset, tmp_path / "foreign", lambda mask: mask.astype(np.uint8) * np.uint8(value))
    found = evaluate_dataset(dataset, "cosal", "foreign", eval_key="foreign")
    wanted = evaluate_dataset(dataset, "cosal", "ground_truth", eval_key="usual")
    assert found.dataset == wanted.dataset
    assert any(f"{value} is foreground" in note for note in found.notes)
    assert not wanted.notes


def test_ids_in_a_field_ask_and_ignored_pixels_leave_the_counts(predicted: Any, tmp_path: Path) -> None:
    dataset, _, _ = predicted

    def make(mask: Any) -> Any:
        values = np.where(mask, np.uint8(2), np.uint8(1))
        values[:20] = 255
        values[20:30] = 0
        return values

    rewrite_truths(dataset, tmp_path / "foreign", make)
    with pytest.raises(DataError, match=r"field 'foreign': holds the values 0, 1, 2, 255, .*mask_value"):
        evaluate_dataset(dataset, "cosal", "foreign")
    found = evaluate_dataset(dataset, "cosal", "foreign", eval_key="asked", mask_value="2")
    assert found.n == len(dataset)
    assert any("of the pixels are ignored" in note for note in found.notes)
    results = dataset.load_evaluation_results("asked")
    assert results.config.mask_value == "2"
    height, width = np.asarray(Image.open(dataset.first().ground_truth.mask_path)).shape
    assert np.asarray(results.pixel_confusion_matrix).sum() == len(dataset) * (height - 20) * width
