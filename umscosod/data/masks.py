"""Reads and writes masks, and checks values from JSON files."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco

from umscosod.data.files import open_atomic, open_regular
from umscosod.data.foreign import MaskReader
from umscosod.errors import DataError, shorten
from umscosod.types import BoolArray, ByteArray


def whole_number(value: object) -> int | None:
    """Return the integer of a JSON value such as 139 or 139.0; None for all other values, also true and false.

    Examples
    --------
    >>> [whole_number(value) for value in (139, 139.0, 1.5, "139", True, float("nan"))]
    [139, 139, None, None, None, None]
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    # from 2**53 on, neighbouring integers are one float
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else None


def describe_value(value: object) -> str:
    """Describe a value of a file for a message as `shorten` does, in JSON's words; name only the kind of nested values.

    Examples
    --------
    >>> describe_value("high"), describe_value(None), describe_value([1, 2]), describe_value([[1]])
    ("'high'", 'null', '[1, 2]', 'a list')
    """
    if value is None:
        return "null"
    if isinstance(value, list | tuple) and len(value) < 4 and not any(isinstance(one, list | dict) for one in value):
        return f"[{', '.join(map(describe_value, value))}]"
    if isinstance(value, list | tuple | dict):
        return "an object" if isinstance(value, dict) else "a list"
    return shorten(value, 40)


