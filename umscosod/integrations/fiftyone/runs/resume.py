"""What a killed or stopped call left: the same call goes on with it, another one says what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umscosod.errors import DataError, OtherResultsError
from umscosod.integrations.fiftyone.runs.parts import Part, PartState, has_results, list_parts, set_state

if TYPE_CHECKING:
    from umscosod.integrations.fiftyone.runs.jobs import Job


def resume_part(folder: Path, run_id: str, job: Job, do: Callable[[Part], None]) -> Part | None:
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


def unfinished_part(folder: Path, run_id: str, job: Job) -> Part | None:
    """Find the part that an interrupted call left.

    Raises
    ------
    DataError
        It was begun with other settings and has finished something, and this call does not overwrite.
    """
    for part in list_parts(folder):
        if part.run_id != run_id or part.state is not PartState.RUNNING:
            continue
        differences = list(_differences(part.settings, job.settings))
        if not differences and (part.replaces or not job.overwrite):
            return part
        if not job.overwrite and has_results(part):
            raise DataError(
                f"the run {job.key!r} was interrupted, with other settings: {'; '.join(differences)}. "
                "Use those again to finish it, or overwrite to start anew"
            )
        set_state(part, PartState.SUPERSEDED)
    return None


def _differences(before: Any, now: Any, name: str = "") -> Iterable[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name.removeprefix('config.')} was {before!r}, now {now!r}"
