"""Stage 3 from stored soft maps: the same masks by the same settings, other masks by others, and nothing lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.jobs import assert_same, quick_config, read_results, read_tree, select
from tests.synthetic import tiny_collection
from umscosod.cli import main
from umscosod.config import PipelineConfig
from umscosod.errors import Cancelled, DataError, WeightsError
from umscosod.pipeline import LabelReport, label_groups, refine_maps
from umscosod.types import Status


@pytest.fixture(scope="module")
def config(cache: Path) -> PipelineConfig:
    return quick_config(cache)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures larger than the network's input: their saved maps lose nothing but grey levels."""
    root = tmp_path_factory.mktemp("pictures")
    tiny_collection(root, groups=2, images=3, size=224)
    return root / "image"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, images: Path, config: PipelineConfig) -> Path:
    """A finished job without training: where the maps come from."""
    out = tmp_path_factory.mktemp("first") / "out"
    label_groups(images, out, config, train=False)
    return out


def changed(config: PipelineConfig, **values: Any) -> PipelineConfig:
    return replace(config, refine=replace(config.refine, **values))


def masks(out: Path) -> dict[str, np.ndarray]:
    return {
        path.relative_to(out).as_posix(): np.asarray(Image.open(path)) > 0 for path in (out / "masks").rglob("*.png")
    }


def iou(first: np.ndarray, second: np.ndarray) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


@pytest.mark.parametrize("as_mapping", [False, True])
def test_what_is_shared_names_no_place_on_this_machine(
    tmp_path: Path, images: Path, config: PipelineConfig, first: Path, as_mapping: bool
) -> None:
    shutil.copytree(images, tmp_path / "my pictures")
    shutil.copytree(first / "maps", tmp_path / "my maps")
    (broken,) = (tmp_path / "my pictures" / "coffee").glob("*_00.jpg")
    broken.write_bytes(b"no picture")
    torn, missing = ((tmp_path / "my maps" / "coffee").glob(f"*_0{number}.png") for number in (1, 2))
    next(torn).write_bytes(b"no map")
    next(missing).unlink()
    photos = tmp_path / "my pictures"
    names = [image.relative_to(photos) for image in photos.rglob("*.jpg")]
    maps = {name.as_posix(): tmp_path / "my maps" / name.with_suffix(".png") for name in names}
    out = tmp_path / "my out"
    report = refine_maps(tmp_path / "my pictures", maps if as_mapping else tmp_path / "my maps", out, config)
    failed = [row for row in report.rows if row.status is Status.FAILED]
    assert len(failed) == 3
    assert all(str(tmp_path) in row.reason for row in failed), "the one who runs it is told where"
    for name in ("report.json", "index.html"):
        text = (out / name).read_text(encoding="utf-8")
        assert str(tmp_path) not in text
        assert "coffee/coffee_00.jpg: is not an image" in text
        assert "cannot read the map maps/coffee/coffee_01.png" in text
        assert "maps/coffee/coffee_02.png: cannot be found" in text


def test_the_same_settings_give_the_same_masks_up_to_the_grey_levels(
    tmp_path: Path, images: Path, config: PipelineConfig, first: Path
) -> None:
    report = refine_maps(images, first, tmp_path / "out", config)
    assert {row.source for row in report.rows} == {"stored map"}
    ours, theirs = masks(tmp_path / "out"), masks(first)
    assert ours.keys() == theirs.keys()
    assert min(iou(ours[name], theirs[name]) for name in ours) > 0.97
    assert_same(select(read_tree(tmp_path / "out"), "maps"), select(read_tree(first), "maps"))
    assert not (tmp_path / "out" / "pseudo").exists()


def test_a_map_at_network_size_is_cut_at_the_threshold_to_the_pixel(
    tmp_path: Path, images: Path, config: PipelineConfig, first: Path
) -> None:
    plain = changed(config, enabled=False, th0=0.5)
    refine_maps(images, first / "maps", tmp_path / "out", plain)
    side = config.features.size_px
    assert side < 224
    for path in (first / "maps").rglob("*.png"):
        # sampled at the network's size and enlarged again, by hand on the corners
        name = path.relative_to(first / "maps")
        level = np.asarray(Image.open(path)).astype(float) / 255.0
        mask = np.asarray(Image.open(tmp_path / "out" / "masks" / name)) > 0
        sure = np.abs(level - 0.5) > 0.1
        assert (mask == (level >= 0.5))[sure].mean() > 0.999


def test_other_thresholds_give_other_masks(tmp_path: Path, images: Path, config: PipelineConfig, first: Path) -> None:
    areas = []
    for th0 in (0.2, 0.8):
        strict = changed(config, adaptive=False, th0=th0, crf=replace(config.refine.crf, enabled=False))
        report = refine_maps(images, first, tmp_path / f"{th0}", strict)
        assert {row.threshold for row in report.rows} == {th0}
        areas.append({name: int(mask.sum()) for name, mask in masks(tmp_path / f"{th0}").items()})
    assert all(areas[0][name] > areas[1][name] for name in areas[0])


