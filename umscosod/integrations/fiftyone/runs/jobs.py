"""Runs a job: chooses samples, fixes them, does the work, writes labels. The next call resumes an interrupted job."""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo

from umscosod.config import PipelineConfig
from umscosod.config.io import config_to_dict
from umscosod.data.groups import groups_from_rows
from umscosod.engine import Engine
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.edits import read_edits
from umscosod.integrations.fiftyone.runs.fields import (
    HUMAN,
    LabelItem,
    ReviewState,
    check_field,
    declare_fields,
    every_sample,
    write_labels,
)
from umscosod.integrations.fiftyone.runs.objects import check_objects, declare_objects, has_objects, objects_field
from umscosod.integrations.fiftyone.runs.parts import (
    Part,
    PartState,
    add_part,
    hold_run,
    list_parts,
    remove_part,
    resume_part,
    set_state,
)
from umscosod.integrations.fiftyone.runs.record import Progress, complete_run, note_objects, noting, showing, update_run
from umscosod.integrations.fiftyone.runs.start import check_start, folder_of, free_name, open_run
from umscosod.progress import ProgressFn
from umscosod.types import ImageGroup, Labelled, Status

if TYPE_CHECKING:
    from umscosod.integrations.fiftyone.runs.record import CoSalRunConfig
    from umscosod.pipeline import LabelReport

logger = logging.getLogger(__name__)

