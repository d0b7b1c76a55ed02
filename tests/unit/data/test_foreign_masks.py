"""Masks that other programs made: what each kind is read as, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from umscosod.cli import main
from umscosod.data.foreign import MaskReader
from umscosod.data.mask_rules import decide_rule, parse_mask_value
from umscosod.data.mask_values import read_array
from umscosod.data.masks import read_mask
from umscosod.errors import ConfigError, DataError
from umscosod.evaluation import compute_measures, evaluate

MASK = np.zeros((12, 16), bool)
MASK[3:9, 4:12] = True
RIM = np.zeros_like(MASK)
RIM[2:10, 3:13] = True
RIM &= ~MASK
M8 = MASK.astype(np.uint8)
LEFT, RIGHT = MASK.copy(), MASK.copy()
LEFT[:, 8:] = False
RIGHT[:, :8] = False

VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, *[64, 0, 128] * 251, 224, 224, 192]


def palette(values: np.ndarray, colours: list[int], **info: object) -> Image.Image:
    image = Image.fromarray(values.astype(np.uint8), "L").convert("P")
    image.putdata(values.astype(np.uint8).ravel().tolist())
    image.putpalette(colours)
    image.info.update(info)
    return image


def painted(colour: Sequence[int], ground: Sequence[int] = (0, 0, 0), where: np.ndarray = MASK) -> np.ndarray:
    return np.where(where[..., None], np.array(colour, np.uint8), np.array(ground, np.uint8))


def soft(top: int) -> np.ndarray:
    column = np.linspace(0, top, MASK.shape[1]).astype(np.uint8)
    return np.tile(column, (MASK.shape[0], 1)) * 1 + np.arange(12, dtype=np.uint8)[:, None] // 6


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder of foreign masks, and what happens."""

    files: Sequence[np.ndarray | Image.Image]
    masks: Sequence[np.ndarray] = (MASK,)
    rule: str = ""
    ignored: np.ndarray | None = None
    warns: str = ""
    error: str = ""
    mask_value: str | int | list[int] | None = None


