"""Hostile pictures: one that cannot be used is a failed row, and the others are labelled."""

from __future__ import annotations

import os
from pathlib import Path

from tests.hostile.base import PHOTO, Make, name_photo, picture_bytes, png_bomb, write
from tests.hostile.harness import Case

_POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 96\nshowpage\n"
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
_TIFF_LOOP = b"II*\0\x08\0\0\0\x01\0\0\x01\x04\0\x01\0\0\0\x01\0\0\0\x08\0\0\0"
_BMP_NEGATIVE = b"BM" + bytes(8) + b"\x36\0\0\0\x28\0\0\0\xff\xff\xff\xff" + bytes(40)
_AS_BAD = "coffee/bad.jpg: "


def _bad(what: str, content: bytes) -> Case:
    return Case(what=what, command="label photos --out out", code=1, says=_AS_BAD, make=write(PHOTO, content))


def _fine(what: str, name: str, content: bytes) -> Case:
    make = write(f"photos/coffee/{name}", content)
    return Case(what=what, command="label photos --out out", code=0, says="5 labelled", make=make)


def _odd(what: str, make: Make, *, code: int = 1, says: str = _AS_BAD) -> Case:
    return Case(what=what, command="label photos --out out", code=code, says=says, make=make)


def _link(target: str) -> Make:
    return lambda folder: (folder / PHOTO).symlink_to(target)


def _flip_a_byte(folder: Path) -> None:
    content = bytearray(picture_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / PHOTO).write_bytes(content)


def _damage_all(folder: Path) -> None:
    for path in (folder / "photos").rglob("*.jpg"):
        path.write_bytes(b"")


def _many_scans() -> bytes:
    """A progressive JPEG whose last scan is repeated: minutes of decoding in a small file."""
    content = picture_bytes(kind="JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 3000 + content[-2:]


CASES = [
    _bad("empty file", b""),
    _bad("text", b"hello"),
    _bad("zeros", bytes(5000)),
    _bad("JPEG cut in half", picture_bytes(kind="JPEG", quality=95)[:3000]),
    _bad("JPEG, first 100 bytes", picture_bytes(kind="JPEG")[:100]),
    _bad("PNG cut in half", picture_bytes()[:4000]),
    _odd("PNG with one byte of its pixels changed", _flip_a_byte),
    _bad("PNG of 60,000 x 60,000 pixels in 100 bytes", png_bomb()),
    _bad("PostScript", _POSTSCRIPT),
    _bad("SVG with a script", _SVG),
    _bad("PDF", b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n"),
    _bad("ZIP", b"PK\x03\x04" + bytes(60)),
    _bad("GIF, header only", b"GIF89a"),
    _bad("TIFF whose directory points to itself", _TIFF_LOOP),
    _bad("WebP, header only", b"RIFF\x10\0\0\0WEBPVP8 "),
    _bad("1 x 1 pixel", picture_bytes((1, 1))),
    _bad("1 x 5,000 pixels", picture_bytes((1, 5000))),
    _bad("PPM that claims 10^9 x 10^9 pixels", b"P6 1000000000 1000000000 255\n"),
    _bad("BMP of negative width", _BMP_NEGATIVE),
    _bad("JPEG of 3,000 scans", _many_scans()),
    _odd("FIFO", lambda folder: os.mkfifo(folder / PHOTO)),
    _odd("link to itself", _link("bad.jpg")),
    _odd("dangling link", _link("nowhere.jpg")),
    _odd("link to /dev/zero", _link("/dev/zero")),
    _odd("folder named bad.jpg, empty", lambda folder: (folder / PHOTO).mkdir(), code=0, says="4 labelled"),
    _odd("every picture empty", _damage_all, code=3, says="nothing was labelled"),
    _fine("PNG named .jpg", "bad.jpg", picture_bytes()),
    _fine("grey", "grey.png", picture_bytes(mode="L")),
    _fine("CMYK JPEG", "cmyk.jpg", picture_bytes(kind="JPEG", mode="CMYK")),
    _fine("palette with a transparent colour", "palette.png", picture_bytes(mode="P", transparency=0)),
    _fine("one bit a pixel", "bit.png", picture_bytes(mode="1")),
    _fine("3,000 x 30 pixels", "wide.png", picture_bytes((3000, 30))),
    Case(
        what="picture replaced by a PostScript file after a run",
        command="label photos --out result --preset smoke --train always",
        code=2,
        says="error: ",
        make=lambda folder: name_photo(folder).write_bytes(_POSTSCRIPT),
        needs=("photos", "result"),
    ),
]
