"""The export's folder: whole or not at all; replaced only where an export wrote it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.unit.export.masks import MASKS, write_items
from umscosod.data.folders import iter_images
from umscosod.errors import DataError
from umscosod.export.folder import open_export
from umscosod.export.formats import export_items

export_png = partial(export_items, form="png")
export_yolo = partial(export_items, form="yolo")


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_a_folder_in_use_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"not empty \(it holds thesis\.txt\)"):
        export_png(write_items(tmp_path), tmp_path / "out")
    assert names(tmp_path / "out") == ["thesis.txt"]
    with pytest.raises(DataError, match="is a file"):
        export_png([], tmp_path / "out" / "thesis.txt")


def test_overwrite_takes_the_earlier_export_and_nothing_else(tmp_path: Path) -> None:
    out, items = tmp_path / "out", write_items(tmp_path)
    export_yolo(items, out)
    (out / "thesis.txt").write_text("mine")
    (out / "labels" / "own.txt").write_text("mine")
    export_png(items[:1], out, overwrite=True)
    assert names(out) == ["cat/target.png", "export.json", "labels/own.txt", "thesis.txt"]
    assert json.loads((out / "export.json").read_text())["files"] == ["cat/target.png"]
    assert not (out / "images").exists()
    assert names(tmp_path / "image") == sorted(f"{name}.jpg" for name in MASKS)  # links went, not what they lead to


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    items, out = write_items(tmp_path), tmp_path / "out"
    (out / "labels" / "cat").mkdir(parents=True)
    original = out / "labels" / "cat" / "target.txt"
    original.write_text("mine")
    with pytest.raises(DataError, match=r"target\.txt is in the way"):
        export_yolo(items, out, overwrite=True)
    assert original.read_text() == "mine"
    assert names(out) == ["labels/cat/target.txt"]


def test_an_export_into_a_folder_of_images_is_refused(tmp_path: Path) -> None:
    items = write_items(tmp_path)
    with pytest.raises(DataError, match=r"the folder .*image holds images, such as .*choose a folder without images"):
        export_png(items, tmp_path / "image", overwrite=True)
    assert not (tmp_path / "image" / "export.json").exists()


def test_an_export_is_not_taken_for_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = write_items(tmp_path)
    export_png(items, tmp_path / "image" / "masks as png")
    found = list(iter_images(tmp_path / "image"))
    assert {image.path for image in found} == {item.image for item in items}
    assert "earlier run" in caplog.text


@pytest.mark.parametrize("place", ["run", "masks/cat", "pseudo", "thumbs/new"])
def test_an_export_into_results_is_refused(tmp_path: Path, place: str) -> None:
    job = tmp_path / "job"
    (job / "run").mkdir(parents=True)
    (job / "run" / "job.json").write_text('{"settings": {}, "bound": {}}')
    with pytest.raises(DataError, match=r"--to .* lies among the results in .*job; choose another --to"):
        export_png(write_items(tmp_path), job / place)
    with pytest.raises(DataError, match=r"--to .*job holds the results of a job"):
        export_png(write_items(tmp_path), job, overwrite=True)
    export_png(write_items(tmp_path), job / "export")


def test_an_export_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_png(write_items(tmp_path), out)
    before = names(out)

    def fail() -> None:
        with open_export(out, "png", overwrite=True) as folder:
            folder.add("new.png").write_bytes(b"half")
            raise RuntimeError("disk pulled out")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert names(out) == before


def test_what_a_killed_export_left_is_cleared(tmp_path: Path) -> None:
    staging = tmp_path / "out" / f".{'0' * 32}.tmp"
    staging.mkdir(parents=True)
    (staging / "half.png").write_bytes(b"half")
    export_png(write_items(tmp_path), tmp_path / "out")
    assert not staging.exists()


def test_an_export_killed_while_it_moved_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, items = tmp_path / "out", write_items(tmp_path)
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target == out / "cat" / "noise.png":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export_png(items, out)
    monkeypatch.undo()
    assert "cat/target.png" in names(out)
    export_png(items[1:], out, overwrite=True)
    assert "cat/target.png" not in names(out)


def test_names_stay_inside_and_are_given_once(tmp_path: Path) -> None:
    with open_export(tmp_path / "out", "png", overwrite=False) as folder:
        folder.add("a.png").write_bytes(b"")
        with pytest.raises(DataError, match="already"):
            folder.add("a.png")
        with pytest.raises(DataError, match="already"):
            folder.add("export.json")
        with pytest.raises(DataError, match="plain relative name"):
            folder.add("../a.png")
