"""Groups of images from a CSV list, as people and spreadsheets write them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from umscosod.data.groups import groups_from_folder, groups_from_labelled
from umscosod.data.opening import PICTURE_SUFFIXES, check_regular
from umscosod.errors import DataError
from umscosod.types import ImageGroup

_PATHS = ("path", "filepath", "file", "filename", "image")
_GROUPS = ("group", "label", "class", "category")
_DELIMITERS = (",", ";", "\t")
_Line = tuple[int, list[str]]


@dataclass(frozen=True, slots=True)
class _Table:
    """A file as one delimiter cuts it: numbered lines without blank ones, and the columns its header names."""

    lines: list[_Line]
    path_column: int | None
    group_column: int | None

    @property
    def has_header(self) -> bool:
        return self.path_column is not None and self.group_column is not None


def groups_from_images(
    images: str | os.PathLike[str], *, exclude: Iterable[str | os.PathLike[str]] = ()
) -> list[ImageGroup]:
    """Groups of what users call IMAGES: a folder, or a list whose name ends in ``.csv``.

    Parameters
    ----------
    images : path
    exclude : iterable of path
        Folders left out of a folder.

    Raises
    ------
    DataError
        As `umscosod.data.groups.groups_from_folder` and `groups_from_csv`.
    """
    if not os.fspath(images):
        raise DataError("IMAGES '' is empty; name a folder or a .csv list")
    path = Path(images)
    if path.suffix.lower() == ".csv" and "\x00" not in str(path) and not os.path.isdir(path):  # noqa: PTH112 - as below
        return groups_from_csv(path)
    return groups_from_folder(path, exclude=exclude)


def groups_from_csv(path: str | os.PathLike[str]) -> list[ImageGroup]:
    """Groups from a CSV file with the columns ``path`` and ``group``.

    Parameters
    ----------
    path : path
        UTF-8; comma, semicolon or tab, whichever cuts all lines into equally many columns. Without a header line the
        first two columns are meant; with one that has ``path`` (or ``filepath``, ``file``, ``filename``, ``image``) and
        ``group`` (or ``label``, ``class``, ``category``), their order is free and other columns are ignored. Relative
        image paths start at the folder of this file. Blank lines are skipped; spaces around a path count where a file
        of that name is there.

    Returns
    -------
    list of ImageGroup
        As `umscosod.data.groups.groups_from_list`.

    Raises
    ------
    DataError
        The file cannot be read or has no rows, its first line looks like a header of other names, or rows are bad: they
        are named by line number.
    """
    path = Path(path)
    check_regular(path, "a .csv list")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        table = max((_cut(text, delimiter) for delimiter in _DELIMITERS), key=lambda table: _fit(table, path.parent))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as CSV ({error}); save it as UTF-8 with columns path, group"
        ) from error
    if table.path_column is not None and table.group_column is not None:
        path_column, group_column, lines = table.path_column, table.group_column, table.lines[1:]
    else:
        path_column, group_column, lines = 0, 1, table.lines
        _refuse_unknown_header(path, table)
    rows = []
    for line, cells in lines:
        padded = [*cells, *[""] * (max(path_column, group_column) + 1 - len(cells))]
        rows.append((f"line {line}", _locate(path.parent, padded[path_column]), padded[group_column]))
    return groups_from_labelled(rows, str(path))


def _cut(text: str, delimiter: str) -> _Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    lines = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    names = [cell.strip().casefold() for cell in lines[0][1]] if lines else []
    return _Table(lines, _first_of(names, _PATHS), _first_of(names, _GROUPS))


def _first_of(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _fit(table: _Table, folder: Path) -> tuple[bool, bool, bool, bool, bool]:
    """How well a delimiter fits; of equals the first is taken, a comma."""
    widths = {len(cells) for _, cells in table.lines}
    is_wide = bool(widths) and min(widths) >= 2
    cells = table.lines[-1][1] if table.lines else [""]
    column = table.path_column if table.has_header and table.path_column is not None else 0
    is_there = column < len(cells) and _is_file(_locate(folder, cells[column]))
    return table.has_header, is_wide and len(widths) == 1, is_wide, max(widths, default=0) > 1, is_there


def _locate(folder: Path, cell: str) -> str:
    """Path of an image: the cell as it is where there is such a file, else without the spaces around it."""
    if cell != cell.strip() and _is_file(str(folder / cell)):
        return str(folder / cell)
    return str(folder / cell.strip()) if cell.strip() else ""


def _is_file(path: str) -> bool:
    return bool(path) and "\x00" not in path and os.path.isfile(path)  # noqa: PTH113 - Path() would drop a last slash


def _refuse_unknown_header(path: Path, table: _Table) -> None:
    """A first line that names no file and has no suffix of pictures is a header in somebody's own words."""
    if not table.lines:
        return
    line, cells = table.lines[0]
    first = _locate(path.parent, cells[0])
    is_header = PurePosixPath(first).suffix.lower() not in PICTURE_SUFFIXES and not os.path.lexists(first)
    if is_header and cells[0].strip() and len(cells) > 1 and "\x00" not in first:
        shown = ",".join(cells)
        raise DataError(
            f"{path}: line {line} {shown!r} names no image, and is no header with one of {', '.join(_PATHS)} and one "
            f"of {', '.join(_GROUPS)}; name the columns path and group"
        )
