"""Files are whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from umscosod.data.files import open_atomic
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
