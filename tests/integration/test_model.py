"""`apply_model` on a real data set: whole groups, cut groups, and pictures that cannot be used."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.conftest import DatasetFactory
from tests.jobs import quick_config
from umscosod.errors import ConfigError, DataError
from umscosod.export.png import map_to_bytes
from umscosod.pipeline import label_groups, train

SETTINGS = {"refine.crf.workers": 1}


def make_model(**values: Any) -> Any:
    from umscosod.integrations.fiftyone import CoSalModel, CoSalModelConfig

    return CoSalModel(CoSalModelConfig({"preset": "smoke", "settings": SETTINGS, **values}))


def read_label(label: Any, kind: str = "mask") -> np.ndarray:
    array = getattr(label, kind)
    return np.asarray(Image.open(label[f"{kind}_path"])) if array is None else array


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.fixture
def toy(dataset_factory: DatasetFactory) -> Any:
    return dataset_factory(n_groups=2, n_images=3)


def test_whole_groups_get_the_masks_that_the_command_line_makes(
    toy: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    view = toy.sort_by("cls")
    with caplog.at_level(logging.WARNING):
        view.apply_model(
            make_model(),
            label_field="zoo",
            batch_size=3,
            group_field="cls",
            output_dir=str(tmp_path / "masks"),
            skip_failures=False,
        )
    assert not [record for record in caplog.records if "more than one batch" in record.message]
    assert toy.count("zoo") == 6
    for group in toy.distinct("cls"):
        (tmp_path / group).mkdir()
        pictures = toy.match({"cls": group}).sort_by("filepath").values("filepath")
        for path in pictures:
            with Image.open(path) as picture:  # lossless: two readers of JPEG may differ by a grey level
                picture.save(tmp_path / group / f"{Path(path).stem}.png")
        config = quick_config(tmp_path / "cache")
        out = tmp_path / "out" / group
        label_groups(tmp_path / group, out, config, train=False)
        for sample in toy.match({"cls": group}):
            label = sample["zoo"]
            assert Path(label.mask_path).is_relative_to(tmp_path / "masks")
            mask = read_label(label)
            assert set(np.unique(mask)) <= {0, 255}
            (theirs,) = (out / "masks").rglob(f"{Path(sample.filepath).stem}.png")
            assert iou(mask > 0, np.asarray(Image.open(theirs)) > 0) > 0.98
            assert 0.0 < label.confidence <= 1.0
            assert label.provenance == "model"


def test_a_batch_of_several_groups_is_split(toy: Any) -> None:
    toy.sort_by("cls").apply_model(make_model(), label_field="three", batch_size=3, group_field="cls")
    toy.apply_model(make_model(group_field="cls", output="segmentation"), label_field="six", batch_size=6)
    toy.apply_model(make_model(), label_field="folder", batch_size=100)  # folders are the groups here
    for sample in toy:
        assert (sample["three"].mask == sample["six"].mask).all()
        assert (sample["three"].mask == sample["folder"].mask).all()


def test_heatmaps_and_a_trained_network(toy: Any, tmp_path: Path) -> None:
    root = Path(toy.first().filepath).parents[1]
    config = quick_config(tmp_path / "cache")
    label_groups(root, tmp_path / "labels", config, train=False)
    train(root, tmp_path / "labels", tmp_path / "trained", config)
    model = make_model(checkpoint=str(tmp_path / "trained"), output="heatmap")
    assert model.predictor.is_trained
    toy.sort_by("cls").apply_model(model, label_field="heat", batch_size=3, group_field="cls", skip_failures=False)
    for sample in toy:
        assert sample["heat"].map.dtype == np.uint8
        assert sample["heat"].map.shape == (96, 128)
        assert 0.0 <= sample["heat"].confidence <= 1.0


def test_a_group_cut_by_a_batch_is_said_once_with_the_cure(toy: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = make_model()
    with caplog.at_level(logging.WARNING, logger="umscosod"):
        toy.sort_by("cls").apply_model(model, label_field="cut", batch_size=2, group_field="cls", skip_failures=False)
    (said,) = [record.getMessage() for record in caplog.records if "more than one batch" in record.getMessage()]
    assert re.search(r"'disk-0' .*sort_by\(GROUP_FIELD\).*batch_size", said)
    assert toy.count("cut") == 6
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="umscosod"):  # one group at a time: nothing is cut
        for group in toy.group_by("cls").iter_dynamic_groups():
            group.apply_model(model, label_field="whole", batch_size=len(group), group_field="cls")
    assert not caplog.records
    assert toy.count("whole") == 6


def test_a_picture_that_cannot_be_used_costs_its_group_nothing(
    toy: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import fiftyone as fo

    Image.new("RGB", (60, 2)).save(tmp_path / "thin.png")
    toy.add_sample(fo.Sample(filepath=str(tmp_path / "thin.png"), cls="disk-0"))
    lone = toy.first().copy()
    lone["cls"] = None
    toy.add_sample(lone)
    with caplog.at_level(logging.WARNING, logger="umscosod"):
        toy.apply_model(make_model(), label_field="zoo", batch_size=10, group_field="cls", skip_failures=False)
    assert toy.count("zoo") == 6
    assert toy.match({"cls": None}).first()["zoo"] is None
    assert [record.getMessage() for record in caplog.records if "thin.png is 60 x 2 pixels" in record.getMessage()]


def test_what_can_name_a_group_and_what_cannot(toy: Any) -> None:
    import fiftyone as fo

    toy.set_values("kind", [fo.Classification(label=name) for name in toy.values("cls")])
    toy.set_values("tags_of", [["a", "b"]] * 6)
    toy.apply_model(make_model(), label_field="by_cls", batch_size=6, group_field="cls", skip_failures=False)
    toy.apply_model(make_model(), label_field="by_kind", batch_size=6, group_field="kind", skip_failures=False)
    for sample in toy:
        assert (sample["by_cls"].mask == sample["by_kind"].mask).all()
    with pytest.raises(ConfigError, match="unknown arguments for this model: group_feld; it knows group_field"):
        toy.apply_model(make_model(), label_field="no", batch_size=6, group_feld="cls")
    with pytest.raises(DataError, match="cannot group by 'tags_of'"):
        toy.apply_model(make_model(), label_field="no", batch_size=6, group_field="tags_of", skip_failures=False)


def test_without_samples_all_pictures_are_one_group(toy: Any) -> None:
    model = make_model(output="heatmap")
    pictures = [np.asarray(Image.open(path)) for path in toy.limit(3).values("filepath")]
    labels = model.predict_all([*pictures, pictures[0][:2]])
    found = model.predictor.predict_group(pictures)
    assert labels[3] is None
    for label, one in zip(labels[:3], found, strict=True):
        assert (label.map == map_to_bytes(one.map_HW)).all()
        assert label.confidence == one.confidence


def test_settings_that_are_wrong_are_named() -> None:
    pytest.importorskip("fiftyone")
    with pytest.raises(ConfigError, match="unknown model settings chekpoint; known: checkpoint"):
        make_model(chekpoint="x")
    with pytest.raises(ConfigError, match="output must be one of segmentation, heatmap, got 'mask'"):
        make_model(output="mask")
    with pytest.raises(ConfigError, match=r"refine\.crf\.iterations"):
        make_model(settings={"refine.crf.iteratons": 3})
