"""Opens picture files safely, and reads them upright as RGB."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import stat
import struct
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from umscosod.config import DataConfig
from umscosod.data.orientation import read_orientation
from umscosod.errors import DataError, reason_of
from umscosod.types import ByteArray

logger = logging.getLogger(__name__)

# Raster formats only. Pillow's EPS reader starts Ghostscript on a file of any name whose content is PostScript.
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
PICTURE_SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
"""Lower-case suffixes of pictures, whether or not this installation can read them."""

_MOST_SCANS = 100  # scans of a progressive JPEG; writers make about 10, and each costs a pass over all pixels

_HEADER_LOCK = threading.Lock()

READ_ERRORS = (
    *(OSError, ValueError, SyntaxError, Image.DecompressionBombError),
    # for damaged files: readers trust the lengths and tables in a file
    *(ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, struct.error),
)
"""Pillow's errors for files that are missing, damaged, of another kind, or too large."""


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Return the names of the formats that this installation decodes; HEIF needs ``pillow-heif``."""
    Image.init()  # registers the readers of this Pillow build; some lack JPEG 2000 or AVIF
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of images in a folder search (the content decides how a file is read)."""
    return frozenset(suffix for name in readable_formats() for suffix in _SUFFIXES.get(name, ()))


_NOWHERE = logging.NullHandler()


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Hide Pillow's remarks on file headers from the user; limits raise a clear error.

    Warning filters belong to the whole process, so only one thread at a time may be inside. Pixels (except TIFF) are
    decoded outside, where threads run in parallel.
    """
    pillow = logging.getLogger("PIL")
    with _HEADER_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # It also logs errors, without the file's name. Not by its level: to set one clears what every logger of the
        # process remembers, which took a fifth of the time to look at a collection.
        handlers, passes_on = pillow.handlers, pillow.propagate
        pillow.handlers, pillow.propagate = [_NOWHERE], False
        try:
            yield
        finally:
            pillow.handlers, pillow.propagate = handlers, passes_on


@contextlib.contextmanager
def reading(what: str, path: Path, advice: str) -> Iterator[None]:
    """Turn Pillow's errors inside the block into one line with file, reason and remedy.

    Raises
    ------
    DataError
        ``cannot read the mask cat/7.png: REASON; ADVICE``. A DataError raised inside is passed on unchanged.
    """
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"cannot read the {what} {path}: it is no picture in a known format; {advice}") from None
    except READ_ERRORS as error:
        raise DataError(f"cannot read the {what} {path}: {reason_of(error)}; {advice}") from error


def open_picture(source: str | Path | BinaryIO) -> Image.Image:
    """Open a picture with Pillow, with the formats of `readable_formats` only: no other program is started.

    Parameters
    ----------
    source : path or binary stream
        The kind of a path is checked first, so that a FIFO or a device never blocks.

    Returns
    -------
    PIL.Image.Image
        Not decoded yet; close it, or use it as a context manager.

    Raises
    ------
    DataError
        The path is missing, not a regular file, or empty.
    OSError and others of `READ_ERRORS`
        The content has none of the formats, or is damaged.
    """
    if isinstance(source, str | Path):
        check_regular(Path(source))
    formats = readable_formats()
    with quiet_pillow():
        image = Image.open(source, formats=formats)
    if image.info.get("progressive"):
        _refuse_many_scans(image)
    return image


def _refuse_many_scans(image: Image.Image) -> None:
    """Refuse a progressive JPEG with many scans: a few MB could keep the decoder busy for minutes."""
    stream = cast(BinaryIO, cast(ImageFile.ImageFile, image).fp)
    place = stream.tell()
    stream.seek(0)
    scans = stream.read().count(b"\xff\xda")  # pixel data escape 0xff, so this marks the beginning of a scan
    stream.seek(place)
    if scans > _MOST_SCANS:
        image.close()
        raise OSError(f"a JPEG of {scans} scans, more than {_MOST_SCANS}, takes too long to decode")


def check_regular(path: Path, what: str = "an image file") -> None:
    """Refuse a path that is missing, not a regular file, or empty; `what` names the expected kind.

    Raises
    ------
    DataError
        One line with file, reason and remedy.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be found ({reason_of(error)}); check the path") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: is not a regular file; give the path of {what}")
    if status.st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); fetch it again or remove it")


_DEFAULTS = DataConfig()
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})  # orientations that exchange width and height
_DEPTH_MAXIMA = (255, 1023, 4095, 16383, 65535)  # 8, 10, 12, 14 and 16 bits


