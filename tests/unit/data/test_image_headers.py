"""Sizes from headers, without decoding."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from umscosod.data.images import decode_image, read_upright_size
from umscosod.errors import DataError


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_tells_the_upright_size(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (60, 40)).save(tmp_path / f"a.{suffix}", exif=exif)
    size_hw, is_turned = read_upright_size(tmp_path / f"a.{suffix}")
    assert size_hw == decode_image(tmp_path / f"a.{suffix}").shape[:2]
    assert is_turned is (orientation != 1)


def test_a_header_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.jpg: the image's header cannot be read"):
        read_upright_size(tmp_path / "a.jpg")