DECIDED = (ReviewState.ACCEPTED, ReviewState.REJECTED)
"""Review states that no run may change, even with overwrite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRow:
    """The values of one sample that are read before any computation.

    Attributes
    ----------
    id : str
    path : Path
        Absolute path of the image.
    group : str
        Name of its group; ``""`` if the group field is empty: such a sample is skipped.
    is_done : bool
        An earlier call of the run processed it, with or without success, and nobody sent it back.
    is_human : bool
        The label belongs to a person, or a person accepted or rejected it: no run writes it.
    """

    id: str
    path: Path
    group: str
    is_done: bool = False
    is_human: bool = False


def flat_images(sample_collection: Any) -> Any:
    """Check that each element is one stored image sample, and flatten a ``group_by()`` view."""
    if sample_collection._is_generated:
        raise DataError("patches, frames and clips views hold generated samples; label the data set or a plain view")
    if sample_collection._is_dynamic_groups:
        sample_collection = sample_collection.flatten()
    if sample_collection.media_type == "group":
        raise DataError(
            "this data set groups several sensors; choose one: dataset.select_group_slices('NAME'), "
            "or all: dataset.select_group_slices()"
        )
    if sample_collection.media_type not in ("image", None):  # None: no samples yet
        raise DataError(
            f"only images can be labelled; this is a data set of media type {sample_collection.media_type!r}"
        )
    return sample_collection.view()


def group_names_by_folder(paths: Iterable[Path]) -> dict[Path, str]:
    """Name the folder of each image, as short as the collection allows.

    Examples
    --------
    >>> names = group_names_by_folder([Path("/d/cat/1.jpg"), Path("/d/dog/1.jpg")])
    >>> sorted(names.values())
    ['cat', 'dog']
    >>> list(group_names_by_folder([Path("/d/cat/1.jpg")]).values())
    ['cat']
    """
    folders = {path: path.parent for path in paths}
    if not folders:
        return {}
    root = Path(commonpath(set(folders.values())))
    if root in folders.values():  # some images are in the common folder itself, which needs a name too
        root = root.parent
    return {path: folder.relative_to(root).as_posix() for path, folder in folders.items()}


def read_rows(view: Any, group_field: str | None, field: str) -> list[SampleRow]:
    """Read the samples of a flat image view as `read_samples` does, with the states of their labels in `field`."""
    rows = read_samples(view, group_field)
    paths = (f"{field}_status", f"{field}_review", f"{field}.provenance")
    columns = [read_column(view, path, len(rows)) for path in paths]
    return [
        replace(
            row,
            is_done=status is not None and review != ReviewState.SENT_BACK,
            is_human=provenance == HUMAN or review in DECIDED,
        )
        for row, status, review, provenance in zip(rows, *columns, strict=True)
    ]


def read_samples(view: Any, group_field: str | None) -> list[SampleRow]:
    """Read ids, paths and groups of all samples of a flat image view, in a few queries.

    Raises
    ------
    DataError
        The view is empty, or `group_field` does not exist or holds lists.
    """
    ids, paths = view.values(["id", "filepath"])
    if not ids:
        raise DataError("the view has no samples; choose another view or data set")
    files = [Path(path) for path in paths]
    if group_field:
        names = [group_name(value) for value in view.values(value_path(view, group_field))]
    else:
        by_folder = group_names_by_folder(files)
        names = [by_folder[file] for file in files]
    return [SampleRow(id=id_, path=file, group=name) for id_, file, name in zip(ids, files, names, strict=True)]


def read_column(view: Any, path: str, count: int) -> list[Any]:
    """Return the values of a field of `count` samples; None for each if the field does not exist."""
    return list(view.values(path)) if view.has_field(path) else [None] * count


def choose_rows(rows: Sequence[SampleRow], *, overwrite: bool) -> tuple[list[SampleRow], frozenset[str]]:
    """Keep whole groups with unfinished samples: the finished samples help to find the common object.

    Returns
    -------
    rows : list of SampleRow
        Samples to process; empty if nothing is left.
    writes : frozenset of str
        Ids of the samples that get labels: the unfinished ones; with `overwrite` all but a person's.

    Raises
    ------
    DataError
        No sample has a group.
    """
    grouped = [row for row in rows if row.group]
    if not grouped:
        raise DataError(f"none of the {len(rows)} samples has a value in the group field; choose another field")
    if len(grouped) < len(rows):
        logger.warning("%d of %d samples have no group and are left alone", len(rows) - len(grouped), len(rows))
    writes = frozenset(row.id for row in grouped if not row.is_human and (overwrite or not row.is_done))
    open_groups = {row.group for row in grouped if row.id in writes}
    return [row for row in grouped if row.group in open_groups], writes


def value_path(view: Any, group_field: str) -> str:
    """Return the path to read group names from: a Classification's label, else the field itself.

    Raises
    ------
    DataError
        There is no such field, or it holds no single value a sample.
    """
    found = view.get_field(group_field)
    if found is None:
        names = ", ".join(sorted(view.get_field_schema(ftype=fo.StringField))) or "none"
        raise DataError(f"there is no field {group_field!r} to group by; text fields here: {names}")
    is_label = isinstance(found, fo.EmbeddedDocumentField)
    if is_label and not issubclass(found.document_type, fo.Classification):
        raise DataError(
            f"cannot group by {group_field!r}: it holds {found.document_type.__name__}; "
            "use a text, number or Classification field"
        )
    parts = group_field.split(".")
    way = [view.get_field(".".join(parts[:length])) for length in range(1, len(parts) + 1)]
    if any(isinstance(field, (fo.ListField, fo.DictField, fo.VectorField)) for field in way):
        raise DataError(f"cannot group by {group_field!r}: it holds several values a sample; use a field with one")
    return f"{group_field}.label" if is_label else group_field


def group_name(value: Any) -> str:
    """Return the group name of a value of the group field; ``""`` for none."""
    return "" if value is None else str(value)


Work = Callable[[Part, ProgressFn], "LabelReport"]
"""Processes a part in its folder, or the rest of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """Outcome of one call of a run.

    Attributes
    ----------
    key : str
        Name of the run and of its field.
    rows : tuple of Labelled
        Samples written by this call; `image_id` is the sample's id.
    out : Path
        Folder of the run.
    notes : tuple of str
        Choices made during the run, with reasons.
    kept : int
        Samples of the view that were skipped: done before, or a person's.
    ungrouped : int
        Samples of the view without a group, also skipped.
    seconds : float
        Wall time of the work, with that of the interrupted calls.
    """

    key: str
    rows: tuple[Labelled, ...]
    out: Path
    notes: tuple[str, ...] = ()
    kept: int = 0
    ungrouped: int = 0
    seconds: float = 0.0

    @property
    def counts(self) -> dict[Status, int]:
        """Samples of this call by status, zeros included."""
        found = Counter(row.status for row in self.rows)
        return {status: found[status] for status in Status}

    @property
    def summary(self) -> str:
        """Return one sentence for people."""
        parts = [f"{count} {status}" for status, count in self.counts.items() if count]
        parts += [f"{self.kept} kept"] if self.kept else []
        parts += [f"{self.ungrouped} without a group"] if self.ungrouped else []
        first = next((row for row in self.rows if row.status is Status.FAILED), None)
        failed = f"; {first.reason}" if first is not None else ""
        return f"{self.key}: {', '.join(parts) or 'nothing to do'}{failed}"

    @property
    def is_success(self) -> bool:
        """Whether samples were labelled, or nothing was left to do."""
        return not self.rows or self.counts[Status.LABELLED] > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The request of one call of a run.

    Attributes
    ----------
    key : str
    group_field : str or None
    out_dir : path or None
    config : PipelineConfig
    verb : dict
        Values that determine the results, apart from the configuration.
    overwrite, has_maps : bool
    tree : str
        Folder of the masks inside an output folder.
    editable : bool
        Also write objects that a person can edit in the App; a run that has them goes on to write them.
    engine : Engine or None
        Does the work; None: this process. Results are the same, so that it is no part of the settings.
    """

    key: str
    group_field: str | None
    out_dir: str | Path | None
    config: PipelineConfig
    verb: dict[str, Any]
    overwrite: bool
    has_maps: bool = True
    tree: str = "masks"
    editable: bool = False
    engine: Engine | None = None

    @property
    def method(self) -> str:
        """The name in lists of runs: that of the verb; with a given network a run only predicts."""
        return f"umscosod/{'predict' if self.verb.get('checkpoint') else self.verb['verb']}"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a call must share with an interrupted part to resume it."""
        return json.loads(json.dumps({**self.verb, "config": config_to_dict(self.config)}))  # type: ignore[no-any-return]


