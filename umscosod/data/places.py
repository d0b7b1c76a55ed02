"""Folders that this program wrote: how they are recognised, and where new ones may not lie."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from umscosod.data.files import LONGEST, LONGEST_PATH, read_json
from umscosod.errors import DataError

OWN_FOLDERS = ("masks", "maps", "thumbs", "run")
"""Folders of a job's results; what the record lists of them is what ``overwrite`` removes."""
OWN_FILES = ("report.json", "index.html")
GUARDED = (*OWN_FOLDERS, "pseudo", *OWN_FILES)
"""What must not be there when a job begins, unless an earlier job left it. ``pseudo`` is rewritten file by file, as a
person may have put masks there."""
JOB_FILE = Path("run", "job.json")
EXPORT_FILE = "export.json"
_SHOWN = 100  # letters of a name that is too long
_TILES = ("image", "pseudo", "map", "mask")
_COMPLETE = frozenset({"report.json", "index.html", "masks"})
_ARTICLES = {"job": "a job", "export": "an export", "bench": "a bench"}
_BENCH = frozenset({"bench.json", "bench.md", "index.html"})


def real_path(path: str | os.PathLike[str]) -> Path:
    """Absolute path without links; one that leads nowhere or round in a circle, or has a NUL, stays as it is.

    ``Path.resolve`` raises a RuntimeError on a circle.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        return Path(os.path.abspath(path))  # noqa: PTH100 - without a look at the disk


def is_results(folder: Path) -> bool:
    """Whether a folder holds results of this program, and so is not searched for images: see `kind_of_results`."""
    return bool(kind_of_results(folder))


def kind_of_results(folder: Path) -> str:
    """What a folder holds of this program's: ``"job"``, finished or not, ``"export"``, ``"bench"``; ``""`` if nothing.

    A damaged ``run/job.json`` counts too; one that is plainly another program's does not.
    """
    names = _names_in(folder)
    if names >= _COMPLETE or ("run" in names and _is_job(folder / JOB_FILE)):
        return "job"
    if EXPORT_FILE in names and _is_export(folder):
        return "export"
    return "bench" if names >= _BENCH else ""


def is_job_record(content: object) -> bool:
    """Whether this is what ``run/job.json`` holds."""
    return isinstance(content, dict) and all(isinstance(content.get(name), dict) for name in ("settings", "bound"))


def thumb_names(output: str) -> tuple[str, ...]:
    """Names of the small pictures that the contact sheet may have of an output, below the output folder."""
    return tuple(PurePosixPath("thumbs", tile, output).with_suffix(".jpg").as_posix() for tile in _TILES)


def check_place(out: str | os.PathLike[str], kind: str = "", what: str = "--out") -> None:
    """Refuse a place for results that cannot be a folder, or lies among the results of this program.

    Parameters
    ----------
    out : path
        Need not exist.
    kind : str
        What is to lie there; see `kind_of_results`.
    what : str
        How the user calls it.

    Raises
    ------
    DataError
        It is empty, has a NUL, is a file or lies below one, is a link that leads round in a circle, holds results of
        another kind, or lies in the folders that an earlier job or export writes.
    """
    name = os.fspath(out)
    if not name:
        raise DataError(f"{what} '' is empty; name a folder")
    if "\x00" in name:
        raise DataError(f"{what} {name!r} has a NUL; choose another name")
    if len(os.fsencode(name)) > LONGEST_PATH:
        raise DataError(f"{what} {name[:_SHOWN]}... has {len(os.fsencode(name))} bytes; choose a shorter name")
    for path in (Path(name), *Path(name).parents):
        if len(os.fsencode(path.name)) > LONGEST:
            raise DataError(f"{what} {name} has a part of more than {LONGEST} bytes; choose a shorter name")
        if os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises on some names
            found = "a link that leads to no folder" if path.is_symlink() else "a file, not a folder"
            raise DataError(f"{what} {name}: {path} is {found}; choose another {what}")
    present = kind_of_results(Path(name))
    if kind and present not in ("", kind):
        raise DataError(f"{what} {name} holds the results of {_ARTICLES[present]}; choose another {what}")
    real = real_path(name)
    for parent in real.parents:
        below = real.relative_to(parent).parts[0]
        if (below in GUARDED and _is_job(parent / JOB_FILE)) or _is_export(parent):
            raise DataError(f"{what} {name} lies among the results in {parent}; choose another {what}")


def _names_in(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as found:
            return frozenset(entry.name for entry in found)
    except OSError:  # the walk that lists the folder next says so
        return frozenset()


def _is_job(file: Path) -> bool:
    content = _read(file)
    return content is _DAMAGED or is_job_record(content)


def _is_export(folder: Path) -> bool:
    content = _read(folder / EXPORT_FILE)
    return isinstance(content, dict) and isinstance(content.get("files"), list) and "format" in content


_DAMAGED = object()


def _read(file: Path) -> Any:
    """Content of a JSON file; None where there is no such file."""
    if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises where a folder may not be looked into
        return None
    try:
        return read_json(file)
    except DataError:
        return _DAMAGED
