"""Masks as 8-bit PNG files, written whole or not at all, and as COCO run lengths."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pycocotools import mask as coco

from umscosod.data.files import open_atomic
from umscosod.errors import DataError
from umscosod.types import BoolArray, ByteArray


def encode_png(image: ByteArray) -> bytes:
    """Encode an 8-bit picture or mask as PNG; equal arrays give equal bytes.

    Parameters
    ----------
    image : ndarray, uint8, (H, W) or (H, W, 3)

    Raises
    ------
    DataError
        Another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise DataError(f"a PNG needs uint8 (H, W) or (H, W, 3), got {image.dtype} {image.shape}")
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def write_png_atomic(path: Path, image: ByteArray) -> None:
    """Write an 8-bit PNG, whole or not at all (see `encode_png` and `open_atomic`)."""
    content = encode_png(image)
    with open_atomic(path) as stream:
        stream.write(content)


def read_mask(path: Path) -> BoolArray:
    """Read a mask file in any of Pillow's modes.

    Grey values of at least half the range are foreground; transparent pixels are background. In a file whose
    greatest value is 1 (label images), 1 is foreground.

    Returns
    -------
    ndarray, bool, (H, W)

    Raises
    ------
    DataError
        The file is missing, empty or no image.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            wide = image.mode.startswith("I") or image.mode == "F"
            if "A" in image.getbands() or "transparency" in image.info:
                rgba = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
            grey_HW = np.asarray(image if wide else image.convert("L"))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the mask {path}: {error}; replace or remove the file") from error
    top = float(grey_HW.max()) if grey_HW.size else 0.0
    half = 0.5 if top <= 1.0 else 32768.0 if wide and top > 255.0 else 128.0
    mask_HW: BoolArray = grey_HW >= half
    return mask_HW


def encode_rle(mask_HW: BoolArray) -> dict[str, Any]:
    """Encode a mask as COCO's compressed run lengths, ready for JSON.

    Examples
    --------
    >>> encode_rle(np.array([[True, False], [True, False]]))
    {'size': [2, 2], 'counts': '022'}
    """
    encoded = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_rle(rle: dict[str, Any]) -> BoolArray:
    """Decode COCO run lengths, compressed (text or bytes) or not (a list): bool, (H, W).

    Runs go down the columns and start with background.

    Raises
    ------
    DataError
        The runs do not fill the mask exactly. (pycocotools leaves what is missing uninitialised.)

    Examples
    --------
    >>> decode_rle({"size": [2, 2], "counts": "022"}).tolist()
    [[True, False], [True, False]]
    >>> decode_rle({"size": [2, 2], "counts": [1, 2, 1]}).tolist()
    [[False, True], [True, False]]
    """
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    runs = _unpack_runs(counts) if isinstance(counts, bytes) else [int(run) for run in counts]
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise DataError(f"run lengths sum to {sum(runs)}, not to the {height} x {width} pixels of the mask")
    values = np.arange(len(runs)) % 2 == 1
    mask_HW: BoolArray = np.repeat(values, runs).reshape((height, width), order="F")
    return np.ascontiguousarray(mask_HW)


def _unpack_runs(text: bytes) -> list[int]:
    """Undo COCO's packing of run lengths.

    Five bits a character, lowest first, bit 6 says that more follow; from the fourth run on each number is the
    difference to the run two before it.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # the sign bit of the last five
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise DataError("run lengths end in the middle of a number")
    return runs
