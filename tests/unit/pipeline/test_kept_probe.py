"""The probe that training fits is kept with the network, and labels other collections beside it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from tests.jobs import assert_same, read_tree, select
from tests.synthetic import tiny_collection
from tests.unit.pipeline.conftest import Finished
from umscosod import load_model
from umscosod.config import PipelineConfig
from umscosod.data.masks import read_mask
from umscosod.errors import CheckpointError, OtherResultsError
from umscosod.pipeline import label_groups, predict, train
from umscosod.pipeline.maps import Source, choose_sources

PROBE = "probe.safetensors"


@pytest.fixture
def trained(tmp_path: Path, finished: Finished) -> Path:
    """A copy of the finished job's checkpoint alone, to be damaged."""
    (source,) = finished.out.glob("run/checkpoints/step-00000006")
    return Path(shutil.copytree(source, tmp_path / "network"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that nothing was trained on, as PNG: in memory they are the same."""
    root = tmp_path_factory.mktemp("other")
    tiny_collection(root, groups=1, images=3, size=80, seed=5)
    for path in root.glob("image/*/*.jpg"):
        with Image.open(path) as picture:
            picture.save(path.with_suffix(".png"))
        path.unlink()
    return root / "image"


def note(seen: list[tuple[int, int, str]], done: int, total: int, stage: str) -> None:
    seen.append((done, total, stage))


def maps_of(out: Path) -> dict[str, bytes]:
    return select(read_tree(out), "maps")


def test_the_images_of_the_training_get_from_predict_what_label_gave_them(
    tmp_path: Path, images: Path, config: PipelineConfig
) -> None:
    """On the training's own images the probe's maps are the cleaned labels'."""
    first = label_groups(images, tmp_path / "label", config, train=True)
    second = predict(images, tmp_path / "predict", tmp_path / "label", config)
    trees = (select(read_tree(tmp_path / name), "masks", "maps") for name in ("label", "predict"))
    assert_same(*trees)
    assert {row.source for row in (*first.rows, *second.rows)} == {"mean"}


def test_keep_says_whose_maps_come_out(tmp_path: Path, other: Path, config: PipelineConfig, trained: Path) -> None:
    found = {}
    for keep in ("blend", "network", "pseudo"):
        seen: list[tuple[int, int, str]] = []
        kept = replace(config, keep=keep)
        report = predict(other, tmp_path / keep, trained, kept, progress=partial(note, seen))
        found[keep] = (report.rows[0].source, maps_of(tmp_path / keep))
        is_predicted = any(stage == "prediction" for _, _, stage in seen)
        assert is_predicted == (keep != "pseudo"), "what nobody asked for is not computed"
    assert [source for source, _ in found.values()] == ["mean", "network", "probe"]
    assert found["network"][1] != found["pseudo"][1]
    assert found["blend"][1] not in (found["network"][1], found["pseudo"][1])


def test_a_checkpoint_without_a_probe_labels_with_the_network_alone(
    tmp_path: Path, other: Path, config: PipelineConfig, trained: Path
) -> None:
    predict(other, tmp_path / "with", trained, replace(config, keep="network"))
    off = replace(config, pseudo=replace(config.pseudo, probe="none"))
    predict(other, tmp_path / "off", trained, off)
    (trained / PROBE).unlink()
    meta = json.loads((trained / "meta.json").read_text(encoding="utf-8"))
    del meta["calibration"]["probe_b_bar"]  # as an earlier version left it
    (trained / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    report = predict(other, tmp_path / "without", trained, config)
    assert {row.source for row in report.rows} == {"network"}
    results = [select(read_tree(tmp_path / name), "masks", "maps") for name in ("with", "off", "without")]
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


def test_training_keeps_the_probe_and_its_uncertainty(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished, trained: Path
) -> None:
    report = train(images, finished.out, tmp_path / "trained", config)
    assert (report.checkpoint / PROBE).read_bytes() == (trained / PROBE).read_bytes()
    calibrations = [
        json.loads((folder / "meta.json").read_text(encoding="utf-8"))["calibration"]
        for folder in (report.checkpoint, trained)
    ]
    assert calibrations[0] == calibrations[1]
    assert 0.0 < calibrations[0]["probe_b_bar"] < 0.5
    assert calibrations[0]["probe_b_bar"] != calibrations[0]["b_bar"]


def test_a_persons_masks_are_surer_than_the_probe_fitted_to_them(
    tmp_path: Path, images: Path, collection: Path, config: PipelineConfig
) -> None:
    report = train(images, collection / "gt", tmp_path / "trained", config)
    meta = json.loads((report.checkpoint / "meta.json").read_text(encoding="utf-8"))
    assert meta["calibration"]["probe_b_bar"] > 0.01  # a mask's own uncertainty is 0


def test_without_probe_none_is_kept(tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished) -> None:
    off = replace(config, pseudo=replace(config.pseudo, probe="none"))
    report = train(images, finished.out, tmp_path / "trained", off)
    assert not (report.checkpoint / PROBE).exists()
    assert "probe_b_bar" not in (report.checkpoint / "meta.json").read_text(encoding="utf-8")


def test_a_damaged_probe_is_named_before_anything_is_written(
    tmp_path: Path, other: Path, config: PipelineConfig, trained: Path
) -> None:
    (trained / PROBE).write_bytes((trained / PROBE).read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"probe\.safetensors is damaged.*train again"):
        predict(other, tmp_path / "out", trained, config)
    with pytest.raises(CheckpointError, match=r"probe\.safetensors is damaged.*train again"):
        load_model(trained, config)
    assert not (tmp_path / "out").exists()
    predict(other, tmp_path / "out", trained, replace(config, keep="network"))  # has no use for it


def test_a_probe_without_its_uncertainty_or_of_another_network_is_named(
    tmp_path: Path, other: Path, config: PipelineConfig, trained: Path
) -> None:
    file = trained / "meta.json"
    meta = json.loads(file.read_text(encoding="utf-8"))
    calibration = meta["calibration"]
    file.write_text(json.dumps(meta | {"calibration": {"b_bar": calibration["b_bar"]}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"probe_b_bar is not in its meta\.json: train again"):
        predict(other, tmp_path / "out", trained, config)
    file.write_text(json.dumps(meta | {"backbone_ids": ["a", "b"]}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"probe\.safetensors was fitted on patches of .*train again"):
        predict(other, tmp_path / "out", trained, config)


def test_results_of_another_probe_are_not_taken_for_these(
    tmp_path: Path, other: Path, config: PipelineConfig, trained: Path
) -> None:
    predict(other, tmp_path / "out", trained, config)
    (trained / PROBE).unlink()
    with pytest.raises(OtherResultsError, match="checkpoint"):
        predict(other, tmp_path / "out", trained, config)


@pytest.mark.parametrize("keep", ["blend", "pseudo"])
def test_pictures_in_memory_get_what_files_get(
    tmp_path: Path, other: Path, config: PipelineConfig, trained: Path, keep: str
) -> None:
    config = replace(config, keep=keep)  # type: ignore[arg-type]
    report = predict(other, tmp_path / "out", trained, config)
    paths = sorted(other.glob("*/*.png"))
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture.convert("RGB")))
    found = load_model(trained, config).predict_group(pictures)
    for one, row in zip(found, report.rows, strict=True):
        with Image.open(tmp_path / "out" / "maps" / row.output) as picture:
            stored_HW = np.asarray(picture).astype(float)
        assert (np.trunc(one.map_HW * 255.0) == stored_HW).all()
        assert (one.mask_HW == read_mask(tmp_path / "out" / "masks" / row.output)).all()
        assert one.confidence == row.confidence


@pytest.mark.parametrize(("keep", "both"), [("blend", "network probe"), ("network", "network"), ("pseudo", "probe")])
def test_a_source_that_is_missing_is_replaced_by_the_other(keep: Literal["blend"], both: str) -> None:
    network, probe = (Source(name=name, b_bar=0.1, make_maps=lambda _: np.zeros(0)) for name in ("network", "probe"))
    config = PipelineConfig(keep=keep)
    assert [source.name for source in choose_sources(config, network, probe)] == both.split()
    assert choose_sources(config, network, None) == (network,)
    assert choose_sources(config, None, probe) == (probe,)
