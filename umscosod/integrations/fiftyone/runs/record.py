"""Records runs: the name of each result, how it was made, and how to delete it with its fields and files.

FiftyOne stores the path of `CoSalRunConfig` and finds `CoSalRun` by dropping "Config": both must stay in this module.
A process without this package still reads the record, but removes nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import fiftyone as fo
import fiftyone.core.runs as fors
import fiftyone.core.utils as fou

from umscosod.config.io import config_to_dict
from umscosod.data.files import is_held, open_atomic, read_json
from umscosod.errors import ConfigError, DataError, count_of
from umscosod.export.report import package_versions
from umscosod.integrations.fiftyone.runs.edits import forget_edits, read_edits
from umscosod.integrations.fiftyone.runs.fields import remove_sidebar_group
from umscosod.integrations.fiftyone.runs.objects import objects_field, remove_objects, remove_schema
from umscosod.integrations.fiftyone.runs.parts import NOTE_FILE, Part, PartState, hold_run, list_parts, remove_part
from umscosod.progress import ProgressFn, ignore_progress, stage_name

if TYPE_CHECKING:
    from umscosod.integrations.fiftyone.runs.jobs import Job

logger = logging.getLogger(__name__)

Progress = ProgressFn | bool | None
"""A callback, or whether to show a progress bar; None: FiftyOne's ``show_progress_bars`` decides."""
_EVERY_S = 1.0
"""Minimum interval between two notes of one stage."""


@dataclass(kw_only=True, slots=True)
class Note:
    """The progress of the work on a part; a `ProgressFn` that stores each report and passes it on.

    Attributes
    ----------
    part : Part
    progress : callable
    text : str
        Stage with its counts; ``""`` before the first.
    seconds : float
        Time worked so far, over all calls.
    """

    part: Part
    progress: ProgressFn = ignore_progress
    text: str = ""
    seconds: float = 0.0
    _written_s: float = 0.0
    _stage: str = ""

    def __call__(self, done: int, total: int, stage: str) -> None:
        """Store a report of progress, and pass it on."""
        name = stage_name(stage)
        self.text = f"{name} {done}/{total}"
        if name != self._stage or time.monotonic() - self._written_s >= _EVERY_S:
            self._stage = name
            self.write()
        self.progress(done, total, stage)

    def write(self) -> None:
        """Write the note to disk."""
        now_s = time.monotonic()
        self.seconds += now_s - self._written_s
        self._written_s = now_s
        with open_atomic(self.part.folder / NOTE_FILE) as stream:
            stream.write(json.dumps({"text": self.text, "seconds": round(self.seconds, 3)}).encode())


def read_note(part: Part) -> Note:
    """Read the progress of a part; a missing or damaged note gives an empty one."""
    try:
        content = read_json(part.folder / NOTE_FILE)
        return Note(part=part, text=str(content["text"]), seconds=float(content["seconds"]))
    except (DataError, KeyError, TypeError, ValueError):
        return Note(part=part)


@contextmanager
def noting(part: Part, progress: ProgressFn) -> Iterator[Note]:
    """Store the progress of the work in this block; the last state too, unless the process is killed."""
    note = read_note(part)
    note.progress, note._written_s = progress, time.monotonic()
    try:
        yield note
    finally:
        try:
            note.write()
        except DataError as error:  # such as a full disk, which the work itself has reported
            logger.warning("%s", error)


@contextmanager
def showing(progress: Progress) -> Iterator[ProgressFn]:
    """Turn the caller's argument into a callback: their own, FiftyOne's progress bar, or none."""
    if callable(progress):
        yield progress
        return
    if not (fo.config.show_progress_bars if progress is None else progress):
        yield ignore_progress
        return
    # without a total: each stage has its own
    with fou.ProgressBar(progress=True, iters_str="steps", show_remaining_time=False) as bar:
        yield lambda done, total, stage: bar.update(suffix=f"{stage_name(stage)} {done}/{total}")


