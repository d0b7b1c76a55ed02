"""Where the files of a data set lie: beside FiftyOne's own, one folder a data set, one a run."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def safe_name(name: str) -> str:
    """Make a folder name of a data set's name: what had to be changed is told apart by a hash.

    Examples
    --------
    >>> safe_name("birds-2024")
    'birds-2024'
    >>> safe_name("birds of Chile") != safe_name("birds/of/Chile")
    True
    """
    plain = _UNSAFE.sub("-", name).strip(".-")
    if plain == name:
        return name
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}".lstrip("-")


def dataset_folder(dataset: Any) -> Path:
    """Folder for everything written for a data set; not made here.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset

    Returns
    -------
    Path
        ``<default_dataset_dir>/umscosod/<name>``, with FiftyOne's own setting of that folder.
    """
    import fiftyone as fo

    return Path(str(fo.config.default_dataset_dir)).expanduser() / "umscosod" / safe_name(dataset.name)


def run_folder(dataset: Any, key: str) -> Path:
    """Folder of a run that was given none; not made here."""
    return dataset_folder(dataset) / "runs" / key


def review_folder(dataset: Any) -> Path:
    """Folder of the masks that a person accepted: apart from the runs, whose files go when they are deleted."""
    return dataset_folder(dataset) / "reviewed"
