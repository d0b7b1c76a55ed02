"""What a killed or stopped call left: the same call goes on with it, another one says what differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from umscosod.config import PipelineConfig
from umscosod.config.io import iter_differences, load_config
from umscosod.data.files import is_held
from umscosod.errors import ConfigError, DataError, OtherResultsError, count_of
from umscosod.integrations.fiftyone.runs.fields import every_sample
from umscosod.integrations.fiftyone.runs.parts import Part, PartState, has_results, hold_run, list_parts, set_state
from umscosod.integrations.fiftyone.runs.record import RUNNING, Progress, find_run, open_part, read_note

if TYPE_CHECKING:
    from umscosod.integrations.fiftyone.runs.jobs import Job, RunReport
    from umscosod.integrations.fiftyone.runs.training import TrainOutcome


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


@dataclass(frozen=True, kw_only=True, slots=True)
class InterruptedRun:
    """What a call left when it was stopped or killed.

    Attributes
    ----------
    key : str
    method : str
        One of `umscosod.integrations.fiftyone.runs.record.METHODS`.
    stage : str
        How far it came, ``"training 7/72"``; ``""`` where it was stopped before the first stage.
    settings : dict
        The verb and its arguments but for the configuration.
    config : PipelineConfig
    group_field : str or None
    began : str
        UTC, ISO 8601; ``""`` if an older version began it.
    overwrite : bool
        Whether labels that are there are replaced.
    sample_ids : tuple of str
        Samples that get labels, or are learnt from.
    """

    key: str
    method: str
    stage: str
    settings: dict[str, Any]
    config: PipelineConfig = field(repr=False)
    group_field: str | None
    began: str
    overwrite: bool
    sample_ids: tuple[str, ...] = field(repr=False)

    @property
    def summary(self) -> str:
        """One line for people.

        Examples
        --------
        >>> InterruptedRun(
        ...     key="cosal", method="umscosod/label", stage="training 7/72", settings={}, config=PipelineConfig(),
        ...     group_field="cls", began="", overwrite=False, sample_ids=("1", "2"),
        ... ).summary
        'cosal: label, interrupted at training 7/72, 2 samples'
        """
        at = f" at {self.stage}" if self.stage else ""
        counted = count_of(len(self.sample_ids), "sample")
        return f"{self.key}: {self.method.removeprefix('umscosod/')}, interrupted{at}, {counted}"


def find_interrupted(dataset: Any, key: str) -> InterruptedRun | None:
    """Look for work that a run has left unfinished and that nobody is at.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    key : str
        Name of the run; there need not be one.

    Returns
    -------
    InterruptedRun or None
        None where nothing is left to go on with: then any settings can begin.

    Raises
    ------
    DataError
        The name belongs to somebody else's run, or the part's record is damaged.
    """
    record = find_run(dataset, key)
    if record is None or record.state != RUNNING or is_held(Path(record.folder)):
        return None
    part = open_part(record)
    if part is None:
        return None
    asked = getattr(record, "asked", None) or {}
    settings = dict(part.settings)
    try:
        config = load_config(overrides=settings.pop("config"))
    except ConfigError as error:
        raise DataError(
            f"the run {key!r} was interrupted, and this version does not know its settings ({error}); overwrite it"
        ) from error
    return InterruptedRun(
        key=key,
        method=record.method,
        stage=read_note(part).text,
        settings=settings,
        config=config,
        group_field=asked.get("group_field", record.group_field),
        began=asked.get("began", ""),
        overwrite=part.replaces,
        sample_ids=tuple(sorted(part.writes)),
    )


def resume_dataset(dataset: Any, key: str, *, progress: Progress = None) -> RunReport | TrainOutcome:
    """Go on with an interrupted run: its own samples, its own settings.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
        Or a view of it, whose choice of samples does not matter.
    key : str
    progress : callable or bool, optional
        As for `umscosod.integrations.fiftyone.label_dataset`.

    Returns
    -------
    RunReport or TrainOutcome
        What the call that began the run would have returned.

    Raises
    ------
    DataError
        Nothing is left to go on with, a call is at work on it, or images, labels or weights have changed meanwhile.
    """
    from umscosod.integrations.fiftyone.exchange.predictions import import_predictions
    from umscosod.integrations.fiftyone.runs.labels import label_dataset, pseudo_label_dataset, refine_dataset
    from umscosod.integrations.fiftyone.runs.training import train_dataset

    dataset = getattr(dataset, "_root_dataset", dataset)
    dataset.reload()  # another process may have begun the run since the data set was loaded here
    left = find_interrupted(dataset, key)
    if left is None:
        raise DataError(f"there is nothing to go on with in {key!r}: no run of that name was interrupted in its work")
    given = dict(left.settings)
    verb = given.pop("verb")
    view = every_sample(dataset).select(list(left.sample_ids))
    common: dict[str, Any] = {"overwrite": left.overwrite, "progress": progress}
    if verb == "import":
        kind: Literal["map", "mask"] = "map" if given.pop("has_maps") else "mask"
        return import_predictions(view, field=key, group_field=left.group_field, kind=kind, **given, **common)
    common["config"] = left.config
    if verb == "refine":
        return refine_dataset(view, field=key, **given, **common)
    common["group_field"] = left.group_field
    if verb == "train":
        masks = {name: given[name] or None for name in ("labels", "reviewed")}
        return train_dataset(view, key=key, labels=masks["labels"], reviewed=masks["reviewed"], **common)
    if verb == "pseudo":
        return pseudo_label_dataset(view, field=key, detections_field=given["detections_field"] or None, **common)
    return label_dataset(view, field=key, checkpoint=given.pop("checkpoint") or None, **given, **common)


def give_up_interrupted(dataset: Any, key: str) -> bool:
    """Give up the unfinished part of a run, so that the next call begins with what settings it likes.

    Labels that are written stay. Files of the part go once no label points to them.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    key : str
        Name of the run; there need not be one.

    Returns
    -------
    bool
        Whether there was such a part.

    Raises
    ------
    DataError
        A call is at work on the run, or the name belongs to somebody else's.
    """
    dataset.reload()  # another process may have begun the run since the data set was loaded here
    record = find_run(dataset, key)
    if record is None or not Path(record.folder).is_dir():
        return False
    with hold_run(Path(record.folder)):
        parts = [part for part in list_parts(Path(record.folder)) if part.run_id == record.run_id]
        left = [part for part in parts if part.state is PartState.RUNNING]
        for part in left:
            set_state(part, PartState.SUPERSEDED)
    return bool(left)