def test_without_the_region_filter_no_backbone_is_needed(
    tmp_path: Path, images: Path, config: PipelineConfig, first: Path
) -> None:
    features = replace(config.features, backbone="dino_vits8", weights=str(tmp_path / "missing.pth"))
    absent = replace(config, features=features)
    report = refine_maps(images, first, tmp_path / "out", changed(absent, region_filter=False))
    assert report.counts[Status.LABELLED] == 6
    assert any("no setting looks at features" in note for note in report.notes)
    with pytest.raises(WeightsError, match=r"missing\.pth"):
        refine_maps(images, first, tmp_path / "other", absent)


def test_an_image_without_a_map_fails_alone(tmp_path: Path, images: Path, config: PipelineConfig, first: Path) -> None:
    maps = shutil.copytree(first / "maps", tmp_path / "maps")
    (maps / "coffee" / "coffee_00.png").unlink()
    (maps / "shuttle" / "shuttle_01.png").write_bytes(b"no picture")
    Image.new("RGB", (224, 224)).save(maps / "shuttle" / "shuttle_02.png")
    report = refine_maps(images, maps, tmp_path / "out", config)
    reasons = {row.image_id: row.reason for row in report.rows if row.status is Status.FAILED}
    assert sorted(reasons) == ["coffee/coffee_00.jpg", "shuttle/shuttle_01.jpg", "shuttle/shuttle_02.jpg"]
    assert all(str(maps) in reason for reason in reasons.values())
    assert "mode RGB" in reasons["shuttle/shuttle_02.jpg"]
    assert report.exit_code == 1
    assert len(masks(tmp_path / "out")) == 3
    listed = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert len(listed["images"]) == 6


def test_maps_by_image_id(tmp_path: Path, images: Path, config: PipelineConfig, first: Path) -> None:
    files = {f"{name}.jpg": first / "maps" / f"{name}.png" for name in ("coffee/coffee_00", "coffee/coffee_01")}
    report = refine_maps(images, files, tmp_path / "out", config)
    assert report.counts[Status.FAILED] == 4
    assert {row.image_id for row in report.rows if row.status is Status.LABELLED} == files.keys()
    assert all("no soft map was given" in row.reason for row in report.rows if row.status is Status.FAILED)


def test_killed_and_resumed_ends_with_the_same_files(
    tmp_path: Path, images: Path, config: PipelineConfig, first: Path
) -> None:
    def stop(done: int, total: int, stage: str) -> None:
        if stage == "refinement" and done == 1:
            raise Cancelled("enough")

    refine_maps(images, first, tmp_path / "whole", config)
    with pytest.raises(Cancelled):
        refine_maps(images, first, tmp_path / "out", config, progress=stop)
    assert not (tmp_path / "out" / "report.json").exists()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "masks").rglob("*.png")}
    assert len(stamps) == 3
    report = refine_maps(images, first, tmp_path / "out", config)
    assert_same(read_results(tmp_path / "out"), read_results(tmp_path / "whole"))
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(report.rows) == 6


def test_other_maps_are_refused_until_told_to_overwrite(
    tmp_path: Path, images: Path, config: PipelineConfig, first: Path
) -> None:
    maps = shutil.copytree(first / "maps", tmp_path / "maps")
    refine_maps(images, maps, tmp_path / "out", config)
    path = maps / "coffee" / "coffee_00.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(DataError, match=r"results of other stored maps:\s+files were"):
        refine_maps(images, maps, tmp_path / "out", config)
    with pytest.raises(DataError, match=r"refine\.th0"):
        refine_maps(images, maps, tmp_path / "out", changed(config, th0=0.4))
    before = masks(tmp_path / "out")
    refine_maps(images, maps, tmp_path / "out", config, overwrite=True)
    after = masks(tmp_path / "out")
    assert iou(before["masks/coffee/coffee_00.png"], after["masks/coffee/coffee_00.png"]) < 0.5


def test_a_folder_without_maps_is_named_and_nothing_is_written(
    tmp_path: Path, images: Path, config: PipelineConfig
) -> None:
    for maps in (tmp_path / "missing", {}, {"coffee/coffee_00.jpg": tmp_path / "none.png"}):
        with pytest.raises(DataError, match="none of 6 images has a soft map"):
            refine_maps(images, maps, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_a_jobs_own_maps_are_never_replaced(tmp_path: Path, images: Path, config: PipelineConfig, first: Path) -> None:
    out = Path(shutil.copytree(first, tmp_path / "out"))
    before = read_tree(out)
    with pytest.raises(DataError, match="choose another --out"):
        refine_maps(images, out, out, config, overwrite=True)
    assert_same(read_tree(out), before)


def test_the_command_refines(
    tmp_path: Path, images: Path, first: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["refine", images, "--maps", first, "--out", tmp_path / "out", "--preset", "smoke", "--device", "cpu"]
    settings = ["--config.features.cache-dir", cache, "--config.refine.no-region-filter", "--config.refine.th0", 0.3]
    assert main([str(word) for word in [*line, *settings]]) == 0
    assert "6 labelled" in capsys.readouterr().out
    kept: LabelReport = refine_maps(
        images, first, tmp_path / "again", changed(quick_config(cache), region_filter=False, th0=0.3)
    )
    assert kept.counts[Status.LABELLED] == 6
    assert_same(select(read_tree(tmp_path / "out"), "masks"), select(read_tree(tmp_path / "again"), "masks"))