METHODS = tuple(f"umscosod/{verb}" for verb in ("label", "pseudo", "train", "predict", "refine", "import"))
IMPORT = METHODS[-1]
RUNNING, INTERRUPTED, COMPLETE = "running", "interrupted", "complete"
"""States of a run. The record of an interrupted run says ``running``, but no process holds its lock."""


class CoSalRunConfig(fors.RunConfig):  # type: ignore[misc]  # untyped base
    """Record of a run: ``method``, ``folder``, ``fields``, ``state``, ``settings``, ``versions`` and so on."""


class CoSalRun(fors.Run):  # type: ignore[misc]  # untyped base
    """A run whose deletion removes the fields it wrote and its own files."""

    def get_fields(self, samples: Any, key: str) -> list[str]:
        """Return the fields that this run wrote."""
        return list(getattr(self.config, "fields", []))

    def cleanup(self, samples: Any, key: str) -> None:
        """Remove the run's fields, then its files: no label ever points to a missing file. Edited masks stay."""
        read_edits(samples._dataset, key)
        _remove(samples._dataset, self.get_fields(samples, key), self.config)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """The properties of a run.

    Attributes
    ----------
    key : str
    method : str
        One of `METHODS`.
    state : {"running", "interrupted", "complete"}
        ``interrupted``: it was stopped or killed, and no process works on it; see `find_interrupted`. If folders cannot
        be locked, such a run counts as ``running``.
    created : str
        UTC, ISO 8601.
    folder : Path
    fields : tuple of str
    n_samples : int
    group_field : str or None
    checkpoint : str
        Folder of the trained network, or ``""``.
    backbones : tuple of str
        Names with the hash of the weights.
    counts : dict of str to int
        Samples by status.
    seed : int
    settings : dict
        The whole configuration.
    versions : dict of str to str
    evaluations : tuple of str
        Keys of the evaluations of its field.
    stale : dict of str to str
        The evaluations made before the field was labelled anew, each with a sentence.
    stopped_at : str
        For an interrupted run ``"training 7/72"``; ``""`` if nothing was begun.
    seconds : float
        Wall time of the last completed part; 0 if there is none.
    """

    key: str
    method: str
    state: str
    created: str
    folder: Path
    fields: tuple[str, ...]
    n_samples: int
    group_field: str | None
    checkpoint: str
    backbones: tuple[str, ...]
    counts: dict[str, int]
    seed: int
    settings: dict[str, Any] = field(repr=False)
    versions: dict[str, str] = field(repr=False)
    evaluations: tuple[str, ...] = ()
    stale: dict[str, str] = field(default_factory=dict)
    stopped_at: str = ""
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """Return one line for people."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
        counts = counts or count_of(self.n_samples, "sample")
        state = f"{self.state} at {self.stopped_at}" if self.stopped_at else self.state
        return f"{self.key}: {self.method.removeprefix('umscosod/')}, {state}, {counts}"


def find_run(dataset: Any, key: str) -> CoSalRunConfig | None:
    """Read the record of a run of ours; None if no run has that name.

    Raises
    ------
    DataError
        Another package owns the run.
    """
    if key not in dataset.list_runs():
        return None
    config = dataset.get_run_info(key).config
    if not isinstance(config, CoSalRunConfig):
        raise DataError(f"the run {key!r} of this data set was not made by umscosod; choose another name")
    return config


def get_run(dataset: Any, key: str) -> RunSummary:
    """Return the properties of a run.

    Raises
    ------
    DataError
        There is no such run; the message names the existing runs.
    """
    from umscosod.integrations.fiftyone.evaluation.dataset import stale_evaluations

    config = find_run(dataset, key)
    if config is None:
        names = ", ".join(run.key for run in list_runs(dataset)) or "none"
        raise DataError(f"there is no run {key!r}; runs of this data set: {names}")
    values = config.serialize()
    state, stopped_at = values["state"], ""
    if state == RUNNING and not is_held(Path(values["folder"])):
        left = open_part(config)
        state, stopped_at = INTERRUPTED, "" if left is None else read_note(left).text
    created = dataset.get_run_info(key).timestamp
    as_recorded = ("n_samples", "group_field", "checkpoint", "counts", "seed", "settings", "versions")
    return RunSummary(
        key=key,
        method=config.method,
        state=state,
        created=created.isoformat(timespec="milliseconds") if created else "",
        folder=Path(values["folder"]),
        fields=tuple(values["fields"]),
        backbones=tuple(values["backbones"]),
        **{name: values[name] for name in as_recorded},
        seconds=values.get("seconds", 0.0),
        stopped_at=stopped_at,
        evaluations=tuple(evaluations_of(dataset, key)),
        stale=stale_evaluations(dataset, key),
    )


def list_runs(dataset: Any) -> list[RunSummary]:
    """Return all runs of this package on a data set, oldest first."""
    keys = [key for method in METHODS for key in dataset.list_runs(method=method)]
    return sorted((get_run(dataset, key) for key in keys), key=lambda run: (run.created, run.key))


def open_part(config: CoSalRunConfig) -> Part | None:
    """Return the part that a call is working on, or left unfinished."""
    parts = list_parts(Path(config.folder), config.run_id)
    return next((part for part in parts if part.state is PartState.RUNNING), None)


def begin_run(dataset: Any, key: str, method: str, *, asked: Any = None, **record: Any) -> CoSalRunConfig:
    """Register a run, or resume the run of that name; the record says ``running`` from now on.

    Earlier fields and files stay: they are replaced sample by sample as new results come.
    """
    present = find_run(dataset, key)
    if present is not None:
        update_run(dataset, key, present, state=RUNNING, method=method, asked=asked)
        return present
    results: dict[str, Any] = {"counts": {}, "n_samples": 0, "checkpoint": "", "backbones": []}
    config = CoSalRunConfig(method=method, state=RUNNING, asked=asked, **results, **record)
    dataset.register_run(key, config)
    return config


def update_run(dataset: Any, key: str, config: CoSalRunConfig, **changes: Any) -> None:
    """Store a changed record."""
    for name, value in changes.items():
        setattr(config, name, value)
    dataset.update_run_config(key, config)


def note_objects(dataset: Any, key: str, config: CoSalRunConfig) -> None:
    """Record that a run has objects, a field that is deleted with it."""
    name = objects_field(key)
    if name not in config.fields:
        update_run(dataset, key, config, fields=[*config.fields, name])


def complete_run(dataset: Any, job: Job, config: CoSalRunConfig, sample_ids: Sequence[str], **results: Any) -> None:
    """Record that a run is complete: all samples that it has processed, its settings and its results."""
    ids = sorted(set(sample_ids))
    dataset.save_run_results(job.key, fors.RunResults(dataset, config, job.key, sample_ids=ids), overwrite=True)
    update_run(
        dataset,
        job.key,
        config,
        state=COMPLETE,
        n_samples=len(ids),
        sample_ids_sha256=hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
        settings=config_to_dict(job.config),
        seed=job.config.seed,
        versions=package_versions(),
        group_field=job.group_field,
        **results,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DeletedRun:
    """What `delete_run` removed, and what it kept of the run.

    Attributes
    ----------
    run : RunSummary
        The run before its deletion.
    evaluations : tuple of str
        Keys of the evaluations that were also removed.
    kept_evaluations, kept_fields : tuple of str
        Kept evaluations of the run, and the fields of their scores.
    kept_edits, deleted_edits : int
        Masks that a person edited in the App: kept in the field ``reviewed``, or deleted.
    """

    run: RunSummary
    evaluations: tuple[str, ...] = ()
    kept_evaluations: tuple[str, ...] = ()
    kept_fields: tuple[str, ...] = ()
    kept_edits: int = 0
    deleted_edits: int = 0

    @property
    def summary(self) -> str:
        """One sentence for people."""
        parts = [f"{self.run.key}: deleted with {count_of(len(self.run.fields), 'field')}"]
        if self.evaluations:
            parts.append(f"its evaluations too: {', '.join(self.evaluations)}")
        if self.kept_evaluations:
            fields = f" with the fields {', '.join(self.kept_fields)}" if self.kept_fields else ""
            parts.append(f"evaluations that stay: {', '.join(self.kept_evaluations)}{fields}")
        if self.kept_edits:
            parts.append(f"{count_of(self.kept_edits, 'edited mask')} stay in 'reviewed'")
        if self.deleted_edits:
            parts.append(f"{count_of(self.deleted_edits, 'edited mask')} deleted too")
        return "; ".join(parts)


def delete_run(
    dataset: Any, key: str, *, evaluations: bool = False, edits: Literal["ask", "keep", "delete"] = "ask"
) -> DeletedRun:
    """Remove a run: its fields, its files and its record, nothing else.

    Accepted masks are copies in a folder of their own and stay.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    key : str
    evaluations : bool
        Also remove the evaluations of its field, with the fields of their scores; otherwise they stay and are named.
    edits : {"ask", "keep", "delete"}
        What becomes of masks of the run that a person edited in the App: they stay as accepted masks in ``reviewed``,
        or are deleted. With ``"ask"`` a run with such masks is not deleted.

    Returns
    -------
    DeletedRun

    Raises
    ------
    DataError
        There is no such run, a call is working on it, a person edited masks of it and `edits` is ``"ask"``, or a file
        cannot be removed: then the record stays, and the deletion can be repeated.
    ConfigError
        `edits` is none of the three words.
    """
    if edits not in ("ask", "keep", "delete"):
        raise ConfigError(f"edits must be 'ask', 'keep' or 'delete', got {edits!r}")
    dataset.reload()  # another process may have begun the run since the data set was loaded here
    run = get_run(dataset, key)
    config: Any = find_run(dataset, key)
    edited = len(read_edits(dataset, key))
    if edited and edits == "ask":
        raise DataError(
            f"a person edited {count_of(edited, 'mask')} of the run {key!r}: delete_run(edits='keep') keeps them as "
            "accepted masks in 'reviewed', edits='delete' deletes them too"
        )
    told: dict[str, Any] = {"kept_edits" if edits == "keep" else "deleted_edits": edited}
    if edits == "delete":
        forget_edits(dataset, key)
    _remove(dataset, run.fields, config)  # here, since FiftyOne's own clean-up turns errors into warnings
    for name in run.evaluations if evaluations else ():
        dataset.delete_evaluation(name)
    CoSalRun.delete_run(dataset, key, cleanup=False)
    if evaluations:
        return DeletedRun(run=run, evaluations=run.evaluations, **told)
    schema = dataset.get_field_schema()
    scores = tuple(name for name in schema if name.startswith(tuple(f"{each}_" for each in run.evaluations)))
    return DeletedRun(run=run, kept_evaluations=run.evaluations, kept_fields=scores if run.evaluations else (), **told)


def _remove(dataset: Any, names: Sequence[str], config: CoSalRunConfig) -> None:
    folder = Path(config.folder)
    with hold_run(folder) if folder.is_dir() else nullcontext():
        for name in names:
            remove_schema(dataset, name)
        dataset.delete_sample_fields([name for name in names if dataset.has_field(name)])
        remove_sidebar_group(dataset, names[0] if names else "")
        for part in list_parts(folder, config.run_id):
            remove_part(part)
        remove_objects(folder)


def evaluations_of(dataset: Any, field_name: str) -> list[str]:
    """Return the keys of the evaluations of a field."""
    configs = {key: dataset.get_evaluation_info(key).config for key in dataset.list_evaluations()}
    return [key for key, config in configs.items() if getattr(config, "pred_field", None) == field_name]