def decode_image(
    path: str | PathLike[str], *, max_pixels: int | None = None, min_side_px: int | None = None
) -> ByteArray:
    """Decode an image file to upright 8-bit RGB.

    Parameters
    ----------
    path : path
        Of any extension; the content decides. For animated or multi-page files the first frame is used.
    max_pixels, min_side_px : int, optional
        Limits, by default those of `umscosod.config.DataConfig`. The first is checked with the header, before any
        pixel is decoded.

    Returns
    -------
    ndarray, uint8, (H, W, 3)
        At the image's own size after the EXIF orientation is applied. Transparent pixels are composited over white.
        Colour profiles are not applied. `scale_to_byte` scales grey images of more than 8 bits and float images.

    Raises
    ------
    DataError
        The file is missing, not a regular file, empty, not an image, truncated, damaged, larger than `max_pixels`
        or smaller than `min_side_px`: one line with file, reason and remedy.
    """
    path = Path(path)
    limit = _DEFAULTS.max_pixels if max_pixels is None else max_pixels
    shortest = _DEFAULTS.min_side_px if min_side_px is None else min_side_px
    try:
        with open_picture(path) as image:
            _check_size(path, image.size, limit, shortest)
            rgb = _to_rgb(load_upright(path, image))
    except DataError:
        raise
    except UnidentifiedImageError:
        reason = "is not an image in a known format (or its header is damaged)"
        raise DataError(f"{path}: {reason}; re-export it as JPEG or PNG, or remove it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: {reason_of(error)}; make it smaller") from None
    except MemoryError:
        raise DataError(f"{path}: not enough memory to decode it; make it smaller or lower data.max_pixels") from None
    except Exception as error:  # Pillow's readers raise errors of almost any type on damaged files
        raise DataError(
            f"{path}: the image is damaged or truncated ({reason_of(error)}); re-export it or fetch it again"
        ) from error
    return rgb


