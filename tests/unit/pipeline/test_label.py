"""Whole jobs: equal bits, what is kept and why, sizes and orientation, order and twins."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.jobs import assert_same, quick_config, read_results, read_tree, select
from tests.unit.pipeline.conftest import Finished
from umscosod.config import PipelineConfig
from umscosod.data.groups import groups_from_folder
from umscosod.errors import DataError
from umscosod.pipeline import label_groups, make_pseudo_labels, verbs
from umscosod.pipeline.identity import advise_training
from umscosod.pipeline.setup import Prepared
from umscosod.progress import ProgressFn
from umscosod.refine.rrbe import begin_refining
from umscosod.types import ImageGroup, RefinedMask, Status
from umscosod.workers import WorkerPool


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def upright(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return ImageOps.exif_transpose(picture)


def test_two_cold_runs_write_the_same_bytes_whatever_the_number_of_crf_processes(
    tmp_path: Path, images: Path, finished: Finished
) -> None:
    config = quick_config(tmp_path / "other-cache", keep="network")
    config = replace(config, refine=replace(config.refine, crf=replace(config.refine.crf, workers=2)))
    report = label_groups(images, tmp_path / "again", config, train=True)
    assert_same(read_results(tmp_path / "again"), read_results(finished.out))
    assert report.rows == finished.report.rows


@pytest.mark.parametrize(
    ("workers", "cores", "is_training", "booted"),
    [(3, 2, False, 3), (2, 8, False, 2), (1, 8, False, 0), (3, 2, True, 0)],
)
def test_processes_of_stage_3_boot_before_stage_1_unless_a_training_lies_between(
    tmp_path: Path,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    cores: int,
    is_training: bool,
    booted: int,
) -> None:
    config = quick_config(tmp_path / "cache")
    config = replace(config, refine=replace(config.refine, crf=replace(config.refine.crf, workers=workers)))
    seen: list[int] = []
    stage_1 = verbs.pseudo_stage

    def spy(prepared: Prepared, progress: ProgressFn) -> object:
        seen.append(prepared.pool.running.count if prepared.pool.running else 0)
        return stage_1(prepared, progress)

    monkeypatch.setattr(verbs, "pseudo_stage", spy)
    monkeypatch.setattr("umscosod.workers.count_cores", lambda: cores)
    label_groups(images, tmp_path / "out", config, train=is_training)
    assert seen == [booted]


def test_one_pool_of_processes_serves_all_stages_and_the_bytes_are_those_of_one_process(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick_config(tmp_path / "cache")
    label_groups(images, tmp_path / "alone", config, train=False)
    pools: list[WorkerPool] = []
    stages, asked = ("encode_chunk", "draw_group", "refine_mask", "paint"), set()

    class Watched(WorkerPool):
        def __init__(self, count: int) -> None:
            super().__init__(count)
            pools.append(self)

        def call(self, function: Callable[..., object], *given: object) -> object:
            asked.update(name for name in stages if name in f"{function} {given[:1]}")
            return super().call(function, *given)

    monkeypatch.setattr("umscosod.workers.WorkerPool", Watched)
    monkeypatch.setattr("umscosod.workers.count_cores", lambda: 2)
    monkeypatch.setattr("umscosod.workers._LEAST_IMAGES", 2)
    config = quick_config(tmp_path / "other-cache")
    config = replace(config, refine=replace(config.refine, crf=replace(config.refine.crf, workers=2)))
    label_groups(images, tmp_path / "together", config, train=False)
    assert_same(read_results(tmp_path / "together"), read_results(tmp_path / "alone"))
    (pool,) = pools
    assert pool.is_stopped
    assert asked == set(stages)


def test_another_seed_writes_another_network(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    label_groups(images, tmp_path / "out", replace(config, keep="network", seed=7))
    (ours,), (theirs,) = (
        [*out.glob("run/checkpoints/step-*6/model.safetensors")] for out in (tmp_path / "out", finished.out)
    )
    assert ours.read_bytes() != theirs.read_bytes()


def test_the_same_command_on_a_finished_job_changes_no_byte_and_writes_no_mask(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    before = read_tree(out)
    stamps = {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")}
    report = label_groups(images, out, replace(config, keep="network"))
    after = read_tree(out)
    assert {name for name in before if before[name] != after.get(name)} <= {"run/run.json"}
    assert before.keys() == after.keys()
    assert {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")} == stamps
    assert (report.rows, report.notes, report.exit_code) == (finished.report.rows, finished.report.notes, 0)


def test_a_mask_deleted_by_hand_comes_back(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    shutil.copytree(finished.out, tmp_path / "out")
    next((tmp_path / "out" / "masks").rglob("*.png")).unlink()
    label_groups(images, tmp_path / "out", replace(config, keep="network"))
    assert_same(read_results(tmp_path / "out"), read_results(finished.out))


def test_pseudo_labels_deleted_by_hand_come_back(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    shutil.copytree(finished.out, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "pseudo")
    label_groups(images, tmp_path / "out", replace(config, keep="network"))
    assert_same(read_results(tmp_path / "out"), read_results(finished.out))


def test_ground_truth_beside_the_images_is_never_read(
    tmp_path: Path, collection: Path, images: Path, config: PipelineConfig
) -> None:
    shutil.copytree(images, tmp_path / "alone")
    label_groups(tmp_path / "alone", tmp_path / "without", config, train=True)
    for mask in (collection / "gt").rglob("*.png"):
        assert mask.is_file()
    label_groups(collection, tmp_path / "with", config, train=True)
    assert_same(read_results(tmp_path / "with"), read_results(tmp_path / "without"))


@pytest.mark.parametrize("keep", ["blend", "network", "pseudo"])
def test_every_group_is_refined_once(
    tmp_path: Path, images: Path, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch, keep: Literal["blend"]
) -> None:
    groups: list[int] = []

    def count(maps: np.ndarray, *rest: object) -> Callable[[], list[RefinedMask]]:
        groups.append(len(maps))
        return begin_refining(maps, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("umscosod.pipeline.segment.begin_refining", count)
    report = label_groups(images, tmp_path / "out", replace(config, keep=keep), train=True)
    assert groups == [3, 3]
    assert {row.source for row in report.rows} == {{"blend": "mean", "pseudo": "pseudo-label"}.get(keep, keep)}


def test_keep_pseudo_gives_what_no_training_gives(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    report = label_groups(images, tmp_path / "out", replace(config, keep="pseudo"), train=True)
    assert {row.source for row in report.rows} == {"pseudo-label"}
    bare = label_groups(images, tmp_path / "bare", config, train=False)
    assert not (tmp_path / "bare" / "run" / "checkpoints").exists()
    assert {row.source for row in bare.rows} == {"pseudo-label"}
    trees = ("masks", "maps", "pseudo")
    assert_same(select(read_tree(tmp_path / "out"), *trees), select(read_tree(tmp_path / "bare"), *trees))


def test_training_is_left_out_where_it_does_not_pay(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    report = label_groups(images, tmp_path / "auto", config)
    (note,) = (note for note in report.notes if "no network was trained" in note)
    assert "--train always" in note
    bare = label_groups(images, tmp_path / "never", config, train=False)
    assert not any("no network" in note for note in bare.notes)
    assert report.rows == bare.rows
    assert label_groups(images, tmp_path / "never", config).seconds < bare.seconds  # it is the very same job
    assert (tmp_path / "auto" / "run" / "checkpoints").exists() is False


def test_training_is_not_left_out_where_only_the_network_is_wanted(
    tmp_path: Path, images: Path, config: PipelineConfig
) -> None:
    report = label_groups(images, tmp_path / "out", replace(config, keep="network"))
    assert {row.source for row in report.rows} == {"network"}


@pytest.mark.parametrize(("n_images", "width", "pays"), [(99, 384, False), (100, 384, True), (5000, 0, False)])
def test_advice_on_training(n_images: int, width: int, pays: bool) -> None:
    found, why = advise_training(n_images, width)
    assert found is pays
    assert why


def test_masks_have_the_upright_size_of_their_image(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    shutil.copytree(images, tmp_path / "image")
    target = tmp_path / "image" / "coffee" / "coffee_01.jpg"
    picture, exif = upright(target), Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    picture.transpose(Image.Transpose.ROTATE_90).save(target, quality=98, exif=exif)
    assert upright(target).size == picture.size != picture.size[::-1]
    label_groups(tmp_path / "image", tmp_path / "out", config, train=False)
    label_groups(images, tmp_path / "plain", config, train=False)
    for tree in ("masks", "maps", "pseudo"):
        turned, plain = (
            grey(out / tree / "coffee" / "coffee_01.png") for out in (tmp_path / "out", tmp_path / "plain")
        )
        assert turned.shape == picture.size[::-1]
        assert np.abs(turned - plain).mean() < 0.1 * 255, f"{tree} lies the wrong way round"
    for row in finished.report.rows:
        mask = grey(finished.out / "masks" / row.output)
        assert mask.shape == upright(images / row.image_id).size[::-1]
        assert set(np.unique(mask)) <= {0, 255}


def test_the_order_of_images_in_a_group_does_not_matter_without_training(
    tmp_path: Path, images: Path, config: PipelineConfig
) -> None:
    groups = groups_from_folder(images)
    turned = [ImageGroup(name=group.name, images=group.images[::-1]) for group in groups]
    label_groups(groups, tmp_path / "there", config, train=False)
    report = label_groups(turned, tmp_path / "back", config, train=False)
    assert [row.image_id for row in report.rows[:3]] == [image.id for image in groups[0].images[::-1]]
    for path in (tmp_path / "there").glob("m*s/*/*.png"):  # maps and masks
        other = tmp_path / "back" / path.relative_to(tmp_path / "there")
        # a map that moves by 1e-5 may cross a grey level of 1/255
        limit = 1 if "maps" in path.parts else 0
        assert np.abs(grey(path) - grey(other)).max() <= limit, path


def test_a_twin_in_a_group_gets_the_same_mask(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    shutil.copytree(images, tmp_path / "image")
    coffee = tmp_path / "image" / "coffee"
    shutil.copy(coffee / "coffee_00.jpg", coffee / "twin.jpg")
    report = label_groups(tmp_path / "image", tmp_path / "out", config, train=True)
    rows = {Path(row.image_id).stem: row for row in report.rows}
    assert len(rows) == 7
    for tree in ("masks", "maps", "pseudo"):
        first, second = (tmp_path / "out" / tree / "coffee" / f"{name}.png" for name in ("coffee_00", "twin"))
        assert first.read_bytes() == second.read_bytes()
    assert rows["twin"].confidence == rows["coffee_00"].confidence


def test_names_as_long_as_the_disk_allows_are_labelled(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    folder = tmp_path / "image" / ("g" * 255)
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted((images / "coffee").iterdir())):
        shutil.copy(path, folder / f"{number}{'n' * 250}.jpg")
    report = label_groups(tmp_path / "image", tmp_path / "out", config, train=False)
    assert report.counts[Status.LABELLED] + report.counts[Status.EMPTY] == 3
    assert len([*(tmp_path / "out" / "masks").rglob("*.png")]) == 3


def test_results_inside_the_images_folder_are_no_images(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    shutil.copytree(images, tmp_path / "image")
    out = tmp_path / "image" / "results"
    first = label_groups(tmp_path / "image", out, config, train=False)
    before = read_results(out)
    assert label_groups(tmp_path / "image", out, config, train=False).rows == first.rows
    assert_same(read_results(out), before)


def test_an_unlabelled_group_of_one_is_noted(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    (tmp_path / "image" / "lone").mkdir(parents=True)
    shutil.copy(images / "coffee" / "coffee_00.jpg", tmp_path / "image" / "lone")
    report = label_groups(tmp_path / "image", tmp_path / "out", config, train=True)
    assert [note for note in report.notes if "'lone' has one image" in note]
    assert len(report.rows) == 1


def test_a_cancelled_call_leaves_no_false_report(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    from umscosod.errors import Cancelled

    def stop(done: int, total: int, stage: str) -> None:
        if stage == "refinement" and done == 1:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        label_groups(images, tmp_path / "out", config, train=False, progress=stop)
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_limit_on_pixels_holds_for_pictures_already_in_the_cache(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    assert finished.report.counts[Status.FAILED] == 0  # all are in the cache
    largest = max(np.prod(upright(path).size) for path in images.rglob("*.jpg"))
    strict = replace(config, data=replace(config.data, max_pixels=int(largest) - 1))
    report = label_groups(images, tmp_path / "out", strict, train=False)
    assert report.counts[Status.FAILED] > 0
    assert report.exit_code == 1


RUNNERS: list[Callable[[Path, Path, PipelineConfig], object]] = [
    lambda images, out, config: label_groups(images, out, config, train=False),
    lambda images, out, config: make_pseudo_labels(images, out, config),
]


@pytest.mark.parametrize("run", RUNNERS)
def test_images_and_results_cannot_share_a_folder(
    tmp_path: Path, images: Path, config: PipelineConfig, run: Callable[[Path, Path, PipelineConfig], object]
) -> None:
    shutil.copytree(images, tmp_path / "photos")
    before = read_tree(tmp_path / "photos")
    with pytest.raises(DataError, match="choose a folder without images"):
        run(tmp_path / "photos", tmp_path / "photos", config)
    assert_same(read_tree(tmp_path / "photos"), before)
