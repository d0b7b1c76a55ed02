"""CVAT for images 1.1."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.unit.export.masks import MASKS, write_items
from umscosod.export.cvat import encode_runs
from umscosod.export.formats import export_items
from umscosod.types import BoolArray

export_cvat = partial(export_items, form="cvat")

# the mask in the description of the format (docs.cvat.ai, XML annotation format), 13 x 15 pixels
DOCUMENTED = [3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, 12, 2, 11, 3, 9, 5, 7, 7, 5, 3]


def decode_runs(runs: list[int], size_hw: tuple[int, int]) -> np.ndarray:
    """Read CVAT's run lengths back: background and foreground in turn, row by row."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size_hw)


def read_masks(image: ElementTree.Element) -> list[BoolArray]:
    masks = []
    for element in image.findall("mask"):
        left, top, width, height = (int(element.attrib[key]) for key in ("left", "top", "width", "height"))
        mask = np.zeros((int(image.attrib["height"]), int(image.attrib["width"])), bool)
        runs = [int(run) for run in element.attrib["rle"].split(", ")]
        mask[top : top + height, left : left + width] = decode_runs(runs, (height, width))
        masks.append(mask)
    return masks


@pytest.mark.parametrize("per_region", [False, True])
def test_run_lengths_decoded_are_the_mask(tmp_path: Path, per_region: bool) -> None:
    export_cvat(write_items(tmp_path), tmp_path / "out", image_root=tmp_path / "image", per_region=per_region)
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    images = {image.attrib["name"]: image for image in root.findall("image")}
    assert [image.attrib["id"] for image in images.values()] == ["0", "1", "2", "3", "4"]
    for name, expected in MASKS.items():
        parts = read_masks(images[f"{name}.jpg"])
        assert np.array_equal(np.any([np.zeros_like(expected), *parts], axis=0), expected)
        assert len(parts) == 0 if not expected.any() else len(parts) == 1 or per_region


def test_runs_are_those_of_the_description() -> None:
    ellipse = decode_runs(DOCUMENTED, (15, 13))
    assert (np.abs(np.diff(ellipse, prepend=False, append=False, axis=1).astype(int)).sum(axis=1) == 2).all()
    # one run a row, longest in the middle: only along the rows is it the blob that is shown there
    assert ellipse.sum(axis=1).tolist() == [5, 7, 9, 11, 11, 12, 12, 13, 13, 12, 12, 11, 9, 7, 5]
    assert encode_runs(ellipse) == DOCUMENTED


def test_labels_are_listed_and_odd_names_escaped(tmp_path: Path) -> None:
    items = write_items(tmp_path, {'a "b" & <c>/x': MASKS["dog/full"]})
    export_cvat(items, tmp_path / "out", per_group=True)
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    assert [name.text for name in root.findall("meta/task/labels/label/name")] == ['a "b" & <c>']
    [image] = root.findall("image")
    [mask] = image.findall("mask")
    assert mask.attrib["label"] == 'a "b" & <c>'
    assert (mask.attrib["source"], mask.attrib["occluded"], mask.attrib["z_order"]) == ("auto", "0", "0")
    assert root.findtext("version") == "1.1"


@pytest.mark.parametrize("per_group", [False, True])
def test_names_that_xml_cannot_hold_are_shown_with_a_question_mark_and_told(
    tmp_path: Path, per_group: bool, caplog: pytest.LogCaptureFixture
) -> None:
    odd = "".join(map(chr, (*range(1, 9), 11, 12, *range(14, 32), 127, 0x85, 0xDCFF, 0xFFFE, 0xFFFF)))
    items = write_items(tmp_path, {"dog/plain": MASKS["dog/full"]})
    items += [
        replace(items[0], image=Path(f"a{odd}b/{number}.jpg"), output=f"{number}.png", group=f"a{odd}b")
        for number in (1, 2)
    ]
    export_cvat(items, tmp_path / "out", per_group=per_group)
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    shown = f"a{'?' * len(odd)}b"
    assert [image.attrib["name"] for image in root.findall("image")][1:] == [f"{shown}/1.jpg", f"{shown}/2.jpg"]
    labels = [name.text for name in root.findall("meta/task/labels/label/name")]
    assert labels == (["dog", shown] if per_group else ["co-salient"])
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{3 if per_group else 2} names hold characters that XML cannot ('a\\x01")
    assert record.getMessage().isprintable()


def test_line_ends_and_tabs_in_names_come_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (item,) = write_items(tmp_path, {"dog/plain": MASKS["dog/full"]})
    export_cvat([replace(item, image=Path("a\rb\nc\td.jpg"), group="a\rb")], tmp_path / "out", per_group=True)
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    assert root.findall("image")[0].attrib["name"] == "a\rb\nc\td.jpg"
    assert root.findtext("meta/task/labels/label/name") == "a\rb" == root.findall("image/mask")[0].attrib["label"]
    assert not caplog.records
