"""Masks on their way out: one bad file never ends an export, and rotated images are told."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.export.masks import MASKS, write_items
from umscosod.errors import DataError
from umscosod.export.formats import export_items
from umscosod.export.items import Counts, ExportItem, ExportReport, iter_masks
from umscosod.export.png import write_mask

export_png = partial(export_items, form="png")


def turn(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)


def test_bad_masks_are_left_out_by_name(tmp_path: Path) -> None:
    items = write_items(tmp_path)
    items[1].mask.unlink()
    items[2].mask.write_bytes(b"no image")
    write_mask(items[3].mask, np.zeros((5, 5), bool))
    report = export_png([*items, items[0]], tmp_path / "out")
    assert (report.n_images, report.n_objects, report.is_success) == (2, 2, False)
    missing, broken, resized, twice = report.skipped
    assert "noise.png" in missing
    assert "line.png" in broken
    assert "5 x 5 pixels, its image" in resized
    assert "7 x 9" in resized
    assert "two images" in twice
    assert "4 left out" in report.summary
    assert "and 1 more" in report.summary


@pytest.mark.parametrize("orientation", [3, 6])
def test_rotated_images_are_counted_and_their_masks_are_upright(
    tmp_path: Path, orientation: int, caplog: pytest.LogCaptureFixture
) -> None:
    [item] = write_items(tmp_path, {"dog/line": MASKS["dog/line"]})
    Image.new("RGB", (17, 12) if orientation == 3 else (12, 17)).save(item.image)
    turn(item.image, orientation)
    report = export_png([item], tmp_path / "out")
    assert (report.n_images, report.n_turned, report.is_success) == (1, 1, True)
    assert "1 image with a rotated EXIF orientation" in report.summary
    assert "1 image with a rotated EXIF orientation" in caplog.text


def test_a_mask_of_the_picture_as_stored_does_not_fit(tmp_path: Path) -> None:
    [item] = write_items(tmp_path, {"dog/line": MASKS["dog/line"]})
    turn(item.image, 6)
    report = export_png([item], tmp_path / "out")
    assert report.n_images == 0
    assert "17 x 12 pixels, its image" in report.skipped[0]


def test_a_relative_image_is_a_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [item] = write_items(tmp_path, {"dog/line": MASKS["dog/line"]})
    Image.new("RGB", (3, 3)).save(tmp_path / "here.png")  # of another size
    monkeypatch.chdir(tmp_path)
    named = ExportItem(image=Path("here.png"), output="a.png", group="", mask=item.mask)
    assert [mask.shape for _, mask in iter_masks([named], Counts())] == [(12, 17)]


def test_masks_are_written_as_they_are_read(tmp_path: Path) -> None:
    """Nothing is read ahead: the second mask is asked for only after the first is out."""
    items = write_items(tmp_path)
    seen: list[int] = []

    class OneByOne(list[ExportItem]):
        def __iter__(self) -> Iterator[ExportItem]:
            for item in items:
                seen.append(len(list((tmp_path / "out").rglob("*.png"))))
                yield item

    export_png(OneByOne(items), tmp_path / "out")
    assert seen == [0, 1, 2, 3, 4]


def test_outputs_stay_inside() -> None:
    with pytest.raises(DataError, match="plain relative name"):
        ExportItem(image=Path("a.jpg"), output="../a.png", group="", mask=Path("m.png"))


def test_nothing_exported_is_no_success() -> None:
    assert not ExportReport(out=Path("o")).is_success
