"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from umscosod.errors import DataError, reason_of

LONGEST = 255
"""Bytes that ext4, APFS and most other file systems allow the name of a file or folder."""
LONGEST_PATH = 4000
"""Bytes of a whole path that Linux surely takes (4095), with room for the name of a temporary file beside it."""
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside it; it takes its own name when the block ends well.

    Parent folders are made. A reader, or a run that is killed half-way, never sees part of a file. When the block
    raises, what was there before stays.

    Yields
    ------
    binary file, open for writing

    Raises
    ------
    DataError
        The folder or file cannot be written.
    """
    # not derived from the file's own name, which may already be as long as the file system allows
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            yield stream
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {reason_of(error)}; check the folder and the disk") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def why_unreadable(path: Path) -> str:
    """Why a path is no file to be read, in the system's words; empty where it is: a FIFO or a device is waited for."""
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:
        return reason_of(error)
    return "" if is_regular else "not a regular file"


def read_json(file: Path, max_bytes: int | None = None) -> Any:
    """Read a JSON file of ours, whatever has become of it; what the content means is the caller's.

    Parameters
    ----------
    file : Path
    max_bytes : int, optional
        A longer file is damaged.

    Raises
    ------
    DataError
        The file is missing, no regular file, too long, or no JSON: binary, torn, nested too deeply, with a number of
        thousands of digits. The message says which file and why; what to do depends on the file.
    """
    if reason := why_unreadable(file):
        raise DataError(f"{file} cannot be read: {reason}")
    try:
        if max_bytes is not None and file.stat().st_size > max_bytes:
            raise ValueError(f"it has more than {max_bytes >> 20} MiB")
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is damaged ({describe_damage(error)})") from error


def is_leftover(name: str) -> bool:
    """Whether a file name is one that `open_atomic` writes under.

    Examples
    --------
    >>> is_leftover(".0123456789abcdef0123456789abcdef.tmp"), is_leftover("notes.tmp")
    (True, False)
    """
    return _TEMPORARY.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed writers left in a folder and below it; links are not followed.

    Nobody may be writing there meanwhile. A folder that does not exist has none.

    Raises
    ------
    DataError
        A file may not be removed.
    """
    waiting = [] if folder.is_symlink() else [folder]
    while waiting:  # os.walk is recursive, and folders may nest deeply
        try:
            with os.scandir(waiting.pop()) as found:
                entries = list(found)
        except OSError:  # missing, or not ours to look into
            continue
        waiting += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        files = [Path(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False)]
        for path in (path for path in files if is_leftover(path.name)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise DataError(f"cannot remove {path}: {error.strerror}; check the folder's owner") from error


def remove_listed(folder: Path, names: Iterable[str]) -> None:
    """Remove files of a folder by their relative POSIX names, and folders that are empty then.

    Never through a link below `folder`, which may be one itself: a linked folder on the way is left alone with all that
    lies in it; a link in the place of a file goes, its target stays. What is missing, or is a folder, is passed over.

    Raises
    ------
    OSError
        A file may not be removed.
    """
    is_link: dict[Path, bool] = {}
    for name in names:
        path = folder / name
        between = [folder / parent for parent in PurePosixPath(name).parents if parent.name]
        is_link |= {parent: parent.is_symlink() for parent in between if parent not in is_link}
        if not any(is_link[parent] for parent in between) and (path.is_symlink() or path.is_file()):
            path.unlink(missing_ok=True)
    for parent in sorted(is_link, key=lambda path: len(path.parts), reverse=True):
        is_linked = any(is_link.get(above, False) for above in (parent, *parent.parents))
        if not is_linked and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()


def describe_damage(error: Exception) -> str:
    """Say what is wrong with a JSON file, by what its reader raised, without Python's own advice.

    Examples
    --------
    >>> describe_damage(KeyError("schema")), describe_damage(RecursionError("maximum recursion depth exceeded"))
    ("it lacks 'schema'", 'it is nested too deeply')
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return str(error).partition("; use sys.")[0]  # on integers of thousands of digits
