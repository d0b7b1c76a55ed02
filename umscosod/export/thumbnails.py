"""Small JPEG pictures for the contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from umscosod.data.files import open_atomic
from umscosod.data.images import decode_image
from umscosod.data.opening import open_picture, reading
from umscosod.types import BoolArray, ByteArray

_JPEG_QUALITY = 82
_DIM = 0.3  # brightness left to what is not in the mask
_CONTOUR_RGB = (255, 140, 0)  # orange: stands out for colour-blind people too, on dark and on bright pictures
_CONTOUR_EDGE_RGB = (0, 0, 0)


def compute_thumbnail(path: Path, side_px: int, *, max_pixels: int | None = None) -> ByteArray:
    """Decode an image upright and shrink it to a longest side of `side_px`; never enlarged.

    Raises
    ------
    DataError
        As `umscosod.data.images.decode_image`.
    """
    picture = Image.fromarray(decode_image(path, max_pixels=max_pixels, min_side_px=1))
    picture.thumbnail((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.array(picture)


def compute_grey_thumbnail(path: Path, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Read a grey PNG of ours (mask or map) and resize it to the size of its image's thumbnail.

    Raises
    ------
    DataError
        The file is missing or damaged.
    """
    with reading("mask or map", path, "make it again"), open_picture(path) as opened:
        grey = opened.convert("L").resize(size_hw[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.array(grey)


def paint_mask(picture_HW3: ByteArray, mask_HW: BoolArray) -> ByteArray:
    """Show a mask on its picture: the rest is dimmed, the border drawn in orange with a black edge outside.

    Parameters
    ----------
    picture_HW3 : ndarray, uint8, (H, W, 3)
    mask_HW : ndarray, bool, (H, W)
        An empty mask dims everything.

    Returns
    -------
    ndarray, uint8, (H, W, 3)
    """
    painted = picture_HW3.copy()
    painted[~mask_HW] = (painted[~mask_HW] * _DIM).astype(np.uint8)
    grown = ndimage.binary_dilation(mask_HW, iterations=2)
    painted[grown & ~ndimage.binary_dilation(mask_HW)] = _CONTOUR_EDGE_RGB
    painted[ndimage.binary_dilation(mask_HW) & ~ndimage.binary_erosion(mask_HW)] = _CONTOUR_RGB
    return painted


def write_jpeg(path: Path, picture: ByteArray) -> None:
    """Write a small JPEG, whole or not at all.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    with open_atomic(path) as stream:
        Image.fromarray(picture).save(stream, "JPEG", quality=_JPEG_QUALITY)
