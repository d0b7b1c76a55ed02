"""What is wrong at the door is said at the door."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.errors import ConfigError, DataError, WeightsError
from umscosod.pipeline import label_groups
from umscosod.pipeline.prepare import deciding_settings, find_groups
from umscosod.types import ImageGroup, ImageRef


def group(name: str, *images: tuple[str, str]) -> ImageGroup:
    return ImageGroup(name=name, images=tuple(ImageRef(id=i, path=Path(i), output=o) for i, o in images))


def test_groups_are_taken_as_they_are(tmp_path: Path) -> None:
    groups = [group("b", ("b/1.jpg", "b/1.png")), group("a", ("a/1.jpg", "a/1.png"))]
    assert find_groups(groups, tmp_path) == tuple(groups)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "no groups"),
        ([group("a", ("1", "1.png")), group("a", ("2", "2.png"))], "group name 'a' occurs 2 times"),
        ([group("a", ("1", "1.png")), group("b", ("1", "2.png"))], "image id '1' occurs 2 times"),
        ([group("a", ("1", "x.png"), ("2", "x.png")), group("b", ("3", "x.png"))], "output 'x.png' occurs 3 times"),
    ],
)
def test_names_that_clash_are_refused(tmp_path: Path, groups: list[ImageGroup], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_groups(groups, tmp_path)


def test_a_list_is_read_from_csv(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,group\nx/1.jpg,cat\nx/2.jpg,cat\n", encoding="utf-8")
    (found,) = find_groups(tmp_path / "list.csv", tmp_path / "out")
    assert (found.name, [image.output for image in found.images]) == ("cat", ["cat/1.png", "cat/2.png"])
    with pytest.raises(DataError, match="no such folder"):
        find_groups(tmp_path / "missing.csv", tmp_path / "out")


@pytest.mark.parametrize("name", ["masks", "maps", "pseudo/cat", "thumbs", "run"])
def test_images_among_results_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DataError, match="choose another --out"):
        find_groups(tmp_path / name, tmp_path)


def test_the_output_folder_may_lie_above_the_images(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.jpg").touch()
    assert [one.name for one in find_groups(tmp_path / "photos", tmp_path)] == ["cat"]


def test_settings_that_only_speed_up_or_name_a_place_decide_nothing(config: PipelineConfig) -> None:
    features = replace(config.features, cache_dir="/elsewhere", use_cache=False, batch_size=1, weights="/a.pth")
    crf = replace(config.refine.crf, workers=7)
    other = replace(config, device="cuda", features=features, refine=replace(config.refine, crf=crf))
    assert deciding_settings(other) == deciding_settings(config)
    assert deciding_settings(replace(config, seed=1)) != deciding_settings(config)


@pytest.mark.parametrize(
    ("features", "error"),
    [
        (FeaturesConfig(backbone="dino_vitb9"), ConfigError),
        (FeaturesConfig(size_px=5), ConfigError),
        (FeaturesConfig(backbone="dino_vits8", weights="/missing.pth"), WeightsError),
    ],
)
def test_settings_are_checked_before_anything_is_written(
    tmp_path: Path, images: Path, config: PipelineConfig, features: FeaturesConfig, error: type[Exception]
) -> None:
    with pytest.raises(error):
        label_groups(images, tmp_path / "out", replace(config, features=features))
    assert not (tmp_path / "out").exists()


def test_a_job_without_a_cache_leaves_none_behind(
    tmp_path: Path, images: Path, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    features = replace(config.features, use_cache=False, cache_dir=str(tmp_path / "cache"))
    assert label_groups(images, tmp_path / "out", replace(config, features=features), train=False).exit_code == 0
    assert not (tmp_path / "cache").exists()
    assert not [*(tmp_path / "scratch").iterdir()]
