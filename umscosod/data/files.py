"""Files written whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from umscosod.errors import DataError


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