def square_picture(image: ByteArray, size_px: int) -> ByteArray:
    """Resize to the square input of a network; the aspect ratio is not kept.

    Parameters
    ----------
    image : ndarray, uint8, (H, W, 3)
    size_px : int
        Side in pixels.

    Returns
    -------
    ndarray, uint8, (size_px, size_px, 3)
        Pillow's bilinear filter, which averages when it shrinks (no aliasing). A new array, even at equal size.

    Raises
    ------
    DataError
        `image` is not uint8 (H, W, 3), or `size_px` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> picture = np.zeros((2, 4, 3), np.uint8)
    >>> picture[:, 2:] = 100
    >>> square_picture(picture, 1)[0, 0].tolist()
    [50, 50, 50]
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(f"resize_picture expects uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if size_px < 1:
        raise DataError(f"resize_picture expects a side of at least 1 pixel, got {size_px}")
    resized = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
    return np.array(resized)


def read_upright_size(path: str | PathLike[str]) -> tuple[tuple[int, int], bool]:
    """Read an image's own size from its header; no pixel is decoded.

    Returns
    -------
    size_hw : (int, int)
        Height and width after the EXIF orientation is applied, as in `decode_image`.
    is_turned : bool
        The file is stored in another orientation, so that readers without EXIF show it rotated or mirrored.

    Raises
    ------
    DataError
        The file is missing, empty, or no image.
    """
    path = Path(path)
    try:
        with open_picture(path) as image:
            width, height = image.size
            orientation = _read_orientation(path, image)
            is_tiff = image.format == "TIFF"  # its reader swaps the sides itself
    except DataError:
        raise
    except Exception as error:  # Pillow's readers raise errors of almost any type on damaged files
        raise DataError(f"{path}: the image's header cannot be read ({reason_of(error)}); fetch it again") from None
    is_swapped = orientation in _SIDEWAYS and not is_tiff
    return ((width, height) if is_swapped else (height, width)), orientation in _UPRIGHT


def count_pixels(path: str | PathLike[str]) -> int:
    """Pixels of an image by its header; 0 where that cannot be read, which decoding will say."""
    try:
        (height, width), _ = read_upright_size(path)
    except DataError:
        return 0
    return height * width


def image_sha256(path: str | PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    path = Path(path)
    check_regular(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason_of(error)}); check its permissions") from error


def scale_to_byte(values: npt.NDArray[Any]) -> ByteArray:
    """Scale grey values of any type and range to 0..255.

    Values in [0, 65535] are scaled by the range of the smallest usual depth that holds the largest value: 8, 10, 12, 14
    or 16 bits, or [0, 1] for floating point. So an image gives the same bytes whether it was saved with 8 or with 16
    bits, and 12-bit sensor data are not dark. Other values (negative, beyond 16 bits) are stretched from their minimum
    to their maximum.

    Parameters
    ----------
    values : ndarray, integer or float
        NaN counts as the smallest value, infinities as the extremes of the finite values.

    Returns
    -------
    ndarray, uint8, same shape
        Rounded to nearest, halves to even. Constant images outside the known ranges, and images without a single
        finite value, are all 0.

    Examples
    --------
    >>> import numpy as np
    >>> scale_to_byte(np.array([0, 4095])).tolist(), scale_to_byte(np.array([0.0, 0.4, 1.0])).tolist()
    ([0, 255], [0, 102, 255])
    >>> scale_to_byte(np.array([-10.0, 0.0, 10.0])).tolist()
    [0, 128, 255]
    """
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(values[finite].min()), float(values[finite].max())
    if low < 0 or high > _DEPTH_MAXIMA[-1]:
        offset, full = low, high - low
    else:
        maxima = (1, *_DEPTH_MAXIMA) if values.dtype.kind == "f" else _DEPTH_MAXIMA
        offset, full = 0.0, float(next(maximum for maximum in maxima if high <= maximum))
    if full == 0:
        return np.zeros(values.shape, np.uint8)
    # Divided first: for float32 extremes the product with 255 would still fit float64, the difference always does.
    known = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.rint((known - offset) / full * 255).astype(np.uint8)


def _check_size(path: Path, size_wh: tuple[int, int], max_pixels: int, min_side_px: int) -> None:
    width, height = size_wh
    if width * height > max_pixels:
        raise DataError(
            f"{path}: {width} x {height} pixels are more than the limit of {max_pixels}; make it smaller or raise "
            "data.max_pixels"
        )
    if min(width, height) < min_side_px:
        raise DataError(
            f"{path}: {width} x {height} pixels are too small, each side must have at least {min_side_px}; "
            "remove it or lower data.min_side_px"
        )


def load_upright(path: Path, image: Image.Image) -> Image.Image:
    """Decode the pixels of the image of `open_picture` and undo the orientation, as a browser does.

    ``ImageOps.exif_transpose`` is not used: it also rewrites the metadata, fails if they are damaged, and obeys tags
    that a browser does not (`umscosod.data.orientation`).
    """
    if image.format == "TIFF":  # this reader applies the EXIF orientation itself
        with quiet_pillow():
            image.load()
        orientation = _read_orientation(path, image)
    else:
        orientation = _read_orientation(path, image)
        image.load()
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _read_orientation(path: Path, image: Image.Image) -> int:
    try:
        with quiet_pillow():
            return read_orientation(image)
    except Exception as error:  # only the metadata are damaged, and the reader raises errors of almost any type
        logger.warning("%s: EXIF data are damaged (%s); taken as upright", path, reason_of(error))
        return 1


def _to_rgb(image: Image.Image) -> ByteArray:
    if image.mode.startswith("I") or image.mode == "F":
        grey = scale_to_byte(np.asarray(image))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "LAB":
        lab_to_rgb = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        converted = ImageCms.applyTransform(image, lab_to_rgb)
        if converted is None:
            raise DataError("Pillow gave no picture for LAB data; this is a fault of umscosod, please report it")
        return np.array(converted)
    if image.has_transparency_data:
        # Convert via RGBA: the direct conversion to RGB loses a palette's alpha (with a warning).
        if image.mode == "La":
            image = image.convert("LA")
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return np.array(image.convert("RGB"))


_MOST_PIXELS_AT_ONCE = 160_000_000  # 0.5 GB: ten pictures of 16 megapixels
_MOST_PIXELS = 32_000_000  # of a batch, unless one picture alone has more: two batches are in memory at a time


def limit_at_once(pixels: Iterable[int], wanted: int) -> int:
    """How many pictures of so many pixels may be worked on at once, beside two that are decoded ahead; 1 or more."""
    largest = max(pixels, default=0) or 1  # a damaged file has none
    return max(1, min(wanted, _MOST_PIXELS_AT_ONCE // largest - 2))


def plan_batches(pixels: Mapping[int, int], most: int) -> Iterator[list[int]]:
    """Cut pictures, by number with so many pixels each, into batches of at most `most` that fit in memory.

    The first goes alone: its encoding tells how large the others will be.
    """
    first = next(iter(pixels), None)
    batch: list[int] = []
    held = 0
    for at, size in pixels.items():
        if batch and (batch[0] == first or len(batch) == most or held + size > _MOST_PIXELS):
            yield batch
            batch, held = [], 0
        batch.append(at)
        held += size
    if batch:
        yield batch
