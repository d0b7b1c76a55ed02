"""Files below a folder: in order, through links, and never for ever."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from umscosod.data import folders
from umscosod.data.benchmarks import open_benchmark
from umscosod.data.folders import walk_files
from umscosod.errors import DataError
from umscosod.evaluation.trees import index_pictures


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in walk_files(root)]


def add(root: Path, *files: str) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_files_come_by_name_and_folder_by_folder(tmp_path: Path) -> None:
    add(tmp_path, "b/2.png", "b/1.png", "a/z/9.png", "a/1.png", "c.png", ".hidden/1.png", "a/.dot.png")
    assert names(tmp_path) == ["c.png", "a/1.png", "a/z/9.png", "b/1.png", "b/2.png"]


def test_links_to_folders_are_followed_each_time(tmp_path: Path) -> None:
    add(tmp_path, "root/cat/1.png", "elsewhere/2.png")
    for name, target in (("puss", "cat"), ("kitten", "cat"), ("away", "../elsewhere")):
        (tmp_path / "root" / name).symlink_to(target)
    assert names(tmp_path / "root") == ["away/2.png", "cat/1.png", "kitten/1.png", "puss/1.png"]


def test_a_link_to_itself_or_to_nothing_is_listed_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    assert names(tmp_path) == ["gone.png", "loop.png"]


@pytest.mark.parametrize("name", ["gone", "loop"])
def test_a_folder_that_is_gone_or_a_link_to_itself_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=f"{name}: cannot be listed"):
        names(tmp_path / name)


def test_links_in_a_circle_are_followed_once_round(tmp_path: Path) -> None:
    add(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    links = {"a/x": "../b", "b/x": "../c", "c/x": "../a", "a/up": "..", "a/all": "/", "b/me": "."}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    found = names(tmp_path)
    assert sorted(found)[:3] == ["a/1.png", "a/x/2.png", "a/x/x/3.png"]
    assert len(found) == 9


def test_folders_that_all_link_to_each_other_end_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_ENTRIES", 5000)
    places = [f"{number}" for number in range(9)]
    for place in places:
        add(tmp_path, f"{place}/1.png")
        for other in places:
            (tmp_path / place / f"to-{other}").symlink_to(f"../{other}")
    with pytest.raises(DataError, match="more than 5000 files are below it; give the folder of the results alone"):
        index_pictures(tmp_path, "map")


def test_folders_nested_beyond_pythons_stack_are_walked(tmp_path: Path) -> None:
    deepest = tmp_path
    for _ in range(sys.getrecursionlimit() + 100):
        deepest /= "d"
        deepest.mkdir()
    add(deepest, "1.png")
    try:
        assert [path.name for path in walk_files(tmp_path)] == ["1.png"]
    finally:  # pytest's own cleaning is recursive
        (deepest / "1.png").unlink()
        while deepest != tmp_path:
            deepest.rmdir()
            deepest = deepest.parent


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with caplog.at_level(logging.WARNING):
        assert names(tmp_path) == ["b/2.png"]
    assert f"{tmp_path / 'a'}: cannot be listed (Permission denied)" in caplog.text
    with pytest.raises(DataError, match="cannot be listed"):
        names(tmp_path / "a")


def test_masks_of_a_benchmark_in_a_circle_are_found(tmp_path: Path) -> None:
    add(tmp_path, "image/cat/1.jpg", "gt/cat/1.png", "gt/dog/2.png")
    (tmp_path / "gt/cat/x").symlink_to("../dog")
    (tmp_path / "gt/dog/x").symlink_to("../cat")
    os.mkfifo(tmp_path / "gt/cat/0.png")
    assert open_benchmark(tmp_path).masks == {"cat/1.jpg": tmp_path / "gt/cat/1.png"}
