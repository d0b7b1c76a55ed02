from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks.reference import cosod as oracle_cosod
from tests.unit.evaluation import oracle_sod
from tests.unit.evaluation.cases import CASES
from umscosod.errors import ConfigError, DataError
from umscosod.evaluation import evaluate, format_table, list_worst_first, scores_to_json

FIGURES = {"n", "mae", "f_max", "f_mean", "f_adaptive", "e_max", "e_mean", "e_adaptive", "s", "iou"}
CHOSEN = [
    (f"{case.split(' on ')[1].replace(' ', '_')}/{case.split(' on ')[0].replace(' ', '_')}", pred, gt)
    for case, pred, gt in CASES
    if case.endswith(("on blob", "on even", "on soft")) and not case.startswith("constant")
]


@pytest.fixture
def trees(tmp_path):
    for name, pred, gt in CHOSEN:
        for folder, picture in (("pred", pred), ("gt", gt)):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return tmp_path / "pred", tmp_path / "gt"


def test_a_tree_under_sod_equals_pysodmetrics_over_all_its_images(trees):
    result = evaluate(*trees, definition="sod")
    rows = [oracle_sod.measure(pred, gt) for _, pred, gt in CHOSEN]
    f_T, e_T = (np.mean([row[name] for row in rows], axis=0) for name in ("f_T", "e_T"))
    wanted = {name: np.mean([row[name] for row in rows]) for name in ("mae", "f_adaptive", "e_adaptive", "s", "iou")}
    wanted |= {"n": len(rows), "f_max": f_T.max(), "f_mean": f_T.mean(), "e_max": e_T.max(), "e_mean": e_T.mean()}
    assert scores_to_json(result)["dataset"] == pytest.approx(wanted, abs=1e-6)


def test_a_tree_under_cosod_equals_its_oracle_per_group(trees):
    result = evaluate(*trees)
    assert result.definition == "cosod"
    assert list(result.groups) == ["blob", "even", "soft"]
    for group, scores in result.groups.items():
        part = [(pred, gt) for name, pred, gt in CHOSEN if name.startswith(f"{group}/")]
        f_T = np.mean([oracle_cosod.f_curve(*pair) for pair in part], axis=0)
        e_T = np.mean([oracle_cosod.e_curve(*pair) for pair in part], axis=0)
        assert scores.n == len(part)
        assert scores.mae == pytest.approx(np.mean([oracle_cosod.mae(*pair) for pair in part]), abs=1e-6)
        assert scores.s == pytest.approx(np.mean([oracle_cosod.s_measure(*pair) for pair in part]), abs=1e-6)
        assert (scores.f_max, scores.f_mean) == pytest.approx((f_T.max(), f_T.mean()), abs=1e-6)
        assert (scores.e_max, scores.e_mean) == pytest.approx((e_T.max(), e_T.mean()), abs=1e-6)
        assert result.group_curves[group].f_T == pytest.approx(f_T, abs=1e-6)


def test_every_pair_is_reported_to_the_progress_callback(trees):
    seen = []
    evaluate(*trees, progress=lambda *call: seen.append(call))
    assert seen == [(done, len(CHOSEN), "evaluate") for done in range(1, len(CHOSEN) + 1)]


def test_json_has_the_agreed_keys_and_survives_a_round_trip(trees):
    result = evaluate(*trees)
    document = json.loads(json.dumps(scores_to_json(result)))
    assert set(document) == {"definition", "undefined_s", "dataset", "groups"}
    assert set(document["dataset"]) == FIGURES
    assert all(set(figures) == FIGURES for figures in document["groups"].values())
    assert document["dataset"]["iou"] == result.dataset.iou
    assert document["dataset"]["n"] == sum(figures["n"] for figures in document["groups"].values())


def test_the_table_names_its_definition_and_aligns_its_columns(trees):
    result = evaluate(*trees, definition="sod")
    lines = format_table(result).splitlines()
    assert "sod" in lines[0]
    assert "PySODMetrics" in lines[0]
    table = [line for line in lines if line.startswith(("group", "all", "blob", "even", "soft"))]
    assert len(table) == 5
    assert len({len(line) for line in table}) == 1
    assert table[1].split()[-1] == f"{result.dataset.iou:.4f}"


def test_worst_images_come_first(trees):
    result = evaluate(*trees)
    by_iou, by_mae = list_worst_first(result), list_worst_first(result, by="mae")
    assert [row.iou for row in by_iou] == sorted(row.iou for row in result.images)
    assert [row.mae for row in by_mae] == sorted((row.mae for row in result.images), reverse=True)
    assert by_iou[-1].name.endswith("/perfect")
    with pytest.raises(ConfigError, match="'fmax'"):
        list_worst_first(result, by="fmax")


