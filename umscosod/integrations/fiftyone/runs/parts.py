"""Parts: the batches of samples that a run was asked for, each frozen before any work, each an output folder.

``RUN/part-001.json`` says which samples and groups, with which settings, and how far it came; ``RUN/part-001/`` is an
output folder of the pipeline. An interrupted part is finished by the next call with the samples it began with,
whatever has been added to the data set since; samples that came later are a part of their own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from umscosod.config.removed import iter_differences
from umscosod.data.files import (
    JOB_FILE,
    describe_damage,
    is_leftover,
    lock_folder,
    open_atomic,
    read_json,
    real_path,
    remove_listed,
    thumb_names,
)
from umscosod.errors import DataError, OtherResultsError, reason_of
from umscosod.types import NAMES, ImageGroup, ImageRef

logger = logging.getLogger(__name__)

SCHEMA = 1
_NAME = re.compile(r"part-(\d+)\.json")
NOTE_FILE = "progress.json"
"""In a part's folder: how far its work is; see `umscosod.integrations.fiftyone.runs.record`."""
_RESULTS = ("groups/*", "maps/*", "pseudo-done", "checkpoints/*", "round-*/checkpoints/*")
_BY_CALL = (NOTE_FILE, "detections.json", "labels/manifest.jsonl", "labels/sources.json")
_BY_JOB = ("report.json", "index.html", "pseudo/manifest.jsonl")


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
            if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
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
    """Record that the next part of a folder will have; a folder that is there already is somebody else's."""
    number = 1 + max((_number(part.file) for part in list_parts(folder)), default=0)
    while os.path.lexists(folder / f"part-{number:03d}"):
        number += 1
    return folder / f"part-{number:03d}.json"


@contextmanager
def stage_part(folder: Path) -> Iterator[Path]:
    """Folder to make a part's content in before there is a part; what killed calls left of such goes.

    Raises
    ------
    DataError
        It cannot be made.
    """
    staging = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        for left in [path for path in folder.iterdir() if is_leftover(path.name)] if folder.is_dir() else []:
            _remove_tree(left)
        staging.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {reason_of(error)}; check the folder and the disk") from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def add_part(
    folder: Path,
    run_id: str,
    settings: Mapping[str, Any],
    groups: Sequence[ImageGroup],
    writes: frozenset[str],
    *,
    replaces: bool = False,
    content: Path | None = None,
) -> Part:
    """Freeze a new part: its record is on disk when this returns, and `content` is its folder."""
    file = next_part_file(folder)
    if content is not None:
        content.rename(file.with_suffix(""))
    part = Part(
        file=file,
        run_id=run_id,
        state=PartState.RUNNING,
        settings=json.loads(json.dumps(dict(settings))),
        groups=tuple(groups),
        writes=writes,
        replaces=replaces,
    )
    _write(part)
    return part


class Call(Protocol):
    """What a call asks for, as far as an interrupted part is concerned."""

    @property
    def key(self) -> str:
        """Name of the run."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The verb and its arguments, the configuration among them."""

    @property
    def overwrite(self) -> bool:
        """Whether labels that are there are replaced."""


def resume_part(folder: Path, run_id: str, job: Call, do: Callable[[Part], None]) -> Part | None:
    """Do what is left of an interrupted part.

    Returns
    -------
    Part or None
        None if there is none, or if its images have changed since and the call overwrites or nothing of it was
        finished: then it is given up.

    Raises
    ------
    DataError
        Settings or images have changed, something was finished, and the call does not overwrite.
    """
    part = unfinished_part(folder, run_id, job)
    if part is None:
        return None
    is_free = job.overwrite or not has_results(part)
    try:
        do(part)
    except OtherResultsError as error:
        if not is_free:
            raise DataError(
                f"the run {job.key!r} was interrupted, and its images, labels, detections or weights have changed "
                "since; overwrite to start anew"
            ) from error
        set_state(part, PartState.SUPERSEDED)
        return None
    return part


def unfinished_part(folder: Path, run_id: str, job: Call) -> Part | None:
    """Find the part that an interrupted call left.

    Raises
    ------
    DataError
        It was begun with other settings and has finished something, and this call does not overwrite.
    """
    for part in list_parts(folder):
        if part.run_id != run_id or part.state is not PartState.RUNNING:
            continue
        differences = [
            f"{name.removeprefix('config.')} was {before!r}, now {now!r}"
            for name, before, now in iter_differences(part.settings, job.settings)
        ]
        if not differences and (part.replaces or not job.overwrite):
            return part
        if not job.overwrite and has_results(part):
            raise DataError(
                f"the run {job.key!r} was interrupted, with other settings: {'; '.join(differences)}. "
                "Use those again to finish it, or overwrite to start anew"
            )
        set_state(part, PartState.SUPERSEDED)
    return None


def has_results(part: Part) -> bool:
    """Whether anything was finished that a later call would go on from: pseudo-labels, a network, maps or masks."""
    run = part.folder / JOB_FILE.parent
    patterns = _RESULTS if (part.folder / JOB_FILE).is_file() else ("../masks/*",)  # an import has no job
    found = (path for pattern in patterns for path in run.parent.glob(f"{run.name}/{pattern}"))
    return any(not path.name.startswith(".") for path in found)


def set_state(part: Part, state: PartState) -> Part:
    """Record how far a part came."""
    part = replace(part, state=state)
    _write(part)
    return part


def remove_part(part: Part) -> None:
    """Remove what the part wrote, then its record; other files in its folder stay, and the folder with them.

    Never through a link: where a linked folder has taken the place of one, what lies in it stays.

    Raises
    ------
    DataError
        A file cannot be removed.
    """
    try:
        if part.folder.is_symlink():
            logger.warning("%s is a link: what lies in %s stays", part.folder, real_path(part.folder))
        else:
            remove_listed(part.folder, _written_by(part))
            if (part.folder / JOB_FILE).is_file():
                _remove_tree(part.folder / "run")
            if part.folder.is_dir() and not any(part.folder.iterdir()):
                part.folder.rmdir()
        part.file.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot remove {error.filename or part.folder}: {error.strerror}; check its owner") from error


def _written_by(part: Part) -> Iterator[str]:
    """Names of all files that the part may have written; of a job none before it had claimed the folder."""
    outputs = [image.output for group in part.groups for image in group.images]
    yield from (*_BY_CALL, *(f"labels/{output}" for output in outputs))
    if part.settings.get("verb") == "import" or (part.folder / JOB_FILE).is_file():
        yield from (*_BY_JOB, *(f"{tree}/{output}" for tree in ("masks", "maps", "pseudo") for output in outputs))
        for output in outputs:
            yield from thumb_names(output)


def _remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
        stream.write(json.dumps(content).encode("utf-8", NAMES))


def _read(file: Path) -> Part:
    advice = "restore it, or move it away with its folder"
    try:
        content = read_json(file)
    except DataError as error:
        raise DataError(f"{error}; {advice}") from error
    try:
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
            settings=dict(content["settings"]),
            groups=groups,
            writes=frozenset(content["writes"]),
            replaces=content["replaces"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged ({describe_damage(error)}); {advice}") from error
