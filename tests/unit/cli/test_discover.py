"""``umscosod discover``: what it writes, says and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from umscosod.cli import main
from umscosod.cli.parser import parse
from umscosod.config import GroupingConfig
from umscosod.data.groups import groups_from_csv

QUICK = ["--backbone", "embedded", "--config.features.size-px", "112", "--device", "cpu"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Plain pictures of two colours with a little noise, six of each, and a damaged file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(12):
        picture = random.integers(0, 40, (64, 64, 3)) + ((180, 30, 30) if index % 2 else (30, 30, 180))
        picture[20:44, 20:44] = (220, 220, 40) if index % 2 else (40, 220, 220)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{index:02}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_writes_a_list_and_says_what_is_in_it(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = photos.parent / "groups.csv"
    assert main(["discover", str(photos), "--out", str(out), "--n-groups", "2", *QUICK]) == 1  # a file is damaged
    said = capsys.readouterr().out
    assert "failed: broken.jpg" in said
    assert "group-01      6 images  cohesion" in said
    assert f"12 images in 2 groups: {out}" in said
    found = [{int(image.path.stem) % 2 for image in group.images} for group in groups_from_csv(out)]
    assert sorted(found, key=min) == [{0}, {1}]

    assert main(["discover", str(photos), "--out", str(out), *QUICK]) == 2  # somebody may have corrected it
    assert "corrections" in capsys.readouterr().err
    assert main(["discover", str(photos), "--out", str(out), "--overwrite", *QUICK]) == 1


def test_names_what_is_left_over(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.jpg").unlink()
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3))
    Image.fromarray(noise.astype(np.uint8)).save(photos / "odd.png")
    line = ["discover", str(photos), "--out", str(photos.parent / "g.csv"), "--grouping.join-similarity", "0.5"]
    assert main([*line, *QUICK, "--n-groups", "2"]) == 0
    said = capsys.readouterr().out
    assert "like no group, and not in the list: 1\n  odd.png\n" in said


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--out", "groups.txt"], "must end in .csv"),
        (["--out", "g.csv", "--grouping.min-size", "0"], "grouping.min_size must be >= 1"),
        (["--out", "g.csv", "--n-groups", "9"], "12 images make no 9 groups of 3"),
    ],
)
def test_refuses_in_one_line(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    monkeypatch.chdir(photos.parent)
    (photos / "broken.jpg").unlink()
    assert main(["discover", str(photos), *QUICK, *flags]) == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert not list(photos.parent.glob("g*.*"))


def test_settings_of_grouping_are_flags() -> None:
    command, _ = parse(["discover", "photos", "--out", "g.csv", "--grouping.max-groups", "5", "--n-groups", "4"])
    assert command.grouping == GroupingConfig(max_groups=5)  # type: ignore[union-attr]
    assert command.n_groups == 4  # type: ignore[union-attr]


def test_names_that_no_list_can_hold_are_refused_before_the_work(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").rename(photos / "caf\udce9.jpg")
    assert main(["discover", str(photos), "--out", str(photos.parent / "g.csv"), *QUICK]) == 2
    said = capsys.readouterr().err
    assert "1 names of images are not valid UTF-8, such as 'photos/caf" in said
    assert "embed" not in said
    assert "features" not in said
