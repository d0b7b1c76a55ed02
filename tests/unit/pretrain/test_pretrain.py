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
from umscosod.pretrain.loop import Round, start_network
from umscosod.pretrain.targets import snap

RECIPE = Recipe(
    rounds=(Round(steps=2, side_px=32, photos=3), Round(steps=2, side_px=32, photos=3, paste=1.0)),
    labelled=(8, 6),
    view_px=32,
)


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
        if stage == "targets-1":
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
    assert told["recipe"]["labelled"] == [8, 6]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures to learn from"):
        pretrain(tmp_path, tmp_path / "w.safetensors", device="cpu")


def test_a_target_follows_the_border_of_its_picture() -> None:
    picture = np.full((112, 112, 3), 30, np.uint8)
    cv2.circle(picture, (56, 56), 30, (230, 220, 40), -1)
    rough = np.zeros((28, 28), np.float32)
    rough[5:23, 5:23] = 0.8  # a square about the disc
    target_TT, trust = snap(rough, picture)
    truth_TT = cv2.resize((picture[..., 0] > 100).astype(np.float32), target_TT.shape) > 0.5
    square_TT = cv2.resize(rough, target_TT.shape) > 0.5

    def iou(mask: np.ndarray) -> float:
        return float((mask & truth_TT).sum() / (mask | truth_TT).sum())

    assert iou(target_TT >= 128) > iou(square_TT)
    assert 0.0 < trust <= 1.0
    assert snap(np.zeros((28, 28), np.float32), picture)[1] == 0.0


def test_points_of_two_views_show_the_same() -> None:
    ramp = torch.linspace(0, 255, 144)
    picture = torch.stack(torch.meshgrid(ramp, ramp, indexing="ij"), -1)
    picture = torch.cat([picture, torch.zeros(144, 144, 1)], -1).round().to(torch.uint8)
    photos = torch.stack([picture, picture])
    views = make_views(
        photos,
        (photos[..., 0] > 128).to(torch.uint8) * 255,
        torch.ones(2),
        np.random.default_rng(3),
        side_px=64,
        points=32,
        paste=0.0,
    )
    assert views.valid_BK.any()
    assert views.targets_Vtt.shape == (4, 16, 16)
    sampled = torch.nn.functional.grid_sample(
        views.targets_Vtt[:, None], views.points_VK2[:, :, None], align_corners=False
    )[:, 0, :, 0]
    first, second = sampled[:2][views.valid_BK], sampled[2:][views.valid_BK]
    assert (first - second).abs().mean() < 0.1 < (first - second.flip(0)).abs().mean()


def test_the_seed_decides_the_first_parameters() -> None:
    before = torch.random.get_rng_state()
    one, two, other = (start_network(seed).saliency.weight for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_command_wants_a_weight_file(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(photos), "--out", "weights.txt"]) == 2
    assert "--out weights.txt must end in .safetensors" in capsys.readouterr().err
