"""Groups as a CSV list that every command takes for IMAGES."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from umscosod.data.files import open_atomic
from umscosod.data.places import check_place
from umscosod.errors import DataError
from umscosod.types import ImageGroup


def write_groups_csv(groups: Sequence[ImageGroup], path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the columns ``path`` and ``group``, which `umscosod.data.csv_list.groups_from_csv` reads.

    Parameters
    ----------
    groups : sequence of ImageGroup
    path : path
        UTF-8. Images in its folder or below are named relative to it, so that both can be moved together; others by
        their absolute path.
    overwrite : bool
        Replace a file that is there: a person may have corrected it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DataError
        The file is there, cannot be written, or an image's name is no text that UTF-8 can hold.
    """
    check_listable(groups, path)
    path = Path(path).expanduser()
    check_place(path.parent)
    if path.exists() and not overwrite:
        raise DataError(f"{path} is there, and may hold somebody's corrections; choose another name, or overwrite it")
    home = path.resolve().parent
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    careful = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(("path", "group"))
    for group in groups:
        for image in group.images:
            row = (_name_from(home, image.path), group.name)
            # a carriage return ends a line for readers too, and only line feeds are quoted without being told
            (careful if any("\r" in value for value in row) else writer).writerow(row)
    with open_atomic(path) as file:
        file.write(text.getvalue().encode())
    return path


def check_listable(groups: Sequence[ImageGroup], path: str | os.PathLike[str]) -> None:
    """Refuse images whose names no list at `path` can hold: ask before the work, not only after it.

    Raises
    ------
    DataError
        A name is not valid UTF-8. Of how many, and one of them, is said.
    """
    home = Path(path).expanduser().resolve().parent
    names = [_name_from(home, image.path) for group in groups for image in group.images]
    unfit = [name for name in names if any("\udc80" <= letter <= "\udcff" for letter in name)]
    if unfit:
        raise DataError(
            f"{path}: a list is UTF-8, and {len(unfit)} names of images are not valid UTF-8, such as {unfit[0]!r}; "
            "rename the files or their folders"
        )


def _name_from(home: Path, image: Path) -> str:
    absolute = Path(os.path.abspath(image))  # noqa: PTH100 - resolve() would rename linked files
    return absolute.relative_to(home).as_posix() if absolute.is_relative_to(home) else absolute.as_posix()