def test_a_missing_prediction_and_a_damaged_file_stop_the_evaluation(trees):
    pred, gt = trees
    name = CHOSEN[0][0]
    (pred / f"{name}.png").write_bytes(b"")
    with pytest.raises(DataError, match=f"{name}.png"):
        evaluate(pred, gt)
    (pred / f"{name}.png").unlink()
    with pytest.raises(DataError, match=f"1 of {len(CHOSEN)} .*{name}"):
        evaluate(pred, gt)


def test_extra_predictions_and_undefined_s_are_told(trees):
    pred, gt = trees
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(pred / "extra.png")
    corner = np.zeros((5, 5), np.uint8)
    corner[0, 0] = 255
    for root in trees:
        (root / "corner").mkdir()
        Image.fromarray(corner).save(root / "corner" / "a.png")
    result = evaluate(pred, gt)
    assert (result.extra_predictions, result.dataset.undefined_s) == (1, 1)
    table = format_table(result)
    assert "1 image where the tool gives NaN" in table
    assert "1 prediction without" in table


def clear(mask):
    return np.dstack([np.full((*mask.shape, 3), 255, np.uint8), mask * np.uint8(255)])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda mask: mask.astype(np.uint16),
            ["predictions are masks of values 0, 1: 1 is foreground; they are scored"],
        ),
        (lambda mask: mask.astype(np.uint16) * 255, ["predictions are masks of 0 and 255 in more than 8 bits; they"]),
        (lambda mask: mask, ["predictions are masks of values 0, 1: 1 is foreground; they are scored as 0 and 255"]),
        (clear, ["1 predictions are of one colour and have their mask in the alpha channel"]),
        (lambda mask: mask * np.uint8(255), []),
        (lambda mask: mask.astype(np.uint16) * 65535, []),
    ],
    ids=["16 bits 0/1", "16 bits 0/255", "0/1", "alpha", "0/255", "16 bits"],
)
def test_masks_are_scored_as_what_they_are_or_told(tmp_path, caplog, make, told):
    mask = np.eye(4, dtype=np.uint8)
    for folder in ("pred", "gt"):
        (tmp_path / folder).mkdir()
        Image.fromarray(make(mask)).save(tmp_path / folder / "a.png")
    result = evaluate(tmp_path / "pred", tmp_path / "gt")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(told)
    assert all(line.startswith(start) for line, start in zip(lines, told, strict=True))
    assert (result.dataset.mae, result.dataset.iou) == ((0.75, 0.25) if make is clear else (0, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ground_truths_that_are_all_empty_are_refused(tmp_path, dtype):
    for folder in ("pred", "gt"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((4, 4), dtype)).save(tmp_path / folder / "a.png")
    with pytest.raises(DataError, match="1 mask, and every one is empty"):
        evaluate(tmp_path / "pred", tmp_path / "gt")


def test_soft_maps_stay_soft_and_one_dark_map_among_them_is_told(tmp_path, caplog):
    gt = np.zeros((8, 8), np.uint8)
    gt[2:6, 2:6] = 255
    for name, pred in (("a", gt // 2 + np.arange(64, dtype=np.uint8).reshape(8, 8)), ("b", gt // 255)):
        for folder, picture in (("pred", pred), ("gt", gt)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / folder / f"{name}.png")
    result = evaluate(tmp_path / "pred", tmp_path / "gt")
    assert result.images[1].mae == pytest.approx(254 / 255 / 4)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("1 predictions have no value above 1")


def test_a_picture_of_one_pixel_is_pointed_out(tmp_path, caplog):
    for folder in ("pred", "gt"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((1, 1), 255, np.uint8)).save(tmp_path / folder / "a.png")
    with caplog.at_level(logging.WARNING, "umscosod"):
        evaluate(tmp_path / "pred", tmp_path / "gt")
    assert "single pixel" in caplog.text
    assert "a.png" in caplog.text


def test_an_unknown_definition_is_refused_before_any_file_is_read(tmp_path):
    with pytest.raises(ConfigError, match="'COSOD'"):
        evaluate(tmp_path / "nowhere", tmp_path, definition="COSOD")


def test_the_room_loads_neither_torch_nor_fiftyone():
    heavy = ("torch", "fiftyone", "py_sod_metrics")
    code = f"import sys, umscosod.evaluation; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_prediction_of_another_aspect_is_pointed_out(tmp_path, caplog):
    for tree, size in (("pred", (72, 96)), ("gt", (96, 72))):
        (tmp_path / tree / "a").mkdir(parents=True)
        Image.new("L", size, 255).save(tmp_path / tree / "a" / "turned.png")
        Image.new("L", (20, 15) if tree == "gt" else (40, 30), 255).save(tmp_path / tree / "a" / "scaled.png")
    with caplog.at_level(logging.WARNING, "umscosod"):
        evaluate(tmp_path / "pred", tmp_path / "gt")
    (line,) = [record.getMessage() for record in caplog.records if "another aspect" in record.getMessage()]
    assert line.startswith("1 predictions have another aspect than their ground truth")
    assert "turned.png" in line