def finite_number(value: object) -> float | None:
    """Return the number of a JSON value; None for NaN, the infinities, true, false, text and all other values.

    Examples
    --------
    >>> [finite_number(value) for value in (1, 0.5, 10**400, True, "1", float("nan"))]
    [1.0, 0.5, None, None, None, None]
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


_MAX_PIXELS = 2**31
_MAX_CHARACTERS = 7  # characters of one packed number: 35 bits, for differences of 32-bit runs
_PNG_LEVEL = 4  # of zlib: soft maps in less than half of the time of its default, 6, and a tenth larger
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"  # the last chunk of every PNG


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
    Image.fromarray(image).save(stream, format="PNG", compress_level=_PNG_LEVEL)
    return stream.getvalue()


def write_png_atomic(path: Path, image: ByteArray) -> None:
    """Write an 8-bit PNG, completely or not at all (see `encode_png` and `open_atomic`)."""
    content = encode_png(image)
    with open_atomic(path) as stream:
        stream.write(content)


def read_mask(path: Path) -> BoolArray:
    """Read one mask file of any kind; to read many, use one `umscosod.data.foreign.MaskReader`.

    The values of the file decide what is foreground (see `umscosod.data.mask_rules`): grey levels of at least half the
    range; 1 beside 0, or another single id, palette index or colour. A mask that becomes empty or full by that is told
    in a warning. A value 255 beside ids is background.

    Parameters
    ----------
    path : Path

    Returns
    -------
    ndarray, bool, (H, W)
        Upright: an EXIF orientation is applied.

    Raises
    ------
    DataError
        The file is missing, empty, not a regular file, or no image; or it holds several ids.
    """
    reader = MaskReader()
    mask_HW = reader.read(path).foreground
    reader.warn()
    return mask_HW


def is_whole_png(path: str | Path, size_hw: tuple[int, int]) -> bool:
    """Whether a file begins and ends as a PNG of a given size; its pixels are not read.

    The check reads 36 bytes. It rejects what a full disk or a killed copy leaves: 0 bytes, a truncated file.
    """
    start = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + size_hw[1].to_bytes(4, "big") + size_hw[0].to_bytes(4, "big")
    try:
        with open_regular(path) as stream:
            if stream.read(len(start)) != start:
                return False
            stream.seek(-len(_PNG_END), os.SEEK_END)
            return stream.read() == _PNG_END
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return False


def encode_rle(mask_HW: BoolArray) -> dict[str, Any]:
    """Encode a mask as COCO's compressed run lengths, ready for JSON.

    Examples
    --------
    >>> encode_rle(np.array([[True, False], [True, False]]))
    {'size': [2, 2], 'counts': '022'}
    """
    encoded = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_rle(rle: Mapping[str, Any], size_hw: tuple[int, int] | None = None) -> BoolArray:
    """Decode COCO run lengths, compressed (text or bytes) or not (a list): bool, (H, W).

    Runs go down the columns and start with background.

    Parameters
    ----------
    rle : mapping
        ``size`` (height and width) and ``counts``. All values are checked.
    size_hw : (int, int), optional
        Size of the returned mask, by nearest pixels, if it differs from ``size``.

    Raises
    ------
    DataError
        ``size`` or ``counts`` are of another kind, or the runs do not fill the mask exactly. (pycocotools leaves
        missing pixels uninitialised.)

    Examples
    --------
    >>> decode_rle({"size": [2, 2], "counts": "022"}).tolist()
    [[True, False], [True, False]]
    >>> decode_rle({"size": [2, 2], "counts": [1, 2, 1]}).tolist()
    [[False, True], [True, False]]
    """
    height, width = read_rle_size(rle)
    runs = _read_runs(rle.get("counts"))
    # checked before the sum: if no run is longer than the mask, the sum cannot overflow
    total = int(runs.sum()) if runs.size and runs.min() >= 0 and runs.max() <= height * width else -1
    if total != height * width:
        found = f"sum to {total}" if total >= 0 else "are empty, negative or too long"
        raise DataError(f"run lengths {found}; they must fill the {height} x {width} pixels of the mask")
    is_on = np.arange(len(runs)) % 2 == 1
    if size_hw is None or size_hw == (height, width):
        mask_HW: BoolArray = np.repeat(is_on, runs).reshape((height, width), order="F")
        return np.ascontiguousarray(mask_HW)
    # directly from the runs, so that a large stated size needs no memory
    rows, cols = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.int64).clip(0, old - 1)
        for new, old in zip(size_hw, (height, width), strict=True)
    )
    run_HW = np.searchsorted(np.cumsum(runs), cols[None, :] * height + rows[:, None], side="right")
    sampled_HW: BoolArray = is_on[run_HW]
    return sampled_HW


def read_rle_size(rle: Mapping[str, Any]) -> tuple[int, int]:
    """Return the stated height and width of run lengths.

    Raises
    ------
    DataError
        They are not two whole numbers, are below 1, or are too large for COCO's 32-bit run lengths.
    """
    stated = rle.get("size")
    sides = [whole_number(side) for side in stated] if isinstance(stated, list | tuple) else []
    if len(sides) != 2 or sides[0] is None or sides[1] is None or min(sides[0], sides[1]) < 1:
        raise DataError(f"the size of its run lengths is {describe_value(stated)}, not [height, width]")
    if sides[0] * sides[1] >= _MAX_PIXELS:
        raise DataError(f"the size of its run lengths is {sides[0]} x {sides[1]}, too large for COCO's run lengths")
    return sides[0], sides[1]


def _read_runs(counts: object) -> npt.NDArray[np.int64]:
    if isinstance(counts, str):
        counts = counts.encode("utf-8", "surrogatepass")  # only ASCII is valid, see `_unpack_runs`
    if isinstance(counts, bytes):
        return _unpack_runs(counts)
    if not isinstance(counts, list | tuple):
        raise DataError(f"run lengths ('counts') must be text or a list, not {describe_value(counts)}")
    runs = [whole_number(run) for run in counts]
    for run, given in zip(runs, counts, strict=True):
        if run is None or not 0 <= run < _MAX_PIXELS:
            raise DataError(f"run lengths ('counts') hold {describe_value(given)}, which is no length")
    return np.array(runs, dtype=np.int64)


def _unpack_runs(text: bytes) -> npt.NDArray[np.int64]:
    """Undo COCO's packing of run lengths.

    Each character holds five bits, lowest first; bit 6 says that more follow. From the fourth run on, a number is the
    difference to the run two before it.
    """
    bits = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not bits.size:
        return bits
    if bits.min() < 0 or bits.max() > 63:
        raise DataError("run lengths ('counts') hold a character that COCO's packing does not use")
    ends = np.flatnonzero(bits < 32)
    if not ends.size or ends[-1] != len(bits) - 1:
        raise DataError("run lengths end in the middle of a number")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise DataError(f"run lengths ('counts') hold a number of {lengths.max()} characters, too large for a run")
    places = np.arange(len(bits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((bits & 31) << (5 * places), starts)
    values -= np.where(bits[ends] & 16, np.int64(1) << (5 * lengths), 0)  # the sign bit of the last five
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
