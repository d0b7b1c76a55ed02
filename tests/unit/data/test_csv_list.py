"""CSV lists as people write them: headers, delimiters, spaces; and the same lists as Parquet."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from umscosod.data.groups import groups_from_csv, groups_from_images
from umscosod.errors import DataError, MissingDependencyError


def read(folder: Path, text: str) -> dict[str, list[str]]:
    (folder / "list.csv").write_text(text, encoding="utf-8")
    groups = groups_from_csv(folder / "list.csv")
    return {group.name: [str(image.path.relative_to(folder)) for image in group.images] for group in groups}


@pytest.mark.parametrize("path", ["path", "filepath", "file", "filename", "image", "Image"])
@pytest.mark.parametrize("group", ["group", "label", "class", "category", "LABEL"])
def test_a_header_of_common_names_is_no_image(tmp_path: Path, path: str, group: str) -> None:
    assert read(tmp_path, f"{path},{group}\n1.jpg,cat\n") == {"cat": ["1.jpg"]}
    assert read(tmp_path, f"id,{group},{path}\n7,cat,1.jpg\n") == {"cat": ["1.jpg"]}


@pytest.mark.parametrize("header", ["photo,species", "path,species", "picture,group", "photo;species"])
def test_a_header_of_other_names_is_refused_with_its_text(tmp_path: Path, header: str) -> None:
    shown = header.replace(";", ",")
    with pytest.raises(DataError, match=rf"list\.csv: line 1 '{shown}' names no image, .*; name the columns path and"):
        read(tmp_path, f"{header}\n1.jpg{header[-8]}cat\n" if ";" in header else f"{header}\n1.jpg,cat\n")


def test_a_first_row_that_names_a_file_without_a_suffix_is_data(tmp_path: Path) -> None:
    (tmp_path / "IMG_1").touch()
    assert read(tmp_path, "IMG_1,cat\n2.jpg,cat\n") == {"cat": ["2.jpg", "IMG_1"]}


def test_spaces_count_where_a_file_is_so_called(tmp_path: Path) -> None:
    for name in (" 1.jpg", "2.jpg", "3.jpg "):
        (tmp_path / name).touch()
    assert read(tmp_path, " 1.jpg, cat\n 2.jpg ,cat\n3.jpg ,cat\n") == {"cat": ["2.jpg", "3.jpg ", " 1.jpg"]}


def test_a_delimiter_inside_a_path_does_not_cut_it(tmp_path: Path) -> None:
    assert read(tmp_path, "a;b;c.jpg,cat\n2.jpg,cat\n") == {"cat": ["2.jpg", "a;b;c.jpg"]}
    assert read(tmp_path, "a,b,c.jpg;cat\n2.jpg;cat\n") == {"cat": ["2.jpg", "a,b,c.jpg"]}
    assert read(tmp_path, "path;group\na,b.jpg;cat\n") == {"cat": ["a,b.jpg"]}
    assert read(tmp_path, "path,group\na;b.jpg,cat\n") == {"cat": ["a;b.jpg"]}
    (tmp_path / "a,b.jpg").touch()
    assert read(tmp_path, "a,b.jpg;cat\n") == {"cat": ["a,b.jpg"]}


def test_a_missing_group_is_named_whatever_the_delimiter(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: .*2\.jpg has no group"):
        read(tmp_path, "1.jpg;cat\n2.jpg\n")


@pytest.mark.parametrize("text", ["a\x00b.jpg,cat\n", "1.jpg,ca\x00t\n", "1.jpg," + "g" * 300 + "\n", "1.jpg,../up\n"])
def test_names_that_no_folder_can_have_are_named_by_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"list\.csv: line 1: .*; correct these and run again") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_numbers_of_thousands_of_digits_are_in_order(tmp_path: Path) -> None:
    long = "9" * 5000
    assert read(tmp_path, f"{long}.jpg,cat\n10.jpg,cat\n")["cat"] == ["10.jpg", f"{long}.jpg"]


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    for name in ("fifo.csv", "loop.csv", "none.csv"):
        with pytest.raises(DataError, match=name):
            groups_from_images(tmp_path / name)
    with pytest.raises(DataError, match="'' is empty"):
        groups_from_images("")


def test_a_folder_may_be_named_like_a_list(tmp_path: Path) -> None:
    (tmp_path / "set.csv" / "cat").mkdir(parents=True)
    (tmp_path / "set.csv" / "cat" / "1.jpg").touch()
    assert [group.name for group in groups_from_images(tmp_path / "set.csv")] == ["cat"]


def test_paths_of_windows_are_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"list\.csv: line 2: .*a\\1\.jpg: a backslash in the name; write"):
        read(tmp_path, "1.jpg,cat\na\\1.jpg,cat\n")
    assert read(tmp_path, "a\\b/1.jpg,cat\n") == {"cat": ["a\\b/1.jpg"]}


def test_a_list_that_may_not_be_read_is_not_blamed_on_its_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"list\.csv: cannot be read \(Permission denied\); check its permissions$"):
        read(tmp_path, "1.jpg,cat\n")


def write_parquet(file: Path, columns: dict[str, list[Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), file)
    return file


def test_a_parquet_list_gives_the_groups_of_the_same_csv(tmp_path: Path) -> None:
    columns = {"Id": [1, 2, 3], "Label": ["cat", "dog", "cat"], "filepath": ["2.jpg", "a/1.jpg", "10.jpg"]}
    groups = groups_from_images(write_parquet(tmp_path / "list.parquet", columns))
    (tmp_path / "list.csv").write_text("filepath,label\n2.jpg,cat\na/1.jpg,dog\n10.jpg,cat\n", encoding="utf-8")
    assert groups == groups_from_csv(tmp_path / "list.csv")


def test_a_parquet_list_of_other_columns_is_refused_with_their_names(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "list.parquet", {"photo": ["1.jpg"], "group": ["cat"]})
    with pytest.raises(DataError, match="its columns are \\['photo', 'group'\\]; name two of them path and group"):
        groups_from_images(file)


def test_a_row_of_a_parquet_list_without_a_group_is_named(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "list.parquet", {"path": ["1.jpg", "2.jpg"], "group": ["cat", None]})
    with pytest.raises(DataError, match=r"row 2: .*2\.jpg has no group"):
        groups_from_images(file)


def test_binary_names_in_a_parquet_list_are_text(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "list.parquet", {"path": [b"1.jpg", b"2.jpg"], "group": [7, 8]})
    found = [(group.name, [image.path.name for image in group.images]) for group in groups_from_images(file)]
    assert found == [("7", ["1.jpg"]), ("8", ["2.jpg"])]


@pytest.mark.parametrize("path", [["1.jpg"], b"\xff.jpg", {"name": "1.jpg"}])
def test_a_parquet_list_whose_names_are_no_text_is_refused(tmp_path: Path, path: Any) -> None:
    file = write_parquet(tmp_path / "list.parquet", {"path": [path], "group": ["cat"]})
    with pytest.raises(DataError, match="the columns path and group must be text in UTF-8"):
        groups_from_images(file)


def test_a_damaged_parquet_list_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "list.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        groups_from_images(tmp_path / "list.parquet")


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "list.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingDependencyError, match="pip install pyarrow"):
        groups_from_images(tmp_path / "list.parquet")
