from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from umscosod.errors import DataError
from umscosod.evaluation.reading import decide_truth_rule, open_readers
from umscosod.evaluation.scoring import Suspicious, open_grey, read_pair


def save(path, array):
    Image.fromarray(array).save(path)
    return path


def read(pred, gt):
    return read_pair(pred, gt, open_readers(decide_truth_rule([gt], "gt"), [pred]), Suspicious())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_8_bit_mode_becomes_grey(tmp_path, mode):
    mask = np.array([[0, 255, 0]], np.uint8)
    Image.fromarray(mask).convert(mode).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(open_grey(tmp_path / "a.png")), mask)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("CMYK", "tif"), ("YCbCr", "tif"), ("RGBX", "tif"), ("I", "tif"), ("I;16", "tif"), ("PA", "png")],
)
def test_rarer_modes_become_grey_too(tmp_path, mode, suffix):
    mask = np.array([[0, 255, 0]], np.uint8)
    if mode.startswith("I"):
        image = Image.fromarray(mask.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    else:
        image = Image.fromarray(mask).convert("P" if mode == "PA" else "RGB").convert(mode)
    image.convert("P" if mode == "PA" else mode).save(tmp_path / f"a.{suffix}")
    assert np.abs(np.asarray(open_grey(tmp_path / f"a.{suffix}")).astype(int) - mask).max() <= 1


def test_transparency_is_dropped_as_the_tools_do(tmp_path):
    picture = np.full((1, 3, 4), 255, np.uint8)
    picture[0, :, 3] = 0, 255, 0
    assert np.asarray(open_grey(save(tmp_path / "a.png", picture))).tolist() == [[255, 255, 255]]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    path = save(tmp_path / "a.png", np.array([[0, 32768, 65535]], np.uint16))
    assert np.asarray(open_grey(path)).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("array", [np.array([[70000]], np.int32), np.array([[0.5]], np.float32)])
def test_32_bit_values_are_refused(tmp_path, array):
    with pytest.raises(DataError, match=r"a\.tif"):
        open_grey(save(tmp_path / "a.tif", array))


def test_a_prediction_of_another_size_is_resized_on_8_bits_with_antialiasing(tmp_path):
    rng = np.random.default_rng(4)
    prediction = rng.integers(0, 256, (40, 60), dtype=np.uint8)
    pred, gt = save(tmp_path / "p.png", prediction), save(tmp_path / "g.png", np.zeros((10, 15), np.uint8))
    pictures = read(pred, gt)
    got, truth = pictures.pred_HW, pictures.gt_HW
    assert got.shape == truth.shape == (10, 15)
    # Pillow's bilinear filter is a triangle of 4 pixels each way here, so the corner is a mean over 6 by 6 pixels
    weight = 1 - np.abs((np.arange(6) + 0.5 - 2) / 4)
    weight /= weight.sum()
    assert abs(int(got[0, 0]) - weight @ prediction[:6, :6] @ weight) <= 1.0


def test_files_that_cannot_be_read_are_named(tmp_path):
    good = save(tmp_path / "good.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes(save(tmp_path / "big.png", np.zeros((99, 99), np.uint8)).read_bytes()[:60])
    for name, reason in (
        ("empty.png", "is empty"),
        ("text.png", "cannot"),
        ("cut.png", "cannot"),
        ("no.png", "No such"),
    ):
        with pytest.raises(DataError, match=rf"{name}.*{reason}|cannot read .*{name}"):
            read(tmp_path / name, good)
