"""Objects cut out of photographs that lie in scikit-image's wheel, and pieces of their surroundings.

Only the outlines are kept here (``masks/*.png``, made once by hand); the pixels are read from the installed
scikit-image. ``SOURCES.md`` names author, source and licence of every photograph.
Legend: ``H W`` pixels of a picture.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from umscosod.data.images import open_picture
from umscosod.errors import MissingDependencyError
from umscosod.types import ByteArray

_LOGGER = logging.getLogger(__name__)
MASKS = Path(__file__).parent / "masks"

# SHA-256 of each file as in scikit-image's own registry: the outlines fit these pixels and no others.
PHOTOS = {
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "brick.png": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    "camera.png": "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "coins.png": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    "grass.png": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    "gravel.png": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    "hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    "text.png": "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Placing:
    """Where a cut-out comes from and how it may be placed.

    Attributes
    ----------
    source : str
        A key of `PHOTOS`.
    anchor : {'free', 'top', 'bottom'}
        Side on which the photograph's own frame cuts the object off; that side must lie on the new frame too.
    turn_deg : float
        Largest plausible rotation to either side.
    quarters : tuple of int
        Counter-clockwise quarter turns that go with it, frame side and all.
    share : (float, float)
        Least and largest part of a frame the object is meant to cover as a group's target.
    """

    source: str
    anchor: Literal["free", "top", "bottom"] = "free"
    turn_deg: float
    quarters: tuple[int, ...] = (0,)
    share: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutout:
    """An object lifted from a photograph.

    Attributes
    ----------
    placing : Placing
    picture_HW3 : ndarray, uint8, (H, W, 3)
        The photograph around the object, RGB.
    alpha_HW : ndarray, uint8, (H, W)
        Opacity: 255 inside, 0 outside, in between on the rim.
    """

    placing: Placing
    picture_HW3: ByteArray
    alpha_HW: ByteArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Backdrop:
    """A part of a photograph with none of the objects in it.

    Attributes
    ----------
    photo : str
        File name, a key of `PHOTOS`.
    box : (int, int, int, int)
        Left, top, right, bottom in pixels; right and bottom exclusive.
    tint : (float, float, float)
        Colour a grey photograph is multiplied with; ones for a colour photograph.
    not_for : str
        The cut-out that this part belongs to, or ``""``.
    """

    photo: str
    box: tuple[int, int, int, int]
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    not_for: str = ""


BACKDROPS = (
    Backdrop(photo="brick.png", box=(0, 0, 512, 512), tint=(1.15, 0.85, 0.72)),
    Backdrop(photo="grass.png", box=(0, 0, 512, 512), tint=(0.78, 1.0, 0.55)),
    Backdrop(photo="gravel.png", box=(0, 0, 512, 512), tint=(1.05, 1.0, 0.9)),
    Backdrop(photo="camera.png", box=(408, 240, 512, 512), tint=(0.7, 0.95, 0.6)),
    Backdrop(photo="camera.png", box=(392, 90, 512, 330)),
    Backdrop(photo="rocket.jpg", box=(0, 0, 240, 427)),
    Backdrop(photo="rocket.jpg", box=(420, 0, 640, 427)),
    Backdrop(photo="coffee.png", box=(432, 0, 600, 110)),
    Backdrop(photo="coffee.png", box=(484, 0, 600, 400)),
    Backdrop(photo="astronaut.png", box=(0, 0, 148, 145)),
    Backdrop(photo="chelsea.png", box=(400, 0, 451, 300)),
    Backdrop(photo="chelsea.png", box=(100, 0, 310, 80), not_for="cat"),
    Backdrop(photo="hubble_deep_field.jpg", box=(0, 0, 1000, 872)),
    Backdrop(photo="text.png", box=(0, 0, 448, 172), tint=(1.0, 0.95, 0.82)),
)


_OBJECTS = {
    "astronaut": Placing(source="astronaut.png", anchor="bottom", turn_deg=8.0, share=(0.12, 0.40)),
    "cat": Placing(source="chelsea.png", anchor="top", turn_deg=12.0, quarters=(0, 0, 1, 3), share=(0.14, 0.42)),
    "coffee": Placing(source="coffee.png", turn_deg=40.0, share=(0.06, 0.35)),
    "shuttle": Placing(source="astronaut.png", turn_deg=70.0, share=(0.06, 0.25)),
}
_COIN = Placing(source="coins.png", turn_deg=180.0, share=(0.06, 0.30))
OBJECT_NAMES = tuple(_OBJECTS)


@cache
def photo(name: str) -> ByteArray:
    """Read a photograph out of the installed scikit-image, without any download.

    Parameters
    ----------
    name : str
        A key of `PHOTOS`.

    Returns
    -------
    ndarray, uint8, (H, W, 3)
        RGB, read-only; grey photographs have three equal channels.

    Raises
    ------
    MissingDependencyError
        scikit-image is not installed, or its wheel no longer holds the file.
    """
    # Not skimage.data.NAME(): that may reach for the network when a file is missing.
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("demo pictures need scikit-image: run 'pip install scikit-image'")
    path = Path(spec.origin).parent / "data" / name
    if not path.is_file():
        raise MissingDependencyError(
            f"demo picture {name!r} is not in {path.parent}: install a scikit-image that ships it (0.24 to 0.26 do)"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != PHOTOS[name]:
        _LOGGER.warning("%s differs from the file the demo's masks were drawn on: outlines may be off", path)
    with open_picture(path) as image:
        picture_HW3 = np.array(image.convert("RGB"))
    picture_HW3.setflags(write=False)
    return picture_HW3


def _mask(name: str) -> ByteArray:
    with open_picture(MASKS / f"{name}.png") as image:
        return np.array(image.convert("L"))


@cache
def coin_labels() -> ByteArray:
    """Number each coin of the coins photograph.

    Returns
    -------
    ndarray, uint8, (303, 384)
        0 is the tray, 1 to 24 the coins in reading order.
    """
    labels_HW = _mask("coins")
    labels_HW.setflags(write=False)
    return labels_HW


def _crop(placing: Placing, alpha_HW: ByteArray) -> Cutout:
    rows, columns = np.nonzero(alpha_HW)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return Cutout(placing=placing, picture_HW3=photo(placing.source)[box], alpha_HW=alpha_HW[box])


@cache
def cutout(name: str) -> Cutout:
    """Lift one of `OBJECT_NAMES`, cropped to its outline.

    Examples
    --------
    >>> cutout("shuttle").alpha_HW.shape
    (272, 109)
    """
    return _crop(_OBJECTS[name], _mask(name))


@cache
def coin(number: int) -> Cutout:
    """Lift coin `number` (1 to 24) of the coins photograph, cropped to its outline."""
    return _crop(_COIN, np.where(coin_labels() == number, np.uint8(255), np.uint8(0)))
