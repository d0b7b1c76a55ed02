"""Files of a run: inside the output folder only, and written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from umscosod.errors import DataError
from umscosod.types import check_relative


def path_inside(root: str | os.PathLike[str], name: str) -> Path:
    """Path of an output, after checking that it lies below the output folder.

    Parameters
    ----------
    root : path
        The output folder; need not exist yet.
    name : str
        Relative POSIX path, such as ``"masks/cat/0007.png"``.

    Raises
    ------
    DataError
        `name` is absolute or climbs out, or a linked folder on the way leads out.

    Examples
    --------
    >>> path_inside("out", "masks/cat/7.png").as_posix()
    'out/masks/cat/7.png'
    """
    check_relative(name, "output name")
    path = Path(root, name)
    try:
        outside = not path.parent.resolve().is_relative_to(Path(root).resolve())
    except (OSError, RuntimeError) as error:  # a loop of links
        raise DataError(f"{path}: cannot be resolved ({error}); remove the link") from error
    if outside:
        raise DataError(
            f"{path}: a link on the way leads out of the output folder {root}; remove it or choose another folder"
        )
    return path


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
