"""The contact sheet: well-formed, safe with any name, complete, and the same bytes for the same run."""

from __future__ import annotations

import io
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from umscosod.errors import DataError
from umscosod.export.contact_sheet import SheetRow, write_contact_sheet
from umscosod.export.png import compute_grey_thumbnail, compute_thumbnail, paint_mask, write_map, write_mask
from umscosod.types import Labelled, Status

VOID = {"meta", "input", "img"}


class _Page(HTMLParser):
    """Checks that tags are balanced, and collects links, ids and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _row(
    root: Path, image_id: str, status: Status = Status.LABELLED, confidence: float = 0.5, reason: str = ""
) -> SheetRow:
    output = image_id.rpartition(".")[0] + ".png"
    group = image_id.rpartition("/")[0]
    image = root / "in" / image_id
    out = root / "out"
    if status is Status.FAILED:
        row = Labelled(image_id=image_id, group=group, output=output, status=status, reason=reason)
        return SheetRow(labelled=row, image=image)
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), "teal").save(image, "PNG")
    mask = np.zeros((20, 40), bool)
    mask[5:15, 10:30] = status is Status.LABELLED
    write_mask(out / "masks" / output, mask)
    write_map(out / "maps" / output, mask * np.float32(0.9))
    write_mask(out / "pseudo" / output, mask[::4, ::4])
    labelled = Labelled(
        image_id=image_id,
        group=group,
        output=output,
        status=status,
        confidence=confidence,
        reason=reason,
        source="network",
        threshold=0.5,
    )
    paths = {"pseudo": f"pseudo/{output}", "map": f"maps/{output}", "mask": f"masks/{output}"}
    return SheetRow(labelled=labelled, image=image, **paths)


def _local(out: Path, link: str) -> Path:
    return out / os.fsdecode(unquote_to_bytes(link))


def test_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = [
        _row(tmp_path, "cat/1.png", confidence=0.25),
        _row(tmp_path, "cat/2.png", Status.EMPTY, 0.0, "nothing passes the threshold"),
        _row(tmp_path, "dog/1.png", confidence=0.75),
        _row(tmp_path, "dog/2.png", Status.FAILED, reason="dog/2.png: the file is empty"),
    ]
    path = write_contact_sheet(out, iter(rows), title="A & B", facts={"backbone": "<embedded>"})
    assert path == out / "index.html"
    page = _Page(path.read_text(encoding="utf-8"))
    words = " ".join(" ".join(page.text).split())
    for expected in ("A & B", "<embedded>", "4 images", "2 groups", "2 labelled", "1 failed", "0.50 mean confidence"):
        assert expected in words
    assert words.count("dog/2.png: the file is empty") == 2  # in the summary and in place
    assert page.tags.count("article") == 4
    assert page.tags.count("section") == 2
    assert page.tags.count("img") == 3 * 4
    assert len(set(page.ids)) == len(page.ids)
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert not link.startswith(("/", "http", "file", ".."))
            assert _local(out, link).is_file()
    with Image.open(out / "thumbs/mask/cat/1.jpg") as thumb:
        assert thumb.size == (40, 20)  # small pictures are not enlarged
    assert list(out.glob("**/.*")) == []


def test_any_name_is_shown_and_linked(tmp_path: Path) -> None:
    names = ["<b>&'\"/猫 #1?.png", "caf\u00e9/50%.png", "cafe\u0301/a+b;c.png", os.fsdecode(b"raw\xff/x.png")]
    path = write_contact_sheet(tmp_path / "out", [_row(tmp_path, name) for name in names])
    page = _Page(path.read_text(encoding="utf-8"))
    assert "b" not in page.tags[page.tags.index("section") :]  # the name did not become a tag
    assert names[0] in page.text
    files = [link for link in page.links if not link.startswith("#")]
    assert len(files) == 4 * 4 + 4 * 3
    for link in files:
        assert link.isascii()
        assert _local(tmp_path / "out", link).is_file()


def test_control_characters_of_names_and_reasons_do_not_reach_the_page(tmp_path: Path) -> None:
    rows = [
        _row(tmp_path, "c\x1b[31mat/b\x07ell.png"),
        _row(tmp_path, "c\x1b[31mat/\x9b.png", Status.FAILED, reason="no\x00 \x1b[0mway"),
    ]
    text = write_contact_sheet(tmp_path / "out", rows, title="t\x08itle").read_text(encoding="utf-8")
    assert all(character.isprintable() or character in "\n\t" for character in text)
    page = _Page(text)
    assert "c?[31mat/b?ell.png" in page.text
    for link in page.links:
        assert link.startswith("#") or _local(tmp_path / "out", link).is_file()


def test_same_bytes_twice_and_nothing_from_outside(tmp_path: Path) -> None:
    rows = [_row(tmp_path, "g/1.png")]
    first = write_contact_sheet(tmp_path / "out", rows).read_bytes()
    assert write_contact_sheet(tmp_path / "out", rows).read_bytes() == first
    assert b"http" not in first
    assert b"@import" not in first


def test_no_rows_and_one_without_group_order(tmp_path: Path) -> None:
    page = _Page(write_contact_sheet(tmp_path / "out", []).read_text())
    assert page.tags.count("article") == 0
    rows = [_row(tmp_path, name) for name in ("a/1.png", "b/1.png", "a/2.png")]  # a comes back: ids still differ
    page = _Page(write_contact_sheet(tmp_path / "out", rows).read_text())
    assert len(set(page.ids)) == len(page.ids)


def test_missing_outputs_leave_an_empty_tile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = _row(tmp_path, "g/1.png")
    (tmp_path / "out/maps/g/1.png").unlink()
    page = _Page(write_contact_sheet(tmp_path / "out", [row]).read_text())
    assert page.tags.count("img") == 3
    assert "maps/g/1.png" in caplog.text


def test_a_full_disk_names_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sections wait in a file without a name, of which the system's error tells nothing."""

    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("umscosod.export.contact_sheet.tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(
        DataError, match=r"cannot write .*out/index\.html: No space left on device; check the folder and"
    ):
        write_contact_sheet(tmp_path / "out", [_row(tmp_path, "cat/1.jpg")], title="t")