SOFT = soft(255)
FINE = np.arange(192, dtype=np.uint8).reshape(12, 16) + np.uint8(60)
FINE[0, 0] = 0
IDS = LEFT * np.uint8(1) + RIGHT * np.uint8(2)
CASES = {
    "0 and 255": Case(files=[M8 * 255], rule="0 and 255"),
    "1 bit": Case(files=[Image.fromarray(M8 * 255).convert("1")], rule="0 and 255"),
    "0 and 1": Case(files=[M8], rule="values 0, 1: 1 is foreground"),
    "0 and 1, one empty": Case(files=[M8, M8 * 0], masks=[MASK, MASK & False], rule="values 0, 1: 1 is"),
    "0 and 1, one full": Case(files=[M8, M8 * 0 + 1], masks=[MASK, MASK | True], rule="values 0, 1: 1 is"),
    "0 and 100": Case(files=[M8 * 100], rule="values 0, 100: 100 is foreground"),
    "0 and 128": Case(files=[M8 * 128], rule="values 0, 128: 128 is foreground"),
    "palette, index 1 red": Case(files=[palette(M8, VOC)], rule="palette indices 0, 1: 1 is foreground"),
    "palette, all entries black": Case(files=[palette(M8, [0] * 768)], rule="palette indices 0, 1: 1 is"),
    "palette, white and red": Case(files=[palette(M8, [255, 255, 255, 255, 0, 0])], rule="palette indices 0, 1: 1"),
    "palette of greys": Case(files=[palette(M8 * 255, [v for v in range(256) for _ in range(3)])], rule="0 and 255"),
    "palette, black and white turned": Case(files=[palette(1 - M8, [255] * 3 + [0] * 3)], rule="0 and 255"),
    "palette of an editor, black is not first": Case(
        files=[palette(1 - M8, [255, 0, 0, 0, 0, 0])], rule="colours #000000, #ff0000: #ff0000 is foreground"
    ),
    "palette, index 15 and rim 255": Case(
        files=[palette(M8 * 15 + RIM * np.uint8(255), VOC)],
        rule="palette indices 0, 15, 255: 15 is foreground, 255 is ignored",
        ignored=RIM,
    ),
    "palette of several classes": Case(
        files=[palette(IDS, VOC)], error="palette indices 0, 1, 2, so several could be the object.*--mask-value 1 or"
    ),
    "palette of several classes, one asked for": Case(
        files=[palette(IDS + RIM * np.uint8(255), VOC)],
        mask_value=2,
        masks=[RIGHT],
        rule="values 0, 1, 2, 255: 2 is foreground, 255 is ignored",
        ignored=RIM,
    ),
    "red on black": Case(files=[painted((255, 0, 0))], rule="colours #000000, #ff0000: #ff0000 is foreground"),
    "red on black, in many shades": Case(
        files=[np.dstack([FINE, FINE * 0, FINE * 0])], masks=[FINE >= 126], rule="shades of a colour, foreground from"
    ),
    "dark red with soft edges": Case(
        files=[painted((128, 0, 0)) + painted((50, 0, 0), where=RIM)], rule="shades of a colour, foreground from 64 on"
    ),
    "two reds": Case(
        files=[painted((128, 0, 0), where=LEFT) + painted((64, 0, 0), where=RIGHT)], error="#400000, #800000"
    ),
    "red and green on black": Case(
        files=[painted((255, 0, 0), where=LEFT) + painted((0, 255, 0), where=RIGHT)],
        error="colours #000000, #00ff00, #ff0000, so several could be the object.*'#00ff00'",
    ),
    "green asked for": Case(
        files=[painted((255, 0, 0), where=LEFT) + painted((0, 255, 0), where=RIGHT)],
        mask_value="#00FF00",
        masks=[RIGHT],
        rule="#00ff00 is foreground",
    ),
    "an id asked for among colours": Case(files=[painted((255, 0, 0))], mask_value=1, error="hold colours.*'#ff0000'"),
    "RGB of equal channels": Case(files=[painted((255, 255, 255))], rule="0 and 255"),
    "RGB of 0 and 1": Case(files=[painted((1, 1, 1))], rule="values 0, 1: 1 is foreground"),
    "alpha is the mask": Case(files=[np.dstack([M8 * 0 + 60] * 3 + [M8 * 255])], rule="0 and 255"),
    "16 bits": Case(files=[MASK.astype(np.uint16) * 65535], rule="0 and 65535"),
    "16 bits of 0 and 255": Case(files=[MASK.astype(np.uint16) * 255], rule="0 and 255"),
    "16 bits of 0 and 1": Case(files=[MASK.astype(np.uint16)], rule="values 0, 1: 1 is foreground"),
    "12 of 16 bits": Case(files=[MASK.astype(np.uint16) * 4095], rule="values 0, 4095: 4095 is foreground"),
    "16 bits, soft": Case(files=[SOFT.astype(np.uint16) * 257], masks=[SOFT >= 128], rule="grey levels"),
    "32 bits, numbers of objects": Case(files=[IDS.astype(np.int32) * 70000], error="values 0, 70000, 140000"),
    "32 bits, all asked for": Case(
        files=[IDS.astype(np.int32) * 70000], mask_value="70000,140000", rule="70000, 140000 is foreground"
    ),
    "floating point of 0 and 1": Case(files=[MASK.astype(np.float32)], rule="values 0, 1: 1 is foreground"),
    "floating point, soft": Case(files=[SOFT.astype(np.float32) / 255], masks=[SOFT >= 128], rule="grey levels"),
    "NaN": Case(files=[M8 * np.float32(np.nan)], masks=[MASK & False], warns="counted as empty.*below 0 or NaN"),
    "below 0": Case(files=[M8 * np.int32(-1)], masks=[MASK & False], warns="counted as empty.*below 0 or NaN"),
    "ids": Case(files=[IDS], error="holds the values 0, 1, 2, so several could be the object"),
    "ids, one in each file": Case(files=[LEFT * np.uint8(38), RIGHT * np.uint8(75)], error="values 0, 38, 75"),
    "ids, all asked for": Case(files=[IDS], mask_value="1,2", rule="values 0, 1, 2: 1, 2 is foreground"),
    "ids, a range asked for": Case(files=[IDS * 60], mask_value="100-127", masks=[RIGHT], rule="is foreground"),
    "ids, one that is nowhere": Case(
        files=[IDS], mask_value=7, error="no mask holds the mask value 7; they hold 0, 1, 2"
    ),
    "ids, one that is not in each file": Case(
        files=[IDS, LEFT * np.uint8(1)],
        mask_value=[2],
        masks=[RIGHT, MASK & False],
        warns=r"1 mask counted as empty though not all 0 \(.*1\.png: 0, 1\)",
    ),
    "0 is no id": Case(files=[IDS], mask_value="0", error="ids above 0"),
    "0, 1 and 255": Case(
        files=[M8 + RIM * np.uint8(255)],
        rule="values 0, 1, 255: 1 is foreground, 255 is ignored",
        ignored=RIM,
    ),
    "a border around an id": Case(
        files=[M8 * 3 + RIM * np.uint8(255)], rule="3 is foreground, 255 is ignored", ignored=RIM
    ),
    "0 and 255 with a stray 1": Case(
        files=[M8 * 255 + (np.arange(192).reshape(12, 16) == 0).astype(np.uint8)], rule="grey levels"
    ),
    "soft": Case(files=[SOFT], masks=[SOFT >= 128], rule="grey levels, foreground from half the range on"),
    "soft and dark": Case(files=[FINE // 2], masks=[MASK & False], warns=r"counted as empty though.*0\.png: 0, 30, 31"),
    "soft edges": Case(files=[M8 * 255 + RIM * np.uint8(90)], rule="grey levels"),
    "0 and 255, compressed with loss": Case(files=[M8 * 253 + RIM], rule="grey levels"),
    "ids of many classes": Case(files=[LEFT * np.uint8(4) + RIGHT * np.uint8(150)], error="values 0, 4, 150"),
    "trimap": Case(files=[M8 * 255 + RIM * np.uint8(128)], masks=[MASK | RIM], rule="grey levels"),
    "white and nearly": Case(files=[M8 * 55 + 200], masks=[MASK | True], warns="counted as full.*200, 255"),
    "0/255, and one of 0/1": Case(
        files=[M8 * 255, M8 * 255, M8],
        masks=[MASK] * 3,
        rule="0 and 255",
        warns=r"unlike the others.*2\.png: values 0, 1: 1 is foreground",
    ),
    "0/1, and one of 0/255": Case(
        files=[M8, M8, M8 * 255], masks=[MASK] * 3, rule="1 is foreground", warns=r"2\.png: 0 and 255"
    ),
    "0/255, and one red on black": Case(
        files=[M8 * 255, M8 * 255, painted((255, 0, 0))], masks=[MASK] * 3, rule="0 and 255", warns="#ff0000 is"
    ),
    "0/1, and one of ids": Case(files=[M8] * 40 + [IDS], error="values 0, 1, 2"),
    "all empty": Case(files=[M8 * 0], masks=[MASK & False], rule="0 and 255"),
}


def write(folder: Path, files: Sequence[np.ndarray | Image.Image]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, file in enumerate(files):
        image = file if isinstance(file, Image.Image) else Image.fromarray(file)
        paths.append(folder / f"{number}.png")
        image.save(paths[-1], "TIFF" if image.mode in "FI" else "PNG")
    return paths


@pytest.mark.parametrize("name", CASES)
def test_a_foreign_mask_is_read_as_what_it_is_or_not_without_a_word(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    paths = write(tmp_path, case.files)
    if case.error:
        with pytest.raises((DataError, ConfigError), match=case.error):
            decide_rule(paths, case.mask_value).check_clear("gt", can_ask=True)
        return
    rule = decide_rule(paths, case.mask_value)
    rule.check_clear("gt")
    assert case.rule in rule.sentence
    reader = MaskReader(rule, is_truth=True)
    read = [reader.read(path) for path in paths]
    for one, mask_HW in zip(read, case.masks, strict=True):
        np.testing.assert_array_equal(one.foreground, mask_HW)
        assert one.grey_HW.dtype == np.uint8
    np.testing.assert_array_equal(read[0].ignored_HW, case.ignored)
    if case.warns:
        (note,) = reader.notes()
        assert_found(case.warns, note)
    else:
        assert not reader.notes()


def assert_found(pattern: str, text: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.mask_value and len(case.files) == 1])
def test_a_single_file_is_a_folder_of_its_own(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    case = CASES[name]
    (path,) = write(tmp_path, case.files)
    if case.error:
        with pytest.raises(DataError, match=r"0\.png: holds the .* save the object as 255 and all else as 0"):
            read_mask(path)
        return
    np.testing.assert_array_equal(read_mask(path), case.masks[0])
    if case.ignored is not None:
        assert "with 255 beside the ids" in caplog.text
    else:
        assert bool(caplog.records) == bool(case.warns)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.uint16, np.float32, np.float64])
def test_a_mask_in_a_database_is_read_alike(dtype: type) -> None:
    raw = read_array(MASK.astype(dtype), "gt")
    np.testing.assert_array_equal(MaskReader().apply(raw, "a").foreground, MASK)
    with pytest.raises(DataError, match="numbers"):
        read_array(np.zeros((2, 2, 2, 2), dtype), "gt")


def test_an_orientation_is_applied_to_colours_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(painted((255, 0, 0)))).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), MASK)


