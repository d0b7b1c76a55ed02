"""Manages parts: batches of samples of a run, each fixed before any work, each with an output folder.

``RUN/part-001.json`` holds samples, groups, settings and progress; ``RUN/part-001/`` is an output folder of the
pipeline. The next call finishes an interrupted part with the samples of the part. Samples added to the data set since
form a new part.
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
from typing import TYPE_CHECKING, Any

from umscosod.config.io import iter_differences
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

if TYPE_CHECKING:
    from umscosod.integrations.fiftyone.runs.jobs import Job

logger = logging.getLogger(__name__)

SCHEMA = 1
_NAME = re.compile(r"part-\d+\.json")
NOTE_FILE = "progress.json"
"""File in a part's folder: the progress of its work; see `umscosod.integrations.fiftyone.runs.record`."""
_RESULTS = ("groups/*", "maps/*", "pseudo-done", "checkpoints/*", "round-*/checkpoints/*")
_BY_CALL = (NOTE_FILE, "detections.json", "labels/manifest.jsonl", "labels/sources.json")
_BY_JOB = ("report.json", "index.html", "pseudo/manifest.jsonl")


class PartState(StrEnum):
    """Progress of a part."""

    RUNNING = "running"
    COMPLETE = "complete"
    SUPERSEDED = "superseded"
    """Replaced by a newer part; its files are removed when no label points to them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One batch of samples.

    Attributes
    ----------
    file : Path
        The record.
    run_id : str
        The run of the part.
    state : PartState
    settings : dict
        Verb and configuration, which determine the result.
    groups : tuple of ImageGroup
        The id of an image is the id of its sample.
    writes : frozenset of str
        Ids of the samples that get labels; the others only help their group.
    replaces : bool
        Whether existing labels are replaced.
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
        """The pipeline's output folder."""
        return self.file.with_suffix("")

    @property
    def sample_ids(self) -> list[str]:
        """The ids of all samples in its groups."""
        return [image.id for group in self.groups for image in group.images]


@contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Lock a run against other calls; remove its folder if the call wrote nothing.

    Raises
    ------
    DataError
        Another process, or an earlier click, is working there.
    """
    with lock_folder(folder):
        try:
            yield
        finally:
            if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                folder.rmdir()


def list_parts(folder: Path, run_id: str | None = None) -> list[Part]:
    """Return the parts in a folder, the oldest first, of one run if `run_id` is given; none if there is no folder.

    Raises
    ------
    DataError
        A record is damaged.
    """
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    parts = [_read(path) for path in sorted(files, key=_number)]
    return [part for part in parts if run_id in (None, part.run_id)]


def next_part_file(folder: Path) -> Path:
    """Return the record of the next part of a folder; an existing folder without a record is not ours."""
    number = 1 + max((_number(part.file) for part in list_parts(folder)), default=0)
    while os.path.lexists(folder / f"part-{number:03d}"):
        number += 1
    return folder / f"part-{number:03d}.json"


@contextmanager
def stage_part(folder: Path) -> Iterator[Path]:
    """Provide a folder for a part's content before the part exists; remove those that killed calls left.

    Raises
    ------
    DataError
        The folder cannot be made.
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
    """Fix a new part: when this returns, its record is on disk and `content` is its folder."""
    file = next_part_file(folder)
    if content is not None:
        content.rename(file.with_suffix(""))
    part = Part(
        file=file,
        run_id=run_id,
        state=PartState.RUNNING,
        settings=dict(settings),
        groups=tuple(groups),
        writes=writes,
        replaces=replaces,
    )
    _write(part)
    return part


def resume_part(folder: Path, run_id: str, job: Job, do: Callable[[Part], None]) -> Part | None:
    """Finish an interrupted part.

    Returns
    -------
    Part or None
        None if there is no part. Also None if its images have changed, and either the call overwrites or the part has
        no finished results: then the part is discarded.

    Raises
    ------
    DataError
        Settings or images have changed, the part has finished results, and the call does not overwrite.
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


def unfinished_part(folder: Path, run_id: str, job: Job) -> Part | None:
    """Find the part of an interrupted call.

    Raises
    ------
    DataError
        The part has other settings and finished results, and this call does not overwrite.
    """
    for part in list_parts(folder, run_id):
        if part.state is not PartState.RUNNING:
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
    """Whether the part has results that a later call can use: pseudo-labels, a network, maps or masks."""
    run = part.folder / JOB_FILE.parent
    patterns = _RESULTS if (part.folder / JOB_FILE).is_file() else ("../masks/*",)  # an import has no job
    found = (path for pattern in patterns for path in run.parent.glob(f"{run.name}/{pattern}"))
    return any(not path.name.startswith(".") for path in found)


def set_state(part: Part, state: PartState) -> Part:
    """Record the state of a part."""
    part = replace(part, state=state)
    _write(part)
    return part


def remove_part(part: Part) -> None:
    """Remove the files of the part, then its record; other files stay, and the folder with them.

    Nothing is removed through a link: if a link has replaced a folder, its contents stay.

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
    """Yield all file names that the part may have written; none if its job has not yet claimed the folder."""
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
    return int(path.stem.removeprefix("part-"))


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
