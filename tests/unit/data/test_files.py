"""Files are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from umscosod.data.files import open_atomic, open_regular, read_json, remove_listed
from umscosod.errors import DataError


def test_folders_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a" / ("ü" * 120 + ".png")  # 244 bytes: a temporary name made from it would not fit
    with open_atomic(path) as stream:
        stream.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def _stop_half_way(stream: BinaryIO) -> None:
    stream.write(b"half")
    raise KeyboardInterrupt


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), open_atomic(path) as stream:
        _stop_half_way(stream)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*x: "), open_atomic(tmp_path / "x") as stream:
        stream.write(b"new")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"), open_atomic(tmp_path / "file" / "y") as stream:
        stream.write(b"new")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"[" * 100_000, b"9" * 5000])
def test_damaged_json_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json is damaged \(") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_json_that_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    for path in (tmp_path / "fifo.json", tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError, match="cannot be read: "):
            read_json(path)


def test_listed_files_go_with_their_empty_folders(tmp_path: Path) -> None:
    for name in ("a/b/1.png", "a/b/2.png", "a/c/3.png", "d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_listed(tmp_path, ["a/b/1.png", "a/c/3.png", "a/c/none.png", "a/b", "d.png"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["2.png", "a", "b"]


def test_nothing_goes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "there" / "empty").mkdir(parents=True)
    (tmp_path / "there" / "1.png").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a").symlink_to(tmp_path / "there")
    (tmp_path / "here" / "2.png").symlink_to(tmp_path / "there" / "1.png")
    remove_listed(tmp_path / "here", ["a/1.png", "a/empty/3.png", "2.png"])
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["1.png", "empty"]
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["a"]


def test_only_regular_files_are_read_and_no_fifo_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as stream:
            assert stream.read() == b"content"
    before = sum(1 for _ in Path("/dev/fd").iterdir())
    for name in ("fifo", "missing", "."):
        with pytest.raises(OSError, match=r"not a regular file|No such file"):
            open_regular(tmp_path / name)
    assert sum(1 for _ in Path("/dev/fd").iterdir()) == before
