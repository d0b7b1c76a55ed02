"""Writes masks, maps and thumbnails."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from umscosod.data.files import open_atomic
from umscosod.data.images import decode_image, open_picture, reading
from umscosod.data.masks import write_png_atomic
from umscosod.errors import DataError
from umscosod.types import BoolArray, ByteArray, FloatArray

_WHITE = 255


def write_mask(path: Path, mask_HW: BoolArray) -> None:
    """Write a mask as a grey PNG of 0 and 255, completely or not at all.

    Parameters
    ----------
    path : Path
        From `umscosod.export.folder.path_inside`, which keeps it in the output folder. Parent folders are made.
    mask_HW : ndarray, bool, (H, W)

    Raises
    ------
    DataError
        The array is not boolean (H, W), is empty, or the file cannot be written.
    """
    if mask_HW.dtype != np.bool_ or mask_HW.ndim != 2 or mask_HW.size == 0:
        raise DataError(f"{path}: a mask must be boolean (H, W), got {mask_HW.dtype} {mask_HW.shape}")
    write_png_atomic(path, mask_HW.astype(np.uint8) * np.uint8(_WHITE))


def write_map(path: Path, map_HW: FloatArray) -> None:
    """Write a soft map as a grey PNG, completely or not at all.

    Parameters
    ----------
    path : Path
        As in `write_mask`.
    map_HW : ndarray, float, (H, W), in [0, 1]

    Raises
    ------
    DataError
        As `map_to_bytes`, or the file cannot be written.
    """
    try:
        levels_HW = map_to_bytes(map_HW)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    write_png_atomic(path, levels_HW)


def map_to_bytes(map_HW: FloatArray) -> ByteArray:
    """Quantise a soft map as the benchmarks' code does: floor(255 p).

    Parameters
    ----------
    map_HW : ndarray, float, (H, W), in [0, 1]
        The product has the map's own precision: float32 maps give the values of ``mul(255).byte()`` in torch.

    Returns
    -------
    ndarray, uint8, (H, W)

    Raises
    ------
    DataError
        The array is not float (H, W), is empty, not finite, or out of [0, 1].

    Examples
    --------
    >>> map_to_bytes(np.array([[0.0, 0.5, 0.999, 1.0]])).tolist()
    [[0, 127, 254, 255]]
    """
    if map_HW.dtype.kind != "f" or map_HW.ndim != 2 or map_HW.size == 0:
        raise DataError(f"a soft map must be float (H, W), got {map_HW.dtype} {map_HW.shape}")
    low, high = float(map_HW.min()), float(map_HW.max())
    if not (low >= 0.0 and high <= 1.0):  # also false for NaN
        raise DataError(f"a soft map must lie in [0, 1], got values from {low} to {high}")
    return (map_HW * map_HW.dtype.type(_WHITE)).astype(np.uint8)


def read_map(path: Path) -> npt.NDArray[np.float32]:
    """Read a soft map written by `write_map`.

    Returns
    -------
    ndarray, float32, (H, W), in [0, 1]
        Grey level / 255: at most 1/255 below the written map.

    Raises
    ------
    DataError
        The file is missing, damaged, or not an 8-bit grey picture.
    """
    with reading("map", path, "make it again or remove the file"), open_picture(path) as image:
        mode = image.mode
        levels_HW = np.asarray(image)
    if mode != "L":
        raise DataError(f"{path}: a soft map is an 8-bit grey picture, this one has mode {mode}; make it again")
    return levels_HW.astype(np.float32) / np.float32(_WHITE)


_JPEG_QUALITY = 82
_DIM = 0.3  # brightness factor outside the mask
_CONTOUR_RGB = (255, 140, 0)  # orange: visible for colour-blind people too, on dark and on bright pictures
_CONTOUR_EDGE_RGB = (0, 0, 0)


def compute_thumbnail(path: Path, side_px: int, *, max_pixels: int | None = None) -> ByteArray:
    """Decode an image upright and shrink it to a longest side of `side_px`; it is never enlarged.

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
    """Draw a mask on its picture: dim the rest, and draw the border in orange with a black edge outside.

    Parameters
    ----------
    picture_HW3 : ndarray, uint8, (H, W, 3)
    mask_HW : ndarray, bool, (H, W)
        An empty mask dims everything.

    Returns
    -------
    ndarray, uint8, (H, W, 3)
    """
    dimmed_HW3 = (picture_HW3 * _DIM).astype(np.uint8)
    painted_HW3 = np.where(mask_HW[..., None], picture_HW3, dimmed_HW3)
    cross, values_HW = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), mask_HW.astype(np.uint8)
    near_HW, far_HW = (cv2.dilate(values_HW, cross, iterations=by) > 0 for by in (1, 2))
    # beyond the picture is background: a mask that reaches its side has a border there
    inner_HW = cv2.erode(values_HW, cross, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    painted_HW3[far_HW & ~near_HW] = _CONTOUR_EDGE_RGB
    painted_HW3[near_HW & ~inner_HW] = _CONTOUR_RGB
    return painted_HW3


def write_jpeg(path: Path, picture: ByteArray) -> None:
    """Write a small JPEG, completely or not at all.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    with open_atomic(path) as stream:
        Image.fromarray(picture).save(stream, "JPEG", quality=_JPEG_QUALITY)
