"""The one door through which picture files are opened: regular files, and formats that Pillow reads by itself."""

from __future__ import annotations

import contextlib
import functools
import logging
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image, ImageFile, UnidentifiedImageError

from umscosod.errors import DataError, reason_of

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

_MOST_SCANS = 100  # of a progressive JPEG; writers make about 10, each costs a pass over all pixels

_HEADER_LOCK = threading.Lock()

READ_ERRORS = (
    *(OSError, ValueError, SyntaxError, Image.DecompressionBombError),
    # of damaged files: readers trust lengths and tables that they read
    *(ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, struct.error),
)
"""What Pillow raises on files that are missing, damaged, of another kind, or too large."""


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Names of the formats that this installation decodes; HEIF is one where ``pillow-heif`` is installed."""
    Image.init()  # registers the readers of this Pillow build; some lack JPEG 2000 or AVIF
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Lower-case suffixes taken for images when a folder is searched (the content decides how a file is read)."""
    return frozenset(suffix for name in readable_formats() for suffix in _SUFFIXES.get(name, ()))


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep Pillow's remarks on file headers off the user's screen; limits are enforced with a clear error.

    Warning filters belong to the whole process, so only one thread at a time may be inside. Pixels are decoded
    outside (TIFF excepted), where threads still run side by side.
    """
    pillow = logging.getLogger("PIL")
    with _HEADER_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = pillow.level
        pillow.setLevel(logging.CRITICAL + 1)  # it logs errors too, without the file's name
        try:
            yield
        finally:
            pillow.setLevel(level)


@contextlib.contextmanager
def reading(what: str, path: Path, advice: str) -> Iterator[None]:
    """Turn what Pillow raises inside the block into one line with file, reason and cure.

    Raises
    ------
    DataError
        ``cannot read the mask cat/7.png: REASON; ADVICE``. One that is raised inside goes on as it is.
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
    """Open a picture as Pillow does, with the formats of `readable_formats` only: no other program is ever started.

    Parameters
    ----------
    source : path or binary stream
        Of a path the kind is checked first, so that a FIFO or a device is never waited for.

    Returns
    -------
    PIL.Image.Image
        Not decoded yet; close it, or use it as a context.

    Raises
    ------
    DataError
        The path is missing, not a regular file, or empty.
    OSError and others of `READ_ERRORS`
        The content is in none of the formats, or damaged.
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
    """A few MB of scans of an image of many pixels would keep the decoder at work for minutes."""
    stream = cast(BinaryIO, cast(ImageFile.ImageFile, image).fp)
    place = stream.tell()
    stream.seek(0)
    scans = stream.read().count(b"\xff\xda")  # in the pixels 0xff is escaped, so this is a scan's beginning
    stream.seek(place)
    if scans > _MOST_SCANS:
        image.close()
        raise OSError(f"a JPEG of {scans} scans, more than {_MOST_SCANS}, takes too long to decode")


def check_regular(path: Path, what: str = "an image file") -> None:
    """Refuse what is missing, not a regular file, or empty; `what` was to be given.

    Raises
    ------
    DataError
        One line with file, reason and cure.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be found ({reason_of(error)}); check the path") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: is not a regular file; give the path of {what}")
    if status.st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); fetch it again or remove it")
