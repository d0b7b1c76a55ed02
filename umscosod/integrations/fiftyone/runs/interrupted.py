"""Finds and resumes interrupted runs, with their own settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umscosod.config import PipelineConfig
from umscosod.config.io import load_config
from umscosod.data.files import is_held
from umscosod.engine import Engine
from umscosod.errors import ConfigError, DataError, count_of
from umscosod.integrations.fiftyone.runs.fields import every_sample
from umscosod.integrations.fiftyone.runs.parts import PartState, hold_run, list_parts, set_state
from umscosod.integrations.fiftyone.runs.record import RUNNING, Progress, find_run, open_part, read_note

if TYPE_CHECKING:
    from umscosod.integrations.fiftyone.runs.jobs import RunReport
    from umscosod.integrations.fiftyone.runs.training import TrainOutcome


@dataclass(frozen=True, kw_only=True, slots=True)
class InterruptedRun:
    """The state of a call that was stopped or killed.

    Attributes
    ----------
    key : str
    method : str
        One of `umscosod.integrations.fiftyone.runs.record.METHODS`.
    stage : str
        Progress, ``"training 7/72"``; ``""`` if the call stopped before the first stage.
    settings : dict
        The verb and its arguments without the configuration.
    config : PipelineConfig
    group_field : str or None
    began : str
        UTC, ISO 8601; ``""`` if an older version began it.
    overwrite : bool
        Whether existing labels are replaced.
    sample_ids : tuple of str
        Samples that get labels, or from which the network learns.
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
    """Find the unfinished work of a run that no process works on.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    key : str
        Name of a run, which need not exist.

    Returns
    -------
    InterruptedRun or None
        None if there is nothing to resume: then a call can begin with any settings.

    Raises
    ------
    DataError
        Another package owns the run, or the part's record is damaged.
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


def resume_dataset(
    dataset: Any, key: str, *, engine: Engine | str | None = None, progress: Progress = None
) -> RunReport | TrainOutcome:
    """Resume an interrupted run with its own samples and settings.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
        A view is accepted too, but its choice of samples has no effect.
    key : str
    engine, progress
        As for `umscosod.integrations.fiftyone.label_dataset`. The engine is chosen anew: the one that the run began
        with may be gone.

    Returns
    -------
    RunReport or TrainOutcome
        The result of the call that began the run.

    Raises
    ------
    DataError
        There is nothing to resume, a call is working on the run, or images, labels or weights have changed since.
    ConfigError
        An engine is given, and the run is none of `label_dataset` or `predict_dataset`.
    """
    from umscosod.integrations.fiftyone.exchange.predictions import import_predictions
    from umscosod.integrations.fiftyone.runs.labels import label_dataset, pseudo_label_dataset, refine_dataset
    from umscosod.integrations.fiftyone.runs.training import train_dataset

    dataset = getattr(dataset, "_root_dataset", dataset)
    dataset.reload()  # another process may have begun the run since the data set was loaded here
    left = find_interrupted(dataset, key)
    if left is None:
        raise DataError(f"there is nothing to go on with in {key!r}: no run of that name was interrupted in its work")
    calls: dict[str, Callable[..., RunReport | TrainOutcome]] = {
        "label": label_dataset,
        "pseudo": pseudo_label_dataset,
        "train": train_dataset,
        "refine": refine_dataset,
        "import": import_predictions,
    }
    given: dict[str, Any] = {name: None if value == "" else value for name, value in left.settings.items()}
    verb = given.pop("verb")
    if verb == "label":
        given["engine"] = engine
    elif engine:
        raise ConfigError(f"{key!r} is a run of {verb}, which works in this process; leave out the engine")
    if verb == "import":
        given["kind"] = "map" if given.pop("has_maps") else "mask"
    else:
        given["config"] = left.config
    if verb != "refine":  # that has the groups of its source
        given["group_field"] = left.group_field
    given["key" if verb == "train" else "field"] = key
    view = every_sample(dataset).select(list(left.sample_ids))
    return calls[verb](view, **given, overwrite=left.overwrite, progress=progress)


def give_up_interrupted(dataset: Any, key: str) -> bool:
    """Discard the unfinished part of a run, so that the next call can begin with any settings.

    Written labels stay. Files of the part are removed when no label points to them.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    key : str
        Name of a run, which need not exist.

    Returns
    -------
    bool
        Whether there was such a part.

    Raises
    ------
    DataError
        A call is working on the run, or another package owns the name.
    """
    dataset.reload()  # another process may have begun the run since the data set was loaded here
    record = find_run(dataset, key)
    if record is None or not Path(record.folder).is_dir():
        return False
    with hold_run(Path(record.folder)):
        left = [part for part in list_parts(Path(record.folder), record.run_id) if part.state is PartState.RUNNING]
        for part in left:
            set_state(part, PartState.SUPERSEDED)
    return bool(left)
