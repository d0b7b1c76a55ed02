"""Decoding: every Pillow mode, the eight EXIF orientations, limits, and files that are not what they seem."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from umscosod.data.images import decode_image, image_sha256, limit_at_once, scale_to_byte, square_picture
from umscosod.errors import DataError

GREY_HW = np.arange(80, dtype=np.uint8).reshape(8, 10) * 3


def _save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def _grey(level_HW: np.ndarray) -> np.ndarray:
    return np.repeat(level_HW[:, :, None], 3, axis=2)


def test_plain_rgb_comes_back_as_saved(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    got = decode_image(_save(tmp_path / "a.png", Image.fromarray(picture)))
    assert got.dtype == np.uint8
    assert np.array_equal(got, picture)
    got[0, 0] = 1  # the caller owns the array


def test_black_and_white(tmp_path: Path) -> None:
    bits = (GREY_HW > 100).astype(np.uint8) * 255
    got = decode_image(_save(tmp_path / "a.png", Image.fromarray(bits).convert("1")))
    assert np.array_equal(got, _grey(bits))


def test_grey(tmp_path: Path) -> None:
    assert np.array_equal(decode_image(_save(tmp_path / "a.png", Image.fromarray(GREY_HW))), _grey(GREY_HW))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_lie_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (8, 8), (0,) * (len(mode) - 1) + (255,))
    image.putpixel((0, 0), (0,) * (len(mode) - 1) + (0,))
    got = decode_image(_save(tmp_path / "a.png", image))
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[1, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("alpha", [None, 0, bytes([0, 255])], ids=["opaque", "index", "bytes"])
def test_palette(tmp_path: Path, alpha: int | bytes | None) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((3, 2), 0)
    options = {} if alpha is None else {"transparency": alpha}
    got = decode_image(_save(tmp_path / "a.png", image, **options))
    assert got[2, 3].tolist() == ([10, 20, 30] if alpha is None else [255, 255, 255])
    assert got[0, 0].tolist() == [200, 100, 50]


def test_palette_with_alpha_band(tmp_path: Path) -> None:
    image = Image.new("PA", (8, 8), (0, 255))
    image.putpalette([10, 20, 30])
    image.putpixel((0, 0), (0, 0))
    buffer = _save(tmp_path / "a.tif", image.convert("RGBA"))  # no file format of ours keeps PA itself
    assert decode_image(buffer)[:2, :2].tolist() == [[[255] * 3, [10, 20, 30]], [[10, 20, 30], [10, 20, 30]]]


def test_cmyk_and_ycbcr(tmp_path: Path) -> None:
    cmyk = decode_image(_save(tmp_path / "a.tif", Image.new("CMYK", (8, 8), (0, 255, 255, 0))))
    assert cmyk[0, 0].tolist() == [255, 0, 0]
    jpeg = decode_image(_save(tmp_path / "b.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0))))
    assert np.abs(jpeg[0, 0].astype(int) - [255, 0, 0]).max() <= 8
    ycbcr = decode_image(_save(tmp_path / "c.tif", Image.new("YCbCr", (8, 8), (76, 85, 255))))
    assert np.abs(ycbcr[0, 0].astype(int) - [254, 0, 0]).max() <= 2


def test_lab(tmp_path: Path) -> None:
    got = decode_image(_save(tmp_path / "a.tif", Image.new("LAB", (8, 8), (255, 128, 128))))
    assert got[0, 0].min() >= 250  # L* = 100, a* = b* = 0 is white


def test_sixteen_bits_give_the_same_as_eight(tmp_path: Path) -> None:
    wide = GREY_HW.astype(np.uint16) * 257
    wide[0, 0] = 65535
    expected = GREY_HW.copy()
    expected[0, 0] = 255
    for name in ("a.png", "a.tif"):
        path = _save(tmp_path / name, Image.fromarray(wide))
        with Image.open(path) as opened:
            assert opened.mode.startswith("I;16")
        assert np.array_equal(decode_image(path), _grey(expected))


def test_thirty_two_bits_and_floats(tmp_path: Path) -> None:
    integers = np.linspace(-1000, 1000, 80).reshape(8, 10).astype(np.int32)
    got = decode_image(_save(tmp_path / "i.tif", Image.fromarray(integers)))
    assert (got.min(), got.max()) == (0, 255)
    unit = np.linspace(0, 0.5, 80, dtype=np.float32).reshape(8, 10)
    got = decode_image(_save(tmp_path / "f.tif", Image.fromarray(unit)))
    assert (got.min(), got.max()) == (0, 128)  # proportion to [0, 1] is kept


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 128, 255], [0, 128, 255]),
        ([0, 1023], [0, 255]),
        ([0, 1024], [0, 64]),  # 12 bits: 1024 / 4095 * 255 = 63.8
        ([0, 65535], [0, 255]),
        ([7, 7], [7, 7]),
        ([-5, -5], [0, 0]),
        ([0, 131070], [0, 255]),
        ([0.0, 0.25], [0, 64]),
        ([0.0, 200.0], [0, 200]),
        ([np.nan, 0.2, 1.0], [51, 51, 255]),
        ([np.inf, 0.0, 1.0, -np.inf], [255, 0, 255, 0]),
        ([np.nan, np.nan], [0, 0]),
        ([-3e38, 3e38], [0, 255]),
    ],
)
def test_scale_to_byte(values: list[float], expected: list[int]) -> None:
    assert scale_to_byte(np.array(values)).tolist() == expected


# How the upright 2 x 3 picture [[r g b], [c m y]] is stored, by orientation.
# From the EXIF standard: which visual sides the stored row 0 and column 0 are (1: top-left, 2: top-right,
# 3: bottom-right, 4: bottom-left, 5: left-top, 6: right-top, 7: right-bottom, 8: left-bottom).
STORED = {
    1: ["rgb", "cmy"],
    2: ["bgr", "ymc"],
    3: ["ymc", "bgr"],
    4: ["cmy", "rgb"],
    5: ["rc", "gm", "by"],
    6: ["by", "gm", "rc"],
    7: ["yb", "mg", "cr"],
    8: ["cr", "mg", "yb"],
}
LETTERS = {
    "r": (250, 0, 0),
    "g": (0, 250, 0),
    "b": (0, 0, 250),
    "c": (0, 250, 250),
    "m": (250, 0, 250),
    "y": (250,) * 3,
}


def _blocks(rows: list[str], side: int = 16) -> np.ndarray:
    small = np.array([[LETTERS[letter] for letter in row] for row in rows], np.uint8)
    return small.repeat(side, axis=0).repeat(side, axis=1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    path = _save(tmp_path / f"a.{suffix}", Image.fromarray(_blocks(STORED[orientation])), exif=exif, **lossless)
    got = decode_image(path)
    expected = _blocks(STORED[1])
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= 40  # JPEG's error; letters differ by 250


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_do_not_exist_are_ignored(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode_image(_save(tmp_path / "a.png", Image.new("RGB", (9, 8)), exif=exif)).shape == (8, 9, 3)


def test_damaged_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg", Image.new("RGB", (16, 8)), exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff")
    assert decode_image(path).shape == (8, 16, 3)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = _save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert decode_image(path)[0, 0].tolist() == [255, 0, 0]


def test_extension_does_not_matter_and_names_may_be_any(tmp_path: Path) -> None:
    path = _save(tmp_path / "naïve 猫.JPG", Image.new("RGB", (8, 8), "red"), format="PNG")
    assert decode_image(os.fspath(path))[0, 0].tolist() == [255, 0, 0]


def _jpeg(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 80).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is a text", "not an image"),
        (_jpeg()[:600], "damaged|truncated"),
        (_jpeg()[:10], "damaged|not an image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged|not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
    ],
    ids=["zero-byte", "text", "truncated", "header-only", "png-of-zeros", "eps-would-start-a-program"],
)
def test_unusable_files_get_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        decode_image(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message


def test_every_truncation_of_a_png_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((16, 16), 80).save(buffer, "PNG")
    whole = buffer.getvalue()
    data_end = whole.index(b"IEND") - 8  # behind it the pixels are complete
    path = tmp_path / "x.png"
    for length in range(1, data_end - 4, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            decode_image(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be found"):
        decode_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="not a regular file"):
        decode_image(tmp_path)


def test_too_small(tmp_path: Path) -> None:
    path = _save(tmp_path / "dot.png", Image.new("RGB", (1, 1)))
    with pytest.raises(DataError, match=r"dot\.png: 1 x 1 pixels are too small.*at least 8"):
        decode_image(path)
    assert decode_image(path, min_side_px=1).shape == (1, 1, 3)


def test_pixel_limit_is_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path / "wide.png", Image.new("L", (40, 30)))
    assert decode_image(path, max_pixels=1200).shape == (30, 40, 3)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DataError, match="40 x 30 pixels are more than the limit of 1199"):
        decode_image(path, max_pixels=1199)


@pytest.mark.parametrize("pillow_limit", [100, 1000])
def test_pillow_bombs_become_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pillow_limit: int) -> None:
    """Over twice its limit Pillow raises, over the limit it warns: neither reaches the user as it is."""
    path = _save(tmp_path / "bomb.png", Image.new("L", (40, 30)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="bomb"):
            decode_image(path, max_pixels=500)


def test_no_global_state_of_pillow_changes(tmp_path: Path) -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    decode_image(_save(tmp_path / "a.png", Image.new("L", (8, 8))))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert image_sha256(path) == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DataError, match="cannot be found"):
        image_sha256(tmp_path / "none")


def test_resize_ignores_aspect_and_averages() -> None:
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, 4:] = 200
    got = square_picture(picture, 2)
    assert got.shape == (2, 2, 3)
    assert got[:, 0].max() < 40
    assert got[:, 1].min() > 160
    same = square_picture(got, 2)
    assert np.array_equal(same, got)
    assert not np.shares_memory(same, got)


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_resize_refuses_other_arrays(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="expects uint8"):
        square_picture(bad, 4)
    with pytest.raises(DataError, match="at least 1"):
        square_picture(np.zeros((4, 4, 3), np.uint8), 0)


@pytest.mark.parametrize(
    ("pixels", "at_once"), [([], 8), ([0], 8), ([0, 12_000_000], 8), ([20_000_000], 6), ([5, 100_000_000], 1)]
)
def test_few_large_pictures_are_worked_on_at_once(pixels: list[int], at_once: int) -> None:
    assert limit_at_once(pixels, 8) == at_once