@pytest.mark.parametrize("given", ["", "x", "1,,2", "-3", "#12345", 0, [], True, "1-x"])
def test_what_is_no_mask_value_is_refused(given: object) -> None:
    with pytest.raises(ConfigError):
        parse_mask_value(given)  # type: ignore[arg-type]


# Tried as a new user would: each of these scored IoU 0 for a perfect prediction.
SCORED_ZERO: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray | Image.Image]] = {
    "0 and 1": lambda mask, rim: mask.astype(np.uint8),
    "palette index 1": lambda mask, rim: palette(mask, VOC),
    "ids up to 127": lambda mask, rim: mask.astype(np.uint8) * np.uint8(127),
    "red on black": lambda mask, rim: painted((255, 0, 0), where=mask),
    "a rim of 255": lambda mask, rim: mask.astype(np.uint8) + rim.astype(np.uint8) * np.uint8(255),
}


def make_folders(root: Path, make: Callable[[np.ndarray, np.ndarray], np.ndarray | Image.Image]) -> tuple[str, str]:
    for number, shift in enumerate((0, 1, 2)):
        mask, rim = np.roll(MASK, shift, 1), np.roll(RIM, shift, 1)
        write(root / "gt" / f"group{number}", [make(mask, rim)])
        write(root / "pred" / f"group{number}", [mask.astype(np.uint8) * np.uint8(255)])
    return str(root / "pred"), str(root / "gt")


