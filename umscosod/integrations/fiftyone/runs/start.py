"""Starts a run: checks everything before the run is registered, and unregisters a run that has no results."""

from __future__ import annotations

import os
import re
import uuid
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umscosod.config.io import config_to_dict
from umscosod.data.files import check_place, real_path
from umscosod.device import check_device as check_device
from umscosod.engine import Engine, RayEngine
from umscosod.errors import DataError, count_of
from umscosod.export.report import package_versions
from umscosod.features.store import check_weights_file as check_weights_file
from umscosod.integrations.fiftyone.runs.fields import every_sample, field_names, run_folder
from umscosod.integrations.fiftyone.runs.parts import PartState, has_results, list_parts, stage_part
from umscosod.integrations.fiftyone.runs.record import RUNNING, begin_run, delete_run, find_run

if TYPE_CHECKING:
    from umscosod.integrations.fiftyone.runs.jobs import Job
    from umscosod.integrations.fiftyone.runs.record import CoSalRunConfig


RAY = "ray"
"""In the place of an engine: a Ray of this machine."""


def open_engine(chosen: Engine | str | None) -> AbstractContextManager[Engine | None]:
    """Give what does the work, for the length of a ``with`` block.

    Parameters
    ----------
    chosen : Engine or str or None
        An engine is left open. ``"ray"``: a Ray of this machine, started at the first piece of work. Another text: the
        address of a cluster, as for `umscosod.engine.RayEngine`; it is reached at once. What a text names is ended or
        left with the block. None or empty: this process.

    Raises
    ------
    ConfigError
        The text is no address.
    MissingDependencyError
        Ray is not installed.
    EngineError
        From the block: there is no such cluster.
    """
    if not isinstance(chosen, str) or not chosen:
        return nullcontext(chosen or None)
    return RayEngine(None if chosen == RAY else chosen)


def check_engine(chosen: str) -> None:
    """Refuse what `open_engine` would refuse, without a look at the cluster.

    Raises
    ------
    ConfigError, MissingDependencyError
    """
    open_engine(chosen)


def check_out_dir(dataset: Any, key: str, out_dir: str) -> None:
    """Refuse a folder that cannot hold a run's files.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    key : str
        Name of the run; an existing run keeps its folder.
    out_dir : str

    Raises
    ------
    DataError
        The path cannot be a folder, the run's files are elsewhere, or nothing can be written.
    """
    place = check_folder(out_dir)
    present = find_run(dataset, key) if key.isidentifier() else None
    if present is not None and place != Path(present.folder):
        raise DataError(f"the run {key!r} keeps its files in {present.folder}; leave out the folder")


def check_folder(folder: str, kind: str = "") -> Path:
    """Return the real path of a folder that can be made and written; the `kind` as in `check_place`.

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
    """Name at most three files of a folder that no run wrote; a run leaves them unchanged and writes beside them."""
    folder = real_path(os.path.expanduser(out_dir))  # noqa: PTH111
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return [name for name in names if re.fullmatch(r"part-\d+(\.json)?|objects", name) is None][:3]


def check_start(job: Job) -> None:
    """Refuse early what the work would refuse: settings, device, weights, checkpoint, engine.

    Raises
    ------
    UmscosodError
    """
    from umscosod.pipeline.checkpoints import check_settings
    from umscosod.pipeline.identity import check_shared_cache
    from umscosod.pipeline.verbs import looks_at_tokens

    verb = job.verb["verb"]
    if verb == "import":
        return
    check_settings(
        job.config,
        checkpoint=job.verb.get("checkpoint") or None,
        wants_masks=(verb == "pseudo" and not job.verb["detections_field"]) or verb == "label",
        wants_tokens=verb != "refine" or looks_at_tokens(job.config.refine),
    )
    check_shared_cache(job.config, job.engine)


def folder_of(dataset: Any, job: Job) -> Path:
    """Return the folder of the run: its present one, else its future one."""
    present = find_run(dataset, job.key)
    if present is not None:
        return Path(present.folder)
    if job.out_dir is None:
        return real_path(run_folder(dataset, job.key))
    place = os.path.expanduser(job.out_dir)  # noqa: PTH111 - Path would make the current folder of an empty name
    check_place(place, what="out_dir")
    return real_path(place)


def free_name(dataset: Any, job: Job) -> None:
    """Unregister a run of the same name that blocks this one, if it has no results.

    Raises
    ------
    DataError
        A call is working on it.
    """
    present = find_run(dataset, job.key)
    if present is None or present.state != RUNNING or not _conflict(present, job):
        return
    parts = list_parts(Path(present.folder), present.run_id)
    if not any(part.state is PartState.COMPLETE or has_results(part) for part in parts):
        delete_run(dataset, job.key, edits="keep")


def open_run(dataset: Any, job: Job) -> CoSalRunConfig:
    """Register the run or resume it; the caller must hold its folder.

    Raises
    ------
    DataError
        The field has labels that no run of ours wrote, the run is of another kind or has another folder, or that folder
        cannot be written.
    """
    present = find_run(dataset, job.key)
    if present is not None and (conflict := _conflict(present, job)):
        raise DataError(conflict)
    if present is None and dataset.has_field(job.key) and (count := every_sample(dataset).count(job.key)):
        raise DataError(
            f"the field {job.key!r} holds {count_of(count, 'label')} that no run of umscosod wrote; "
            f"choose another field name"
        )
    folder = folder_of(dataset, job)
    with stage_part(folder):
        pass  # the folder is writable
    began = datetime.now(UTC).isoformat(timespec="seconds")
    asked = {"settings": job.settings, "group_field": job.group_field, "began": began}
    return begin_run(
        dataset,
        job.key,
        job.method,
        asked=asked,
        run_id=uuid.uuid4().hex,
        folder=str(folder),
        fields=field_names(job.key, has_maps=job.has_maps) if job.tree else [],
        tree=job.tree,
        has_maps=job.has_maps,
        group_field=job.group_field,
        settings=config_to_dict(job.config),
        seed=job.config.seed,
        versions=package_versions(),
    )


def _conflict(present: CoSalRunConfig, job: Job) -> str:
    """Return why this call cannot resume a run; empty if it can."""
    if (present.tree, present.has_maps) != (job.tree, job.has_maps):
        return f"{job.key!r} is a run of {present.method}; choose another name for this one"
    if job.out_dir is not None and real_path(Path(job.out_dir).expanduser()) != Path(present.folder):
        return f"the run {job.key!r} keeps its files in {present.folder}; leave out the folder or choose another field"
    return ""
