"""PNG masks: whole files, any mode, clear errors."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from umscosod.data.masks import decode_rle, encode_rle, read_mask, write_png_atomic
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
