"""Masks and maps on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from umscosod.data.masks import read_mask
from umscosod.errors import DataError
from umscosod.export.png import map_to_bytes, read_map, write_map, write_mask


def test_mask_round_trip(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((7, 13)) > 0.5
    write_mask(tmp_path / "a" / "ü.png", mask)
    with Image.open(tmp_path / "a" / "ü.png") as image:
        assert (image.mode, image.size) == ("L", (13, 7))
        assert set(np.unique(np.asarray(image))) == {0, 255}
    assert np.array_equal(read_mask(tmp_path / "a" / "ü.png"), mask)


def test_equal_masks_give_equal_files(tmp_path: Path) -> None:
    mask = np.eye(9, dtype=bool)
    write_mask(tmp_path / "a.png", mask)
    write_mask(tmp_path / "b.png", np.asfortranarray(mask))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("bad", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 1), bool), np.zeros((0, 2), bool)])
def test_other_masks_are_refused(tmp_path: Path, bad: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"m\.png: a mask must be boolean"):
        write_mask(tmp_path / "m.png", bad)
    assert list(tmp_path.iterdir()) == []


def test_map_is_truncated_as_torch_does(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((64, 64), dtype=np.float32)
    values[0, :3] = 0.0, 1.0, np.nextafter(np.float32(1), np.float32(0))
    expected = torch.from_numpy(values).mul(255).byte().numpy()
    assert np.array_equal(map_to_bytes(values), expected)
    write_map(tmp_path / "m.png", values)
    got = read_map(tmp_path / "m.png")
    assert got.dtype == np.float32
    assert (values - got).min() > -1e-6
    assert (values - got).max() <= 1 / 255 + 1e-6


def test_every_grey_level_survives_another_round_trip(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8)[None]
    Image.fromarray(levels).save(tmp_path / "m.png")
    assert np.array_equal(map_to_bytes(read_map(tmp_path / "m.png")), levels)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 2), np.uint8),
        np.zeros(4, np.float32),
        np.zeros((0, 4), np.float32),
        np.array([[0.5, np.nan]]),
        np.array([[0.5, 1.01]]),
        np.array([[-1e-3, 0.5]]),
    ],
)
def test_other_maps_are_refused(tmp_path: Path, bad: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"m\.png: a soft map must"):
        write_map(tmp_path / "m.png", bad)


def test_maps_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: cannot be found"):
        read_map(tmp_path / "none.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    with pytest.raises(DataError, match="mode RGB"):
        read_map(tmp_path / "rgb.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n123")
    with pytest.raises(DataError, match="cannot read the map"):
        read_map(tmp_path / "bad.png")
