"""Opens a mask file of any kind and says which values it holds, before anything is decided about them.

Legend: a *number* is a grey level or an id, an *index* a place in a palette of colours, a *colour* 0xRRGGBB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from umscosod.data.images import load_upright, open_picture, reading
from umscosod.errors import DataError

Form = Literal["number", "index", "colour"]

FEW = 32
"""A mask with more distinct values is a soft map or a photograph, not a set of ids."""
BYTE, WORD = 255, 65535
_LEVELS = 256
_Values = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The values of one mask file.

    Attributes
    ----------
    form : {"number", "index", "colour"}
    values : tuple of float
        Distinct values, ascending, whole if the file's are; at most `FEW` + 1 of them, and none of many colours.
    counts : tuple of int
        Pixels of each.
    is_wide : bool
        More than 8 bits a pixel, or floating point.
    is_whole : bool
        All values are whole numbers.
    has_odd : bool
        There are values that are no number (NaN) or below 0; they are background.
    low, top : float
        Smallest and greatest value; of colours, that of their luma.
    peak : float
        Greatest value of a channel of the colours.
    """

    form: Form
    values: tuple[float, ...]
    counts: tuple[int, ...]
    is_wide: bool = False
    is_whole: bool = True
    has_odd: bool = False
    low: float
    top: float
    peak: float = 0

    @property
    def is_few(self) -> bool:
        """Whether the values are few enough for ids."""
        return 0 < len(self.values) <= FEW

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing but 0."""
        return len(self.values) == 1 and not self.values[0] and not self.has_odd


@dataclass(frozen=True, kw_only=True, slots=True)
class RawMask:
    """One decoded mask file.

    Attributes
    ----------
    values_HW : ndarray, any number type, (H, W)
        In the file's own range.
    picture : Image or None
        The coloured picture, for colours; their luma decides if they are many.
    look : Look
    """

    values_HW: _Values
    picture: Image.Image | None = None
    look: Look


def open_mask(path: Path) -> RawMask:
    """Open a mask file, upright.

    Raises
    ------
    DataError
        The file is missing, empty, not a regular file, or no image.
    """
    with reading("mask", path, "replace or remove the file"), open_picture(path) as opened:
        return read_values(load_upright(path, opened))


def read_values(image: Image.Image) -> RawMask:
    """Return the values of a decoded picture.

    Parameters
    ----------
    image : Image of any mode
        `flatten_alpha` handles alpha channels. A palette of greys stands for its greys, another one for its indices
        (if black is not the first of its colours: for its colours). Equal channels are one.
    """
    if image.mode.startswith("I") or image.mode == "F":
        values_HW = np.asarray(image)
        return RawMask(values_HW=values_HW, look=_look_at_wide(values_HW))
    if image.mode == "P" and not _has_clear(image):
        if (raw := _read_palette(image)) is not None:
            return raw
        image = image.convert("RGB")
    image = flatten_alpha(image)
    if image.mode not in ("1", "L", "LA", "La"):
        rgb = image.convert("RGB")
        pixels_HW3 = np.asarray(rgb)
        red_HW = pixels_HW3[..., 0]
        if not ((red_HW == pixels_HW3[..., 1]).all() and (red_HW == pixels_HW3[..., 2]).all()):
            return _read_colours(rgb, pixels_HW3)
    grey = image if image.mode == "L" else image.convert("L")
    grey_HW = np.asarray(grey)
    return RawMask(values_HW=grey_HW, look=_look_at_white(grey_HW) or _look_at_levels(grey.histogram(), "number"))


def read_array(values: _Values, name: str) -> RawMask:
    """Return the values of a mask that is no file.

    Parameters
    ----------
    values : ndarray, bool, integer or float, (H, W), (H, W, 1) or (H, W, 3)
    name : str
        For the message.

    Raises
    ------
    DataError
        Another kind or shape.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    is_colour = values.ndim == 3 and values.shape[2] in (3, 4) and values.dtype == np.uint8
    if values.size == 0 or values.dtype.kind not in "buif" or not (values.ndim == 2 or is_colour):
        raise DataError(f"the mask in {name!r} is {values.dtype} of shape {values.shape}; numbers (H, W) are needed")
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.dtype == np.uint8:
        return read_values(Image.fromarray(values))
    return RawMask(values_HW=values, look=_look_at_wide(values))


