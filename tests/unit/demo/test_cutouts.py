from __future__ import annotations

import hashlib
import importlib.util
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from umscosod.demo import cutouts
from umscosod.demo.cutouts import BACKDROPS, MASKS, OBJECT_NAMES, PHOTOS, coin, coin_labels, cutout, photo
from umscosod.errors import MissingDependencyError

ROOM = MASKS.parent
SOURCES = (ROOM / "SOURCES.md").read_text(encoding="utf-8")


def test_every_shipped_file_is_listed_in_sources():
    shipped = [path.relative_to(ROOM).as_posix() for path in ROOM.rglob("*") if path.is_file()]
    data = [name for name in shipped if not name.endswith((".py", ".pyc")) and name != "SOURCES.md"]
    assert sorted(data) == sorted(f"masks/{name}.png" for name in (*OBJECT_NAMES, "coins"))
    assert [name for name in data if f"`{name}`" not in SOURCES] == []


@pytest.mark.parametrize("name", sorted(PHOTOS))
def test_every_photograph_is_listed_with_a_licence_and_is_the_file_the_masks_fit(name):
    row = next(line for line in SOURCES.splitlines() if line.startswith(f"| `{name}` |") and line.count("|") == 5)
    assert any(word in row for word in ("CC0", "public domain", "No known copyright restrictions"))
    assert f"| `{name}` | `{PHOTOS[name]}` |" in SOURCES
    folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == PHOTOS[name]


def test_shipped_masks_stay_small():
    assert sum(path.stat().st_size for path in MASKS.iterdir()) < 300_000


@pytest.mark.parametrize(
    ("mask", "source"),
    [
        ("astronaut", "astronaut"),
        ("cat", "chelsea"),
        ("coffee", "coffee"),
        ("shuttle", "astronaut"),
        ("coins", "coins"),
    ],
)
def test_a_mask_has_the_size_of_its_photograph(mask, source):
    with Image.open(MASKS / f"{mask}.png") as image:
        assert (image.height, image.width) == photo(f"{source}.png").shape[:2]


@pytest.mark.parametrize("name", OBJECT_NAMES)
def test_an_outline_is_one_piece_without_holes_and_mostly_hard(name):
    alpha_HW = cutout(name).alpha_HW
    inside_HW = np.pad(alpha_HW > 127, 1)
    assert ndimage.label(inside_HW)[1] == 1
    assert ndimage.label(~inside_HW)[1] == 1
    assert np.mean((alpha_HW > 0) & (alpha_HW < 255)) < 0.1


def test_a_cut_off_object_reaches_its_side_and_a_free_one_does_not_end_flat():
    assert (cutout("cat").alpha_HW[0] > 0).mean() > 0.9
    assert (cutout("astronaut").alpha_HW[-1] > 0).mean() > 0.9
    for name in ("coffee", "shuttle"):
        alpha_HW = cutout(name).alpha_HW > 127
        rims = (alpha_HW[0], alpha_HW[-1], alpha_HW[:, 0], alpha_HW[:, -1])
        assert max(float(rim.mean()) for rim in rims) < 0.3, name


def test_coins_are_24_single_round_pieces_brighter_than_the_tray():
    labels_HW = coin_labels()
    assert np.unique(labels_HW).tolist() == list(range(25))
    grey_HW = photo("coins.png")[..., 0].astype(float)
    for number in range(1, 25):
        coin_HW = labels_HW == number
        assert ndimage.label(coin_HW)[1] == 1
        ring_HW = ndimage.binary_dilation(coin_HW, iterations=4) & (labels_HW == 0)
        assert grey_HW[coin_HW].mean() - grey_HW[ring_HW].mean() > 20, number
        alpha_HW = coin(number).alpha_HW
        # A disc fills pi / 4 = 0.785 of its box.
        assert (alpha_HW > 0).mean() == pytest.approx(0.785, abs=0.07), number


def test_no_backdrop_shows_an_object_of_its_photograph():
    owners = {"astronaut.png": ("astronaut", "shuttle"), "chelsea.png": ("cat",), "coffee.png": ("coffee",)}
    for part in BACKDROPS:
        left, top, right, bottom = part.box
        height, width, _ = photo(part.photo).shape
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        for name in owners.get(part.photo, ()):
            if name == part.not_for:
                continue
            with Image.open(MASKS / f"{name}.png") as image:
                alpha_HW = np.asarray(image)[top:bottom, left:right]
            assert not (alpha_HW > 127).any(), (part, name)


def test_a_photograph_that_scikit_image_lacks_is_named(monkeypatch):
    monkeypatch.setitem(PHOTOS, "absent.png", "")
    with pytest.raises(MissingDependencyError, match=r"'absent\.png' is not in .*data: install a scikit-image"):
        photo("absent.png")


def test_another_version_of_a_photograph_is_reported(monkeypatch, caplog):
    monkeypatch.setitem(PHOTOS, "text.png", "0" * 64)
    cutouts.photo.cache_clear()
    with caplog.at_level(logging.WARNING):
        photo("text.png")
    cutouts.photo.cache_clear()
    assert "text.png differs from the file" in caplog.text
