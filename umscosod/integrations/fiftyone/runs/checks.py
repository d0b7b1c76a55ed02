"""What a run would refuse, said while its form is filled: quick, and torch is imported for GPUs only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from umscosod.data.places import check_place, real_path
from umscosod.device import check_device as check_device
from umscosod.errors import DataError
from umscosod.features.weights_check import check_weights_file as check_weights_file
from umscosod.integrations.fiftyone.runs.record import find_run

_SHOWN = 3
_OURS = re.compile(r"part-\d+(\.json)?")


def check_out_dir(dataset: Any, key: str, out_dir: str) -> None:
    """Refuse a folder that cannot take a run's files.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    key : str
        Name of the run, which may be there already and then keeps its folder.
    out_dir : str

    Raises
    ------
    DataError
        No folder can be there, the run's files lie elsewhere, or nothing can be written.
    """
    place = check_folder(out_dir)
    present = find_run(dataset, key) if key.isidentifier() else None
    if present is not None and place != Path(present.folder):
        raise DataError(f"the run {key!r} keeps its files in {present.folder}; leave out the folder")


def check_folder(folder: str, kind: str = "") -> Path:
    """Give the real path of a folder that can be made and written in; the `kind` as in `check_place`.

    Raises
    ------
    DataError
    """
    given = os.path.expanduser(folder)  # noqa: PTH111 - as `folder_of` does
    check_place(given, kind, what="folder")
    place = real_path(given)
    there = next(path for path in (place, *place.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise DataError(f"folder {folder}: nothing can be written in {there}; choose another, or change its owner")
    return place


def foreign_files(out_dir: str) -> list[str]:
    """Names of what no run wrote into a folder, at most three; a run leaves it alone and writes beside it."""
    folder = real_path(os.path.expanduser(out_dir))  # noqa: PTH111
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return [name for name in names if _OURS.fullmatch(name) is None][:_SHOWN]