def flatten_alpha(image: Image.Image) -> Image.Image:
    """Merge the alpha channel of a mask into its grey values.

    If all visible pixels have one colour and alpha varies, alpha is the mask. Otherwise transparent pixels become
    black, that is background. An image without an alpha channel is returned unchanged.
    """
    if not image.has_transparency_data:
        return image
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = rgba.getchannel("A")
    lowest, highest = alpha.getextrema()
    if lowest != highest:
        seen_M3 = np.asarray(rgba)[np.asarray(alpha) > 0, :3]
        if (seen_M3 == seen_M3[0]).all():
            return alpha
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)


def _has_clear(image: Image.Image) -> bool:
    """Whether a pixel is not fully opaque."""
    if not image.has_transparency_data:
        return False
    return image.convert("RGBA").getchannel("A").histogram()[BYTE] < image.width * image.height


def _read_palette(image: Image.Image) -> RawMask | None:
    """Read a palette picture; None: its colours count."""
    counts = image.histogram()
    used = [index for index, count in enumerate(counts) if count]
    entries = image.getpalette("RGB") or []
    padded = entries + [0] * (3 * _LEVELS - len(entries))
    colours = [tuple(padded[3 * index : 3 * index + 3]) for index in range(_LEVELS)]
    defined = colours[: max(1, len(entries) // 3)]
    if all(red == green == blue for red, green, blue in defined) and len({colours[one] for one in used}) == len(used):
        greys = np.array([colour[0] for colour in colours], np.uint8)
        grey = Image.fromarray(greys[np.asarray(image)])
        return RawMask(values_HW=np.asarray(grey), look=_look_at_levels(grey.histogram(), "number"))
    black = (0, 0, 0)
    if len(used) > FEW or (colours[0] != black and any(colours[index] == black for index in used)):
        return None
    return RawMask(values_HW=np.asarray(image), look=_look_at_levels(counts, "index"))


def _look_at_white(grey_HW: npt.NDArray[np.uint8]) -> Look | None:
    """Look at a mask of 0 and 255, much faster than by a histogram; None: there are other values."""
    if (grey_HW + np.uint8(1)).max() > 1:  # 255 becomes 0
        return None
    n_white = int(np.count_nonzero(grey_HW))
    counts = {0: grey_HW.size - n_white, BYTE: n_white}
    values = tuple(value for value, count in counts.items() if count)
    return Look(
        form="number",
        values=values,
        counts=tuple(counts[value] for value in values),
        low=values[0],
        top=values[-1],
    )


def _look_at_levels(histogram: list[int], form: Form) -> Look:
    values = [value for value, count in enumerate(histogram) if count]
    return Look(
        form=form,
        values=tuple(values[: FEW + 1]),
        counts=tuple(histogram[value] for value in values[: FEW + 1]),
        low=values[0],
        top=values[-1],
    )


def _look_at_wide(values_HW: _Values) -> Look:
    known = np.nan_to_num(values_HW) if values_HW.dtype.kind == "f" else values_HW
    if known.dtype == np.uint16:  # much faster than to sort
        levels = np.bincount(known.ravel())
        values = np.flatnonzero(levels)
        counts = levels[values]
    else:
        values, counts = np.unique(np.maximum(known, 0), return_counts=True)
    is_whole = bool((values[: FEW + 1] == np.floor(values[: FEW + 1])).all())
    return Look(
        form="number",
        values=tuple(int(value) if is_whole else float(value) for value in values[: FEW + 1]),
        counts=tuple(counts[: FEW + 1].tolist()),
        is_wide=True,
        is_whole=is_whole,
        has_odd=bool((known < 0).any() or (values_HW.dtype.kind == "f" and np.isnan(values_HW).any())),
        low=float(values[0]),
        top=float(values[-1]),
    )


def _read_colours(rgb: Image.Image, pixels_HW3: npt.NDArray[np.uint8]) -> RawMask:
    red_HW, green_HW, blue_HW = (pixels_HW3[..., channel].astype(np.uint32) for channel in range(3))
    found = rgb.getcolors(FEW)
    pairs = sorted((red << 16 | green << 8 | blue, count) for count, (red, green, blue) in found or [])  # type: ignore[misc]
    low, top = rgb.convert("L").getextrema()
    look = Look(
        form="colour",
        values=tuple(value for value, _ in pairs),
        counts=tuple(count for _, count in pairs),
        low=float(low),  # type: ignore[arg-type]
        top=float(top),  # type: ignore[arg-type]
        peak=int(pixels_HW3.max()),
    )
    return RawMask(values_HW=red_HW << 16 | green_HW << 8 | blue_HW, picture=rgb, look=look)
