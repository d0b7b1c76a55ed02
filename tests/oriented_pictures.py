"""Small pictures that say in different ways how to turn them; shared by the tests of the decoder and of the browser."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

ORIENTATION_TAG = 0x0112
SIDE_PX = 16
"""Width of a stored block of one colour."""
STORED = np.array([[(250, 0, 0), (0, 250, 0), (0, 0, 250)], [(0, 250, 250), (250, 0, 250), (250, 250, 0)]], np.uint8)
"""Colours of the stored picture, 2 x 3 blocks: all differ, so that each turn and each mirror image is seen."""
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/></rdf:RDF></x:xmpmeta>'
)


def stored_picture() -> Image.Image:
    """The picture as it lies in every file here, 48 wide and 32 high, before any turn."""
    return Image.fromarray(STORED.repeat(SIDE_PX, axis=0).repeat(SIDE_PX, axis=1))


def blocks_of(picture: np.ndarray) -> np.ndarray:
    """Return the colours in the middle of the blocks of a picture, each channel as 0 or 250 (JPEG changes them)."""
    return (picture[SIDE_PX // 2 :: SIDE_PX, SIDE_PX // 2 :: SIDE_PX] > 125).astype(np.uint8) * 250


def upright_blocks(orientation: int) -> np.ndarray:
    """Colours of the picture after the turn that the orientation asks for, (2, 3, 3) or (3, 2, 3)."""
    turned = {
        1: STORED,
        2: STORED[:, ::-1],
        3: STORED[::-1, ::-1],
        4: STORED[::-1],
        5: STORED.transpose(1, 0, 2),
        6: np.rot90(STORED, -1),
        7: STORED[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(STORED),
    }
    return turned[orientation]


def _exif(orientation: int, big_type: bool = False) -> bytes:
    """A TIFF header with one tag; `big_type` stores it as LONG where the standard wants SHORT."""
    value = struct.pack(">HHII", ORIENTATION_TAG, 4, 1, orientation)
    if not big_type:
        value = struct.pack(">HHIHH", ORIENTATION_TAG, 3, 1, orientation, 0)
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", 1) + value + bytes(4)


def _saved(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    stored_picture().save(stream, kind, **options)
    return stream.getvalue()


def _jpeg(*segments: bytes) -> bytes:
    plain = _saved("JPEG", quality=95, subsampling=0)
    return plain[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(one) + 2) + one for one in segments) + plain[2:]


def _jpeg_exif(orientation: int, big_type: bool = False) -> bytes:
    return b"Exif\0\0" + _exif(orientation, big_type)


def _jpeg_xmp(orientation: int) -> bytes:
    return b"http://ns.adobe.com/xap/1.0/\0" + XMP.format(orientation).encode()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png_exif(orientation: int, *, is_late: bool) -> bytes:
    plain = _saved("PNG")
    place = plain.index(b"IEND") - 4 if is_late else plain.index(b"IDAT") - 4
    return plain[:place] + _chunk(b"eXIf", _exif(orientation)) + plain[place:]


def _png_text(key: str, text: str, *, is_international: bool) -> bytes:
    info = PngImagePlugin.PngInfo()
    if is_international:
        info.add_itxt(key, text)
    else:
        info.add_text(key, text, zip=True)
    return _saved("PNG", pnginfo=info)


def _raw_profile(orientation: int) -> str:
    data = b"Exif\0\0" + _exif(orientation)
    return f"\nexif\n{len(data):8}\n{data.hex()}\n"


def _avif_exif_only(orientation: int) -> bytes:
    """An AVIF whose Exif item asks for the turn, and not the boxes ``irot`` and ``imir``.

    Pillow's writer takes the tag out of the Exif item, so another tag of the same shape is written and then renamed.
    """
    marker = struct.pack(">HHIHH", 0x0100, 3, 1, orientation, 0)
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 1) + marker + bytes(4)
    data = _saved("AVIF", quality=95, subsampling="4:4:4", exif=exif)
    for sign in (">", "<"):
        old = struct.pack(f"{sign}HHIHH", 0x0100, 3, 1, orientation, 0)
        if data.count(old) == 1:
            return data.replace(old, struct.pack(f"{sign}HHIHH", ORIENTATION_TAG, 3, 1, orientation, 0))
    raise AssertionError("the AVIF has no Exif item of the expected shape")


OBEYED = {
    "JPEG EXIF": True,
    "JPEG XMP": False,
    "JPEG XMP, then EXIF": True,
    "JPEG EXIF 1, XMP": False,
    "JPEG EXIF as LONG": False,
    "JPEG EXIF twice, first 1": False,
    "PNG eXIf": True,
    "PNG eXIf after the pixels": False,
    "PNG XMP": False,
    "PNG raw profile": False,
    "WebP EXIF": False,
    "WebP EXIF headed": False,
    "WebP XMP": False,
    "AVIF irot": True,
    "AVIF EXIF": False,
    "AVIF XMP": False,
    "GIF XMP": False,
    "TIFF": True,
}
"""By the kind of tag: is the picture turned? All but TIFF, which it does not show, as seen in Chromium 156."""


def write_pictures(folder: Path, orientation: int) -> dict[str, Path]:
    """Write a picture of every kind that this Pillow can write, all with this orientation; returns files by kind."""
    exif, xmp = _exif(orientation), XMP.format(orientation).encode()
    contents = {
        "JPEG EXIF": _jpeg(_jpeg_exif(orientation)),
        "JPEG XMP": _jpeg(_jpeg_xmp(orientation)),
        "JPEG XMP, then EXIF": _jpeg(_jpeg_xmp(1), _jpeg_exif(orientation)),
        "JPEG EXIF 1, XMP": _jpeg(_jpeg_exif(1), _jpeg_xmp(orientation)),
        "JPEG EXIF as LONG": _jpeg(_jpeg_exif(orientation, big_type=True)),
        "JPEG EXIF twice, first 1": _jpeg(_jpeg_exif(1), _jpeg_exif(orientation)),
        "PNG eXIf": _png_exif(orientation, is_late=False),
        "PNG eXIf after the pixels": _png_exif(orientation, is_late=True),
        "PNG XMP": _png_text("XML:com.adobe.xmp", xmp.decode(), is_international=True),
        "PNG raw profile": _png_text("Raw profile type exif", _raw_profile(orientation), is_international=False),
        "WebP EXIF": _saved("WEBP", lossless=True, exif=exif),
        "WebP EXIF headed": _saved("WEBP", lossless=True, exif=b"Exif\0\0" + exif),
        "WebP XMP": _saved("WEBP", lossless=True, xmp=xmp),
        "GIF XMP": _saved("GIF", xmp=xmp),
        "TIFF": _saved("TIFF", tiffinfo={ORIENTATION_TAG: orientation}),
    }
    Image.init()
    if "AVIF" in Image.SAVE:  # from Pillow 11.3 on
        lossy = {"quality": 95, "subsampling": "4:4:4"}
        contents["AVIF irot"] = _saved("AVIF", **lossy, exif=exif)
        contents["AVIF EXIF"] = _avif_exif_only(orientation)
        contents["AVIF XMP"] = _saved("AVIF", **lossy, xmp=xmp)
    files = {}
    for number, (kind, content) in enumerate(contents.items()):
        files[kind] = folder / f"{number:02}.{kind.split()[0].lower()}"
        files[kind].write_bytes(content)
    assert files.keys() <= OBEYED.keys()
    return files
