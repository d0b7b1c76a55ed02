"""Files below a folder, links followed: each in a stable order, never in a circle, never without an end."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from umscosod.data.places import real_path
from umscosod.errors import DataError, reason_of

logger = logging.getLogger(__name__)

MAX_ENTRIES = 1_000_000
"""Names looked at before a walk gives up: a whole disk, or links that multiply."""

_Ids = frozenset[tuple[int, int]]


def walk_files(root: Path) -> Iterator[Path]:
    """List what is below a folder and is no folder, by name, folder by folder.

    Names that start with a dot are passed over. Linked folders are followed, bar those that lead back to a folder on
    the way to them. Images to be labelled are found by `umscosod.data.folders.iter_images` instead: that walk knows
    layouts, results and names that are no data, and takes a folder once however many links lead to it.

    Parameters
    ----------
    root : Path

    Yields
    ------
    Path
        `root` and a name below it; not always a regular file.

    Raises
    ------
    DataError
        `root` cannot be listed, or more than `MAX_ENTRIES` names are below it. (A folder further down that cannot be
        listed is named in the log.)
    """
    home = real_path(root)
    try:
        above = [folder.stat() for folder in (home, *home.parents)]
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({reason_of(error)}); check the path") from error
    waiting: list[tuple[Path, _Ids]] = [(root, frozenset((one.st_dev, one.st_ino) for one in above))]
    seen = 0
    while waiting:
        folder, on_the_way = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted((one for one in found if not one.name.startswith(".")), key=lambda one: one.name)
        except OSError as error:
            message = f"{folder}: cannot be listed ({reason_of(error)}); check its permissions"
            if folder == root:
                raise DataError(message) from error
            logger.warning("%s; its files are left out", message)
            continue
        seen += len(entries)
        if seen > MAX_ENTRIES:
            raise DataError(f"{root}: more than {MAX_ENTRIES} files are below it; give the folder of the results alone")
        below = []
        for entry in entries:
            identity = _identify(entry)
            if identity is None:
                yield folder / entry.name
            elif identity not in on_the_way:
                below.append((folder / entry.name, on_the_way | {identity}))
        waiting += reversed(below)


def _identify(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """Device and number of a folder, linked or not; None for what is no folder, or a link that leads nowhere."""
    try:
        if not entry.is_dir():
            return None
        status = entry.stat()
    except OSError:  # a link to itself
        return None
    return status.st_dev, status.st_ino