def test_the_page_needs_room_on_its_own_disk_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such folder"))
    assert write_contact_sheet(tmp_path / "out", [_row(tmp_path, "cat/1.jpg")], title="t").is_file()


def test_paths_outside_are_refused(tmp_path: Path) -> None:
    good = _row(tmp_path, "g/1.png")
    bad = SheetRow(labelled=good.labelled, image=good.image, mask="../secret.png")
    with pytest.raises(DataError, match="plain relative name"):
        write_contact_sheet(tmp_path / "out", [bad])
    assert not (tmp_path / "out" / "index.html").exists()


def test_thumbnail_keeps_aspect_and_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 100), "red").save(tmp_path / "a.jpg", exif=exif)
    assert compute_thumbnail(tmp_path / "a.jpg", 96).shape == (96, 24, 3)


def test_grey_thumbnail_takes_the_size_of_its_picture(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.ones((28, 28), bool))
    assert compute_grey_thumbnail(tmp_path / "m.png", (10, 30)).shape == (10, 30)


def test_paint_mask() -> None:
    picture = np.full((20, 20, 3), 200, np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[6:14, 6:14] = True
    painted = paint_mask(picture, mask)
    assert painted[10, 10].tolist() == [200, 200, 200]  # inside as it was
    assert painted[0, 0].tolist() == [60, 60, 60]  # outside dimmed
    assert painted[6, 10].tolist() == painted[5, 10].tolist() == [255, 140, 0]
    assert painted[4, 10].tolist() == [0, 0, 0]
    assert picture.min() == 200
    assert paint_mask(picture, np.zeros((20, 20), bool)).max() == 60
