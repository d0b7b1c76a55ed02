"""Parts: the batches of samples that a run was asked for, each frozen before any work, each an output folder.

``RUN/part-001.json`` says which samples and groups, with which settings, and how far it came; ``RUN/part-001/`` is an
output folder of the pipeline. An interrupted part is finished by the next call with the samples it began with,
whatever has been added to the data set since; samples that came later are a part of their own.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from umscosod.data.files import open_atomic
from umscosod.data.lock import lock_folder
from umscosod.errors import DataError
from umscosod.types import ImageGroup, ImageRef

SCHEMA = 1
_NAME = re.compile(r"part-(\d+)\.json")
_CONTENTS = ("masks", "maps", "pseudo", "labels", "thumbs", "run", "report.json", "index.html", "detections.json")


class PartState(StrEnum):
    """How far a part came."""

    RUNNING = "running"
    COMPLETE = "complete"
    SUPERSEDED = "superseded"
    """Given up for a newer part; its files go once no label points to them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One batch of samples.

    Attributes
    ----------
    file : Path
        Its record.
    run_id : str
        Of the run it belongs to.
    state : PartState
    settings : dict
        What decides the result: verb and configuration.
    groups : tuple of ImageGroup
        An image's id is its sample's.
    writes : frozenset of str
        Ids of the samples that get labels; the others only take part in their group.
    replaces : bool
        Whether labels that are there are replaced.
    """

    file: Path
    run_id: str
    state: PartState
    settings: dict[str, Any]
    groups: tuple[ImageGroup, ...]
    writes: frozenset[str]
    replaces: bool = False

    @property
    def folder(self) -> Path:
        """Output folder of the pipeline."""
        return self.file.with_suffix("")

    @property
    def sample_ids(self) -> list[str]:
        """All samples of its groups."""
        return [image.id for group in self.groups for image in group.images]


@contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Keep other calls from working on a run; its folder goes again if nothing came of it.

    Raises
    ------
    DataError
        Another process, or an earlier click, is at work there.
    """
    with lock_folder(folder):
        try:
            yield
        finally:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def list_parts(folder: Path) -> list[Part]:
    """Parts of a run's folder in the order they were begun; none if there is no folder.

    Raises
    ------
    DataError
        A record is damaged.
    """
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return [_read(path) for path in sorted(files, key=_number)]


def next_part_file(folder: Path) -> Path:
    """Record that the next part of a folder will have."""
    number = 1 + max((_number(part.file) for part in list_parts(folder)), default=0)
    return folder / f"part-{number:03d}.json"


def add_part(
    folder: Path,
    run_id: str,
    settings: Mapping[str, Any],
    groups: Sequence[ImageGroup],
    writes: frozenset[str],
    *,
    replaces: bool = False,
) -> Part:
    """Freeze a new part: its record is on disk when this returns."""
    part = Part(
        file=next_part_file(folder),
        run_id=run_id,
        state=PartState.RUNNING,
        settings=json.loads(json.dumps(dict(settings))),
        groups=tuple(groups),
        writes=writes,
        replaces=replaces,
    )
    _write(part)
    return part


def set_state(part: Part, state: PartState) -> Part:
    """Record how far a part came."""
    part = replace(part, state=state)
    _write(part)
    return part


def remove_part(part: Part) -> None:
    """Remove what the part wrote, then its record; other files in its folder stay, and the folder with them.

    Raises
    ------
    DataError
        A file cannot be removed.
    """
    try:
        for name in _CONTENTS:
            path = part.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if part.folder.is_dir() and not any(part.folder.iterdir()):
            part.folder.rmdir()
        part.file.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot remove {error.filename or part.folder}: {error.strerror}; check its owner") from error


def _number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found.group(1)) if found else 0


def _write(part: Part) -> None:
    content = {
        "schema": SCHEMA,
        "run_id": part.run_id,
        "state": part.state.value,
        "settings": part.settings,
        "groups": [
            [group.name, [[image.id, str(image.path), image.output] for image in group.images]] for group in part.groups
        ],
        "writes": sorted(part.writes),
        "replaces": part.replaces,
    }
    with open_atomic(part.file) as stream:
        stream.write(json.dumps(content).encode("utf-8", "surrogateescape"))


def _read(file: Path) -> Part:
    try:
        content = json.loads(file.read_bytes().decode("utf-8", "surrogateescape"))
        groups = tuple(
            ImageGroup(
                name=name,
                images=tuple(ImageRef(id=id_, path=Path(path), output=output) for id_, path, output in images),
            )
            for name, images in content["groups"]
        )
        return Part(
            file=file,
            run_id=content["run_id"],
            state=PartState(content["state"]),
            settings=content["settings"],
            groups=groups,
            writes=frozenset(content["writes"]),
            replaces=content["replaces"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}); restore it, or delete the run and label again") from error
