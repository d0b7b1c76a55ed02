"""A model in memory finds what the same model finds in files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.pipeline.conftest import Finished
from umscosod import load_model
from umscosod.config import PipelineConfig
from umscosod.errors import CheckpointError, ConfigError, DataError
from umscosod.pipeline import label_groups, predict
from umscosod.pipeline.predictor import GroupPrediction


@pytest.fixture(scope="module")
def pictures(images: Path) -> list[np.ndarray]:
    """Pictures of one group, at sizes of their own."""
    found = []
    for number, path in enumerate(sorted((images / "coffee").iterdir())):
        with Image.open(path) as picture:
            found.append(np.asarray(picture.convert("RGB"))[: 96 - 7 * number])
    assert len({picture.shape for picture in found}) == len(found)
    return found


@pytest.fixture(scope="module")
def png(tmp_path_factory: pytest.TempPathFactory, pictures: list[np.ndarray]) -> Path:
    """The same pictures as files."""
    folder = tmp_path_factory.mktemp("png") / "image" / "coffee"
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder.parent


def assert_as_in(out: Path, found: list[GroupPrediction], confidences: list[float]) -> None:
    for number, one in enumerate(found):
        map_HW = np.asarray(Image.open(out / "maps" / "coffee" / f"{number}.png")).astype(float)
        mask_HW = np.asarray(Image.open(out / "masks" / "coffee" / f"{number}.png")) > 0
        assert one.map_HW.shape == one.mask_HW.shape == mask_HW.shape
        assert one.map_HW.dtype == np.float32
        assert one.mask_HW.dtype == np.bool_
        assert (np.trunc(one.map_HW * 255.0) == map_HW).all()
        assert (one.mask_HW == mask_HW).all()
        assert one.mask_HW.any()
    assert [one.confidence for one in found] == confidences


def test_a_network_finds_in_memory_what_it_finds_in_files(
    tmp_path: Path, png: Path, pictures: list[np.ndarray], config: PipelineConfig, finished: Finished
) -> None:
    report = predict(png, tmp_path / "out", finished.out, config)
    model = load_model(finished.out, config)
    assert model.is_trained
    assert_as_in(tmp_path / "out", model.predict_group(pictures), [row.confidence for row in report.rows])


def test_without_a_network_it_finds_refined_pseudo_labels(
    tmp_path: Path, png: Path, pictures: list[np.ndarray], config: PipelineConfig
) -> None:
    report = label_groups(png, tmp_path / "out", config, train=False)
    model = load_model(config=config)
    assert not model.is_trained
    found = model.predict_group(pictures)
    assert_as_in(tmp_path / "out", found, [row.confidence for row in report.rows])
    with load_model(
        config=replace(config, refine=replace(config.refine, crf=replace(config.refine.crf, workers=2)))
    ) as two:
        again = two.predict_group(pictures)
    for one, other in zip(found, again, strict=True):
        assert (one.map_HW == other.map_HW).all()
        assert (one.mask_HW == other.mask_HW).all()


def test_the_checkpoints_settings_are_used_without_any(pictures: list[np.ndarray], finished: Finished) -> None:
    model = load_model(finished.out)
    assert model.pair.first.name == "embedded"
    assert model.config.features.size_px == 112
    assert len(model.predict_group(pictures)) == 3


def test_no_pictures_give_no_predictions_and_one_is_labelled_by_itself(
    pictures: list[np.ndarray], config: PipelineConfig
) -> None:
    model = load_model(config=config)
    assert model.predict_group([]) == []
    (alone,) = model.predict_group(pictures[:1])
    assert alone.mask_HW.shape == pictures[0].shape[:2]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.zeros((20, 20), np.uint8), r"uint8 RGB .*\(20, 20\)"),
        (np.zeros((20, 20, 4), np.uint8), r"uint8 RGB .*\(20, 20, 4\)"),
        (np.zeros((20, 20, 3), np.float32), "float32"),
        (np.zeros((2, 20, 3), np.uint8), "20 x 2 pixels, each side"),
        (np.zeros((200, 200, 3), np.uint8), "200 x 200 pixels, more than"),
    ],
)
def test_what_is_no_usable_picture_is_named(
    pictures: list[np.ndarray], config: PipelineConfig, bad: np.ndarray, reason: str
) -> None:
    model = load_model(config=replace(config, data=replace(config.data, max_pixels=20_000)))
    with pytest.raises(DataError, match=f"picture 1 of 2 .*{reason}"):
        model.predict_group([pictures[0], bad])


def test_what_cannot_be_loaded_is_named(tmp_path: Path, config: PipelineConfig, finished: Finished) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_model(tmp_path, config)
    larger = replace(config, features=replace(config.features, size_px=160))
    with pytest.raises(CheckpointError, match="other backbones"):
        load_model(finished.out, larger)
    (step,) = finished.out.glob("run/checkpoints/step-00000006")
    bare = Path(shutil.copytree(step, tmp_path / "bare"))
    (bare / "whitening.json").unlink()
    with pytest.raises(CheckpointError, match="whitening"):
        load_model(bare, config)
    with pytest.raises(ConfigError, match="by file name"):
        load_model(config=replace(config, pseudo=replace(config.pseudo, proposer="coco-json", detections="x.json")))
