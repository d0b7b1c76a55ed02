"""Orientation tags: those that a browser obeys turn the picture, the others do not."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.oriented_pictures import OBEYED, blocks_of, upright_blocks, write_pictures
from umscosod.data.images import decode_image, read_upright_size
from umscosod.data.orientation import first_orientation


def entry(order: str, kind: int = 3, count: int = 1, value: int = 6) -> bytes:
    return struct.pack(f"{order}HHIHH", 0x0112, kind, count, value, 0)


def directory(order: str, *entries: bytes, says: int | None = None, magic: int = 42) -> bytes:
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", magic, 8)
    return head + struct.pack(f"{order}H", len(entries) if says is None else says) + b"".join(entries)


@pytest.mark.parametrize("orientation", [2, 3, 5, 6, 8])
def test_the_table_of_tags(tmp_path: Path, orientation: int) -> None:
    for kind, path in write_pictures(tmp_path, orientation).items():
        picture, expected = decode_image(path), upright_blocks(orientation if OBEYED[kind] else 1)
        assert np.array_equal(blocks_of(picture), expected), kind
        assert read_upright_size(path) == (picture.shape[:2], OBEYED[kind]), kind


@pytest.mark.parametrize(
    ("exif", "expected"),
    [
        (directory(">", entry(">")), 6),
        (directory("<", entry("<")), 6),
        (directory("<", entry("<", kind=4)), 1),
        (directory("<", entry("<", count=2)), 1),
        (directory("<", entry("<", value=9), entry("<", value=0), entry("<", value=8)), 8),
        (directory("<", entry("<", value=3), entry("<", value=8)), 3),
        (directory("<", entry("<"), magic=43), 1),
        (directory("<", entry("<"), says=9), 6),
        (directory("<", entry("<")[:-4], says=1), 1),
        (b"MM\0*\0\0\xff\xff", 1),
        (b"II*\0", 1),
        (b"", 1),
    ],
    ids=["big", "little", "long", "two", "next", "first", "magic", "cut", "entry-cut", "far", "no-place", "empty"],
)
def test_the_first_valid_tag_counts(exif: bytes, expected: int) -> None:
    """What Chromium 156 did with the same bytes in a JPEG and in a PNG."""
    assert first_orientation(exif) == expected
