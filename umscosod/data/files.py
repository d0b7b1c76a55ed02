"""Files written whole or not at all."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from umscosod.errors import DataError

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
        raise DataError(f"cannot write {path}: {error.strerror or error}; check the folder and the disk") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


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
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names if is_leftover(name)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise DataError(f"cannot remove {path}: {error.strerror}; check the folder's owner") from error


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