def run_job(sample_collection: Any, job: Job, work: Work, progress: Progress = None) -> RunReport:
    """Finish the interrupted work of an earlier call, then process the unfinished samples.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    job : Job
    work : callable
        One call of the pipeline, which resumes in the folder of an interrupted part.
    progress : callable or bool, optional
        See `umscosod.integrations.fiftyone.runs.record.showing`.

    Raises
    ------
    UmscosodError
        There are no images; a setting, device or file is missing; the field is unsuitable or not this run's; or an
        interrupted part has other settings. The run is not registered then.
    """
    view = flat_images(sample_collection)
    dataset = view._dataset  # a view has no public access to its data set
    dataset.reload()  # another process may have begun this run since the data set was loaded here
    check_field(dataset, job.key, has_maps=job.has_maps)
    if job.editable:
        check_objects(dataset, job.key)
    free_name(dataset, job)
    with hold_run(folder_of(dataset, job)), showing(progress) as shown:
        report = _run_held(view, dataset, job, work, shown)
    logger.info("%s", report.summary)
    return report


def _run_held(view: Any, dataset: Any, job: Job, work: Work, progress: ProgressFn) -> RunReport:
    """Do the work of `run_job`, while no other call works on the run."""
    read_edits(dataset, job.key)  # what a person drew since the last call is theirs, and is kept
    found, groups, writes = _choose(view, job)  # refuses a bad view before the run is registered
    if writes:
        check_start(job)
    config = open_run(dataset, job)
    if job.editable:
        note_objects(dataset, job.key, config)
    folder = Path(config.folder)
    rows: list[Labelled] = []
    notes: list[str] = []
    seconds: list[float] = []

    def do(part: Part) -> None:
        with noting(part, progress) as note:
            report = work(part, note)
            rows.extend(_write_part(dataset, job, config, part, report))
        notes.extend(report.notes)
        seconds.append(note.seconds)

    part = resume_part(folder, config.run_id, job, do)
    if part is None or not part.replaces:  # otherwise the resumed part has done the replacing
        if part is not None:
            set_state(part, PartState.COMPLETE)
            found, groups, writes = _choose(view, job)
        if writes:
            part = add_part(folder, config.run_id, job.settings, groups, writes, replaces=job.overwrite)
            do(part)
    _close_run(dataset, job, config, part, seconds)
    done = {row.image_id for row in rows}
    return RunReport(
        key=job.key,
        rows=tuple(rows),
        out=folder,
        notes=tuple(dict.fromkeys(notes)),
        kept=sum(row.id not in done and row.group != "" for row in found),
        ungrouped=sum(row.group == "" for row in found),
        seconds=sum(seconds),
    )


