"""Outputs stay inside the output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from umscosod.errors import DataError
from umscosod.export.folder import path_inside


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", "", "a\\x.png", "a\x00.png"])
def test_names_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="must be a plain relative name"):
        path_inside(tmp_path, name)


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "masks").symlink_to(elsewhere)
    (out / "inner").symlink_to(out)
    with pytest.raises(DataError, match="leads out of the output folder"):
        path_inside(out, "masks/x.png")
    assert path_inside(out, "inner/x.png") == out / "inner" / "x.png"


def test_an_output_folder_that_is_a_link_itself_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    assert path_inside(tmp_path / "out", "a/b.png") == tmp_path / "out" / "a" / "b.png"
