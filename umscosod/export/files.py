"""Files of a run lie inside the output folder only."""

from __future__ import annotations

import os
from pathlib import Path

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
