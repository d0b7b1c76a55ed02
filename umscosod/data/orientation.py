"""Which way a picture is turned: by the tags that a browser obeys, so that masks lie on the picture that a person sees.

The table of tags in docs/editing.md was seen in Chromium 156; a test compares both. Formats that Chromium does not show
(TIFF, JPEG 2000, HEIF) are turned as their readers say.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from PIL import Image

_TAG = 0x0112
_SHORT = 3  # the type that EXIF wants for the tag; a browser ignores tags of other types
_ENTRY_BYTES = 12
_HEAD_BYTES = 6  # "Exif", a zero, and one more byte
_NOT_SHOWN = frozenset({"TIFF", "JPEG2000", "HEIF"})


def read_orientation(image: Image.Image) -> int:
    """Return how a picture is stored, as the number of the EXIF orientation.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened, not decoded yet: in a PNG, what stands after the pixels does not count.

    Returns
    -------
    int
        1: upright. 2 to 8: to be turned or mirrored. Other values do not exist and mean upright.

    Raises
    ------
    Exception
        The metadata are damaged; Pillow raises errors of almost any type.
    """
    if image.format in ("JPEG", "MPO"):
        return first_orientation(_jpeg_exif(getattr(image, "applist", ())))
    if image.format == "PNG":  # Pillow puts a head before the chunk eXIf
        return first_orientation(image.info.get("exif", b"")[_HEAD_BYTES:])
    if image.format == "AVIF":  # Pillow puts the boxes irot and imir, which count, in the place of the EXIF tag
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        return int(exif.get(_TAG, 1))
    if image.format in _NOT_SHOWN:
        return int(image.getexif().get(_TAG, 1))
    return 1  # in WebP and GIF no tag counts; the others have none


def _jpeg_exif(segments: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the content of the first EXIF segment of a JPEG, without its head."""
    for name, content in segments:
        if name == "APP1" and content.startswith(b"Exif\0") and len(content) > _HEAD_BYTES:
            return content[_HEAD_BYTES:]
    return b""


def first_orientation(exif: bytes) -> int:
    """Return the first valid orientation in the first directory of EXIF data.

    Parameters
    ----------
    exif : bytes
        From the byte order (``II`` or ``MM``) on. It may be damaged or cut off behind the tag.

    Returns
    -------
    int
        1 to 8; 1 if there is none.

    Examples
    --------
    >>> first_orientation(b"MM" + bytes.fromhex("002a 00000008 0001 0112 0003 00000001 0006 0000"))
    6
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    magic, place = struct.unpack_from(f"{order}HI", exif, 2)
    if magic != 42 or place + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, place)
    present = min(count, (len(exif) - place - 2) // _ENTRY_BYTES)
    for index in range(present):
        entry: tuple[Any, ...] = struct.unpack_from(f"{order}HHIH", exif, place + 2 + index * _ENTRY_BYTES)
        if entry[:3] == (_TAG, _SHORT, 1) and 1 <= entry[3] <= 8:
            return int(entry[3])
    return 1