@pytest.mark.parametrize("name", SCORED_ZERO)
@pytest.mark.parametrize("definition", ["cosod", "sod"])
def test_a_perfect_prediction_scores_one_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, definition: str
) -> None:
    folders = make_folders(tmp_path, SCORED_ZERO[name])
    assert main(["evaluate", *folders, "--json", "--definition", definition]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["dataset"]["mae"], result["dataset"]["iou"]) == (0, 1)
    assert result["dataset"]["s"] == pytest.approx(1, abs=1e-6)
    assert result["dataset"]["f_max"] == pytest.approx(1, abs=1e-6)
    assert result["dataset"]["e_max"] == pytest.approx(1, abs=0.01)
    assert "is foreground" in result["mask_rule"]
    assert (result["ignored_share"] > 0) == (name == "a rim of 255")
    assert main(["evaluate", *folders]) == 0
    table = capsys.readouterr().out
    assert "masks: " in table
    assert ("of the pixels, in no measure" in table) == (name == "a rim of 255")


def test_ids_ask_on_the_command_line_and_the_flag_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = make_folders(tmp_path, lambda mask, rim: mask.astype(np.uint8) + rim.astype(np.uint8) * np.uint8(2))
    assert main(["evaluate", *folders]) == 2
    assert "holds the values 0, 1, 2, so several could be the object" in capsys.readouterr().err
    assert main(["evaluate", *folders, "--json", "--mask-value", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["dataset"]["iou"] == 1
    assert main(["evaluate", *folders, "--json", "--mask-value", "1,2"]) == 0
    assert 0.4 < json.loads(capsys.readouterr().out)["dataset"]["iou"] < 1
    assert main(["evaluate", *folders, "--mask-value", "9"]) == 2
    assert "no mask holds the mask value 9; they hold 0, 1, 2" in capsys.readouterr().err


def test_a_folder_of_empty_masks_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = make_folders(tmp_path, lambda mask, rim: FINE // 2)
    assert main(["evaluate", *folders]) == 2
    assert "3 masks, and every one is empty" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["0 and 1", "palette index 1", "red on black"])
def test_predictions_that_grey_would_darken_are_scaled_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    gt, pred = make_folders(tmp_path, SCORED_ZERO[name])  # exchanged
    result = evaluate(pred, gt)
    assert (result.dataset.mae, result.dataset.iou) == (0, 1)
    assert "predictions are masks of" in caplog.text


@pytest.mark.parametrize("definition", ["cosod", "sod"])
def test_no_value_at_an_ignored_pixel_changes_a_score(definition: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        gt = (rng.random((30, 40)) < 0.3).astype(np.uint8) * np.uint8(255)
        pred = rng.integers(20, 200, gt.shape).astype(np.uint8)
        ignored = rng.random(gt.shape) < 0.2
        wanted = compute_measures(pred, gt, definition, ignored_HW=ignored)  # type: ignore[arg-type]
        for _ in range(3):
            noise = rng.integers(0, 256, (2, *gt.shape)).astype(np.uint8)
            got = compute_measures(
                np.where(ignored, noise[0], pred),
                np.where(ignored, noise[1] // 128 * np.uint8(255), gt),
                definition,  # type: ignore[arg-type]
                ignored_HW=ignored,
            )
            assert_equal(got, wanted)


@pytest.mark.parametrize("definition", ["cosod", "sod"])
def test_an_ignored_border_scores_like_a_picture_without_it(definition: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        gt = np.zeros((30, 40), np.uint8)
        gt[4:18, 6:25] = 255
        pred = rng.integers(0, 256, gt.shape).astype(np.uint8)
        ignored = np.zeros(gt.shape, bool)
        ignored[24:], ignored[:, 33:] = True, True
        got = compute_measures(pred, gt, definition, ignored_HW=ignored)  # type: ignore[arg-type]
        cut = (np.ascontiguousarray(picture[:24, :33]) for picture in (pred, gt))
        assert_equal(got, compute_measures(*cut, definition))  # type: ignore[arg-type]


@pytest.mark.parametrize("definition", ["cosod", "sod"])
def test_a_perfect_prediction_of_the_kept_pixels_scores_one(definition: str) -> None:
    rng = np.random.default_rng(2)
    gt = M8 * np.uint8(255)
    for ignored in (RIM, rng.random(gt.shape) < 0.5, LEFT | RIM):
        pred = np.where(ignored, rng.integers(0, 256, gt.shape).astype(np.uint8), gt)
        got = compute_measures(pred, gt, definition, ignored_HW=ignored)  # type: ignore[arg-type]
        n = int((~ignored).sum())
        assert (got.mae, got.iou, got.f_adaptive) == (0, 1, pytest.approx(1))
        assert got.s == pytest.approx(1)
        assert got.curves.f_T.max() == pytest.approx(1)
        assert got.curves.e_T.max() == pytest.approx(n / (n - 1))
        assert got.e_adaptive == pytest.approx(n / (n - 1))


def test_ignored_pixels_must_fit_and_leave_some(tmp_path: Path) -> None:
    gt = M8 * np.uint8(255)
    with pytest.raises(DataError, match="nothing is left to score"):
        compute_measures(gt, gt, ignored_HW=MASK | True)
    with pytest.raises(DataError, match="ignored pixels must be bool"):
        compute_measures(gt, gt, ignored_HW=gt)  # type: ignore[arg-type]
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)  # as many levels as there can be
    ignored = levels > 253
    assert compute_measures(levels, levels, ignored_HW=ignored).mae == 0
    write(tmp_path / "gt", [M8, M8 * 0 + 255])
    write(tmp_path / "pred", [gt, gt])
    with pytest.raises(DataError, match=r"1\.png"):
        evaluate(tmp_path / "pred", tmp_path / "gt", mask_value=1)


def assert_equal(got: object, wanted: object) -> None:
    for name in ("mae", "f_adaptive", "e_adaptive", "s", "iou", "is_s_undefined"):
        assert getattr(got, name) == getattr(wanted, name), name
    for name in ("precision_T", "recall_T", "f_T", "e_T"):
        np.testing.assert_array_equal(
            getattr(got.curves, name),  # type: ignore[attr-defined]
            getattr(wanted.curves, name),  # type: ignore[attr-defined]
        )