def _choose(view: Any, job: Job) -> tuple[list[SampleRow], list[ImageGroup], frozenset[str]]:
    """Return all samples of a view, the groups with unfinished samples, and the ids of the samples to write."""
    found = read_rows(view, job.group_field, job.key)
    chosen, writes = choose_rows(found, overwrite=job.overwrite)
    groups = groups_from_rows((row.id, row.path, row.group) for row in chosen) if chosen else []
    return found, groups, writes


def label_items(part: Part, rows: Iterable[Labelled], tree: str, *, has_maps: bool) -> list[LabelItem]:
    """Turn the rows of a part into labels, if their files exist."""
    items = []
    for row in rows:
        mask, soft = part.folder / tree / row.output, part.folder / "maps" / row.output
        is_there = row.status in (Status.LABELLED, Status.EMPTY) and mask.is_file()
        has_map = is_there and has_maps and soft.is_file()  # an import may have masks alone
        items.append(LabelItem(row=row, mask_path=mask if is_there else None, map_path=soft if has_map else None))
    return items


def _write_part(dataset: Any, job: Job, config: CoSalRunConfig, part: Part, report: LabelReport) -> list[Labelled]:
    """Write the labels of a part; the call can be repeated."""
    update_run(dataset, job.key, config, changed=uuid.uuid4().hex)  # first: earlier evaluations are now of other labels
    rows = [row for row in report.rows if row.image_id in part.writes]
    declare_fields(dataset, job.key, has_maps=job.has_maps)
    if objects_field(job.key) in config.fields or has_objects(dataset, job.key):
        declare_objects(dataset, job.key, {row.group for row in rows})
    items = label_items(part, rows, job.tree, has_maps=job.has_maps)
    write_labels(dataset, job.key, items, has_maps=job.has_maps, clear_missing=part.replaces)
    return rows


def _close_run(dataset: Any, job: Job, config: CoSalRunConfig, last: Part | None, seconds: list[float]) -> None:
    """Complete the record, then the last part, then remove files that no label points to.

    If the process is killed between two steps, the next call finds the part open and repeats only these steps.
    """
    parts = list_parts(Path(config.folder), config.run_id)
    whole = [part for part in parts if part.state is PartState.COMPLETE or (last and part.file == last.file)]
    networks = [str(part.folder) for part in whole if (part.folder / "run" / "checkpoints").is_dir()]
    statuses = every_sample(dataset).count_values(f"{job.key}_status") if dataset.has_field(f"{job.key}_status") else {}
    complete_run(
        dataset,
        job,
        config,
        [sample_id for part in whole for sample_id in part.sample_ids],
        counts={str(status): count for status, count in statuses.items() if status is not None},
        seconds=seconds[-1] if seconds else getattr(config, "seconds", 0.0),
        backbones=_backbones(whole[-1].folder) if whole else config.backbones,
        checkpoint=networks[-1] if networks else "",
    )
    if last is not None:
        set_state(last, PartState.COMPLETE)
    if dataset.has_field(job.key):
        masks = every_sample(dataset).exists(job.key).values(f"{job.key}.mask_path")
        folders = {Path(mask).parent for mask in masks if mask}
        used = folders.union(*(folder.parents for folder in folders))
        for part in parts:
            if part.folder not in used:
                remove_part(part)


def _backbones(folder: Path) -> list[str]:
    try:
        return list(json.loads((folder / "report.json").read_text(encoding="utf-8"))["backbones"])
    except (OSError, ValueError, KeyError):  # a job without features, such as an import
        return []
