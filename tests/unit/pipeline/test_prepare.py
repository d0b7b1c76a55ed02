"""What is wrong at the door is said at the door."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.config.io import load_config
from umscosod.data.groups import find_groups, groups_from_folder
from umscosod.errors import ConfigError, DataError, WeightsError
from umscosod.pipeline import label_groups
from umscosod.pipeline.identity import deciding_settings
from umscosod.pipeline.job import JobFolder
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
    with pytest.raises(DataError, match=r"missing\.csv: cannot be found"):
        find_groups(tmp_path / "missing.csv", tmp_path / "out")


@pytest.mark.parametrize("name", ["masks", "maps", "pseudo/cat", "thumbs", "run"])
def test_images_among_results_are_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name / "1.jpg")
    with pytest.raises(DataError, match="choose another --out"):
        find_groups(tmp_path / name, tmp_path)


def test_the_output_folder_may_lie_above_the_images(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.jpg").touch()
    assert [one.name for one in find_groups(tmp_path / "photos", tmp_path)] == ["cat"]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", ["cat", "cat/small"])
def test_an_output_folder_that_holds_images_is_refused(tmp_path: Path, name: str) -> None:
    """Left out of this search, and of all later ones."""
    touch(tmp_path / "cat" / "small" / "1.jpg", tmp_path / "dog" / "2.jpg")
    groups = groups_from_folder(tmp_path)
    for images in (tmp_path, groups[1:]):
        with pytest.raises(DataError, match=r"--out .* holds images, such as .*1\.jpg.*choose a folder without images"):
            find_groups(images, tmp_path / name)


@pytest.mark.parametrize("name", ["new", "cat/new", "dog/deep/new"])
def test_an_output_folder_among_the_images_is_skipped_by_the_next_listing(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "cat" / "1.jpg", tmp_path / "dog" / "2.jpg")
    out = tmp_path / name
    find_groups(tmp_path, out)
    JobFolder(out, {}, overwrite=False)
    touch(out / "pseudo" / "cat" / "1.png", out / "thumbs" / "mask" / "cat" / "1.jpg")
    for other in (out, tmp_path / "elsewhere"):
        assert [group.name for group in find_groups(tmp_path, other)] == ["cat", "dog"]


@pytest.mark.parametrize("name", ["masks", "maps", "pseudo", "thumbs", "run"])
@pytest.mark.parametrize("way", ["listed", "linked"])
def test_images_that_are_listed_or_linked_among_results_are_refused(tmp_path: Path, name: str, way: str) -> None:
    out, images = tmp_path / "out", tmp_path / "images"
    touch(out / name / "g" / "1.jpg", images / "g" / "2.jpg")
    given: Path = images
    if way == "listed":
        given = tmp_path / "list.csv"
        given.write_text(f"out/{name}/g/1.jpg,g\nimages/g/2.jpg,g\n", encoding="utf-8")
    else:
        (images / "g" / "1.jpg").symlink_to(out / name / "g" / "1.jpg")
    with pytest.raises(DataError, match=r"1\.jpg lies among the results in .*out; choose another --out"):
        find_groups(given, out)


def test_a_linked_group_among_results_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "out" / "masks" / "g" / "1.jpg", tmp_path / "images" / "g" / "2.jpg")
    (tmp_path / "images" / "h").symlink_to(tmp_path / "out" / "masks" / "g")
    assert [group.name for group in find_groups(tmp_path / "images", tmp_path / "out")] == ["g"]
    assert "h: is a link into" in caplog.text


def test_results_that_are_a_link_to_the_images_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "g" / "1.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "masks").symlink_to(tmp_path / "images")
    with pytest.raises(DataError, match="choose another --out"):
        find_groups(tmp_path / "images", tmp_path / "out")


def test_other_inputs_among_results_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "g" / "1.jpg")
    find_groups(tmp_path / "images", tmp_path / "out", inputs=[tmp_path / "out" / "pseudo"])
    with pytest.raises(DataError, match=r"masks lies among the results in .*out, which this job replaces"):
        find_groups(tmp_path / "images", tmp_path / "out", inputs=[tmp_path / "out" / "masks"])


@pytest.mark.parametrize(
    "setting", ["pseudo.detections", "pseudo.detections_images", "features.weights", "features.second_weights"]
)
def test_a_file_that_a_setting_names_among_results_is_refused(tmp_path: Path, setting: str) -> None:
    touch(tmp_path / "images" / "g" / "1.jpg", file := tmp_path / "out" / "run" / "file")
    config = load_config("smoke", overrides={setting: str(file)})
    with pytest.raises(DataError, match=r"file lies among the results in .*out, which this job replaces"):
        label_groups(tmp_path / "images", tmp_path / "out", config)


@pytest.mark.parametrize("images", ["", "a\x00b", "loop", "none", "n" * 300, "n" * 300 + ".csv"])
def test_images_that_are_no_folder_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError) as caught:
        find_groups(images, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_the_current_folder_is_not_what_an_empty_name_means(images: Path, config: PipelineConfig) -> None:
    with pytest.raises(DataError, match="--out '' is empty"):
        label_groups(images, "", config)


def test_a_folder_above_the_images_says_nothing_of_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path / "images" / "g" / "1.jpg", tmp_path / "images" / "g" / "2.jpg", tmp_path / "masks" / "g" / "1.png")
    touch(tmp_path / "notes" / "a.txt")
    find_groups(tmp_path / "images", tmp_path)
    assert caplog.messages == []


def test_a_nul_in_a_setting_that_names_a_file_is_refused(images: Path, tmp_path: Path, config: PipelineConfig) -> None:
    other = replace(config, features=replace(config.features, cache_dir="a\x00b"))
    with pytest.raises(ConfigError, match=r"features\.cache_dir must be text without NUL characters"):
        label_groups(images, tmp_path / "out", other)


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


def test_groups_that_leave_no_path_for_results_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    (tmp_path / "list.csv").write_text("1.jpg,cat\n1.jpg," + "g/" * 2500 + "g\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^1 results would have paths of more than 4000 bytes .*g/g.*shorter name"):
        find_groups(tmp_path / "list.csv", tmp_path / "out")
