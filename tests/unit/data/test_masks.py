"""PNG masks: whole files, any mode, clear errors."""

from __future__ import annotations

import contextlib
import io
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from umscosod.data.masks import decode_rle, encode_rle, is_whole_png, read_mask, write_png_atomic
from umscosod.errors import DataError

MASK = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)


def test_round_trip_makes_folders_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "ü" / "m.png"
    write_png_atomic(path, MASK.astype(np.uint8) * 255)
    np.testing.assert_array_equal(read_mask(path), MASK)
    assert [p.name for p in path.parent.iterdir()] == ["m.png"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    write_png_atomic(path, MASK.astype(np.uint8) * 255)
    with pytest.raises(DataError, match="uint8"):
        write_png_atomic(path, MASK.astype(np.float32))  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_mask(path), MASK)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(DataError, match="cannot write"):
        write_png_atomic(tmp_path / "a" / "m.png", MASK.astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "I", "F"])
def test_every_mode_reads_alike(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("m.tiff" if mode in {"I", "F"} else "m.png")
    if mode == "I;16":
        image = Image.fromarray(MASK.astype(np.uint16) * 65535)
    elif mode == "I":
        image = Image.fromarray(MASK.astype(np.int32) * 65535)
    else:
        image = Image.fromarray(MASK.astype(np.uint8) * 255).convert(mode)
    image.save(path)
    np.testing.assert_array_equal(read_mask(path), MASK)


def as_palette(values: np.ndarray, colours: list[int], **info: object) -> Image.Image:
    image = Image.fromarray(values.astype(np.uint8), "L").convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette(colours)
    image.info.update(info)
    return image


def rgba(colour: np.ndarray | int, alpha: np.ndarray | int) -> Image.Image:
    array = np.zeros((2, 3, 4), np.uint8)
    array[..., :3] = np.broadcast_to(np.asarray(colour), (2, 3))[..., None]
    array[..., 3] = alpha
    return Image.fromarray(array)


M8 = MASK.astype(np.uint8)
FILES = {
    "1-bit.png": Image.fromarray(M8 * 255).convert("1"),
    "grey.png": Image.fromarray(M8 * 255),
    "grey of 0 and 1.png": Image.fromarray(M8),
    "16 bits.png": Image.fromarray(MASK.astype(np.uint16) * 65535),
    "16 bits of 0 and 255.png": Image.fromarray(MASK.astype(np.uint16) * 255),
    "16 bits of 0 and 1.png": Image.fromarray(MASK.astype(np.uint16)),
    "16 bits.tif": Image.fromarray(MASK.astype(np.uint16) * 65535),
    "32 bits.tif": Image.fromarray(MASK.astype(np.int32) * 65535),
    "32 bits of 0 and 1.tif": Image.fromarray(MASK.astype(np.int32)),
    "float of 0 and 1.tif": Image.fromarray(MASK.astype(np.float32)),
    "float of 0 and 255.tif": Image.fromarray(MASK.astype(np.float32) * 255),
    "float with NaN.tif": Image.fromarray(np.where(MASK, np.float32(1), np.float32("nan"))),
    "palette.png": Image.fromarray(M8 * 255).convert("P"),
    "palette, order turned.png": as_palette(1 - M8, [255, 255, 255, 0, 0, 0]),
    "palette, clear background.png": as_palette(M8, [255, 255, 255, 255, 255, 255], transparency=0),
    "RGB.png": Image.fromarray(M8 * 255).convert("RGB"),
    "CMYK.tif": Image.fromarray(M8 * 255).convert("RGB").convert("CMYK"),
    "grey and full alpha.png": Image.fromarray(M8 * 255).convert("LA"),
    "RGBA and full alpha.png": rgba(M8 * 255, 255),
    "white, alpha is the mask.png": rgba(255, M8 * 255),
    "black, alpha is the mask.png": rgba(0, M8 * 255),
    "grey 60, alpha is the mask.png": rgba(60, M8 * 255),
    "black on clear white, alpha is the mask.png": rgba(255 - M8 * 255, M8 * 255),
    "LA, black, alpha is the mask.png": rgba(0, M8 * 255).convert("LA"),
    "both vary, clear is background.png": rgba(
        np.array([[255, 255, 255], [0, 0, 255]]), [[0, 255, 255], [255, 255, 255]]
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mask_reads_alike_in_every_mode_and_range(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    FILES[name].save(tmp_path / name)
    np.testing.assert_array_equal(read_mask(tmp_path / name), MASK)
    assert not caplog.records


@pytest.mark.parametrize(
    "image", [Image.new("L", (3, 2)), rgba(255, 0), rgba(0, 255)], ids=["black", "clear", "opaque"]
)
def test_an_empty_mask_is_empty_without_a_word(
    tmp_path: Path, image: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    image.save(tmp_path / "a.png")
    assert not read_mask(tmp_path / "a.png").any()
    assert not caplog.records


def test_a_mask_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "."):
        with pytest.raises(DataError, match="is not a regular file"):
            read_mask(tmp_path / name)


def test_damage_of_any_kind_is_an_error_of_ours(tmp_path: Path) -> None:
    rng = random.Random(0)
    files = []
    for form in ("PNG", "TIFF", "GIF", "BMP", "WEBP", "JPEG"):
        stream = io.BytesIO()
        Image.fromarray(np.kron(M8, np.ones((9, 9), np.uint8)) * 255).save(stream, form)
        files.append(stream.getvalue())
    for _ in range(600):
        content = bytearray(rng.choice(files))
        for _ in range(rng.randint(1, 6)):
            content[rng.randrange(min(len(content), 150))] = rng.choice([0, 1, 255])
        (tmp_path / "a.png").write_bytes(content[: rng.choice([len(content), rng.randrange(1, len(content))])])
        with contextlib.suppress(DataError):  # any other error fails the test
            read_mask(tmp_path / "a.png")


def test_a_whole_png_is_told_from_a_torn_one_and_from_one_of_another_size(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    write_png_atomic(path, M8)
    content = path.read_bytes()
    assert is_whole_png(path, (2, 3))
    assert not is_whole_png(path, (3, 2))
    for torn in (b"", content[:-1], content[:30], content[:5], content[-12:], b"x" * 99):
        path.write_bytes(torn)
        assert not is_whole_png(path, (2, 3))
    assert not is_whole_png(tmp_path, (2, 3))
    assert not is_whole_png(tmp_path / "none.png", (2, 3))


def test_zero_one_label_images_and_transparency(tmp_path: Path) -> None:
    Image.fromarray(MASK.astype(np.uint8)).save(tmp_path / "ones.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "ones.png"), MASK)
    rgba = np.full((2, 3, 4), 255, dtype=np.uint8)
    rgba[..., 3] = MASK * 255
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "alpha.png"), MASK)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nbroken"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png"):
        read_mask(path)
    with pytest.raises(DataError, match=r"gone\.png"):
        read_mask(tmp_path / "gone.png")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (60, 200)])
def test_run_lengths_come_back(size: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(size) < share
    rle = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle(rle), mask)
    np.testing.assert_array_equal(decode_rle({**rle, "counts": rle["counts"].encode()}), mask)


def test_long_runs_of_smooth_masks_come_back() -> None:
    rows, cols = np.mgrid[:300, :400]
    mask = (rows - 150) ** 2 + (cols - 200) ** 2 < 100**2  # shrinking runs: negative differences
    np.testing.assert_array_equal(decode_rle(encode_rle(mask)), mask)


@pytest.mark.parametrize("counts", ["000", "022022", "P", [1, 2], [5, -1], [], ""])
def test_runs_that_do_not_fill_the_mask_are_refused(counts: object) -> None:
    with pytest.raises(DataError, match="run lengths"):
        decode_rle({"size": [2, 2], "counts": counts})


@pytest.mark.parametrize(
    "size",
    [
        *(5, [5], [], {}, None, "22", [2, 2, 1], [-2, -2], [0, 4], ["2", "2"], [2.5, 2], [True, 4], [float("nan"), 4]),
        *([float("inf"), 1], [10**30, 1], [10**6, 10**6], {"height": 2, "width": 2}, [[2], [2]]),
    ],
)
def test_sizes_that_are_none_are_refused(size: object) -> None:
    with pytest.raises(DataError, match="size"):
        decode_rle({"size": size, "counts": [1, 2, 1]})


@pytest.mark.parametrize(
    "counts",
    [
        *(None, 4, 4.0, {}, True, [None, 4], ["1", "3"], [True, 3], [1.5, 2.5], [[4]], [10**400], [float("nan"), 4]),
        *([2**63, 4 - 2**63], "\xe9", "\ud800", "\x00", "o" * 8, "o" * 2_000_000, "oooooo", [2**62] * 4),
    ],
)
def test_counts_that_are_no_run_lengths_are_refused(counts: object) -> None:
    with pytest.raises(DataError, match="run lengths"):
        decode_rle({"size": [2, 2], "counts": counts})


def test_whole_floats_are_numbers_like_others() -> None:
    rle = {"size": [2.0, 2], "counts": [1.0, 2, 1]}
    assert decode_rle(rle).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (60, 200), (3, 11)])
def test_run_lengths_at_another_size_are_those_of_the_nearest_pixels(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random((24, 40)) < 0.5
    rows, cols = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, (24, 40), strict=True))
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), size), mask[np.ix_(rows, cols)])


def test_megabytes_of_run_lengths_are_read_in_one_go() -> None:
    mask = np.random.default_rng(0).random((2000, 2000)) < 0.5
    rle = encode_rle(mask)
    assert len(rle["counts"]) > 2_000_000
    start = time.monotonic()
    np.testing.assert_array_equal(decode_rle(rle), mask)
    with pytest.raises(DataError, match="run lengths"):
        decode_rle({"size": [2000, 2000], "counts": "o" * 2_000_000 + "0"})
    assert time.monotonic() - start < 30  # a second; over 150 where each character costs more than the one before
