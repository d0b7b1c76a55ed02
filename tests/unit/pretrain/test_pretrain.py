"""Starter weights from a folder of pictures: equal runs, a killed run, what the file says."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from umscosod.cli import main
from umscosod.errors import DataError
from umscosod.features.starter_weights import load_starter, read_making
from umscosod.pretrain import Recipe, pretrain
from umscosod.pretrain.augment import make_views
from umscosod.pretrain.loop import start_network
from umscosod.pretrain.pictures import read_pictures
from umscosod.pretrain.targets import make_targets
from umscosod.progress import ignore_progress

RECIPE = Recipe(labelled=8, steps=60, side_px=32, photos=3, paste=0.5)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright discs before noise, one a picture."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number in range(10):
        picture = generator.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        cv2.circle(picture, (int(generator.integers(20, 44)), 24), 12, (240, 200, int(20 * number)), -1)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


class KilledError(Exception):
    pass


def test_equal_runs_and_a_killed_one_give_equal_files(photos: Path, tmp_path: Path) -> None:
    first = pretrain(photos, tmp_path / "first.safetensors", recipe=RECIPE, device="cpu")

    def kill(done: int, total: int, stage: str) -> None:
        if (done, stage) == (50, "training"):
            raise KilledError

    second = tmp_path / "second.safetensors"
    with pytest.raises(KilledError):
        pretrain(photos, second, recipe=RECIPE, device="cpu", progress=kill)
    assert not second.exists()
    again = pretrain(photos, second, recipe=RECIPE, device="cpu")
    assert second.read_bytes() == first.file.read_bytes()
    assert (again.photos, again.sha256) == (10, first.sha256)
    other = pretrain(photos, tmp_path / "other.safetensors", recipe=RECIPE, seed=7, device="cpu")
    assert other.sha256 != first.sha256


def test_the_file_is_small_and_says_how_it_was_made(photos: Path, tmp_path: Path) -> None:
    report = pretrain(photos, tmp_path / "w.safetensors", recipe=RECIPE, device="cpu")
    content = report.file.read_bytes()
    assert len(content) <= 6_000_000
    network = load_starter(content, "w")
    assert sum(parameter.numel() for parameter in network.parameters()) <= 3_000_000
    told = read_making(content)
    assert (told["seed"], told["photos"], len(told["list"])) == (123, 10, 64)
    assert told["recipe"]["labelled"] == 8


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures to learn from"):
        pretrain(tmp_path, tmp_path / "w.safetensors", device="cpu")


def test_targets_are_the_products_masks_of_so_many_photographs(photos: Path, tmp_path: Path) -> None:
    array_NSS3 = read_pictures(photos, tmp_path, ignore_progress).array_NSS3
    targets = make_targets(array_NSS3, 6, 1, tmp_path / "parts", ignore_progress)
    is_bright_NSS = array_NSS3.max(-1) > 120
    assert (targets.weights_N > 0).sum() == 6
    for index in np.flatnonzero(targets.weights_N > 0):
        truth_TT = cv2.resize(is_bright_NSS[index].astype(np.float32), (56, 56), interpolation=cv2.INTER_AREA) > 0.5
        found_TT = targets.masks_NTT[index] > 127
        assert (found_TT & truth_TT).sum() > 0.8 * (found_TT | truth_TT).sum()
    (part,) = (tmp_path / "parts").iterdir()
    before = part.stat().st_mtime_ns
    again = make_targets(array_NSS3, 6, 1, tmp_path / "parts", ignore_progress)
    assert np.array_equal(again.masks_NTT, targets.masks_NTT)
    assert part.stat().st_mtime_ns == before


def test_photographs_without_an_object_are_refused(tmp_path: Path) -> None:
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((48, 64, 3), 60 * number, np.uint8))
    with pytest.raises(DataError, match="there is nothing to learn"):
        pretrain(tmp_path, tmp_path / "w.safetensors", recipe=RECIPE, device="cpu")


def test_a_pasted_object_is_in_the_target() -> None:
    """Dark photographs, one with a bright square: where a view is bright, its target is."""
    photos = torch.full((2, 144, 144, 3), 20, dtype=torch.uint8)
    photos[0, 40:104, 40:104] = 230
    masks = torch.zeros((2, 56, 56), dtype=torch.uint8)
    masks[0, 16:40, 16:40] = 255
    views = make_views(photos, masks, torch.ones(2), np.random.default_rng(3), side_px=64, paste=1.0)
    assert views.targets_Vtt.shape == (4, 16, 16)
    bright_Vtt = torch.nn.functional.avg_pool2d(views.pictures_V3SS.mean(1, keepdim=True), 4)[:, 0]
    is_pasted_V = views.targets_Vtt[[1, 3]].amax((1, 2)) > 0.9  # views of the empty photograph
    assert is_pasted_V.any()
    judged = 0
    for bright_tt, target_tt in zip(bright_Vtt, views.targets_Vtt, strict=True):
        if target_tt.max() > 0.9 and target_tt.min() < 0.1:
            judged += 1
            assert bright_tt[target_tt > 0.9].mean() > 1.5 * bright_tt[target_tt < 0.1].mean()
    assert judged


def test_the_seed_decides_the_first_parameters() -> None:
    before = torch.random.get_rng_state()
    one, two, other = (start_network(seed).saliency.weight for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_command_wants_a_weight_file(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(photos), "--out", "weights.txt"]) == 2
    assert "--out weights.txt must end in .safetensors" in capsys.readouterr().err
