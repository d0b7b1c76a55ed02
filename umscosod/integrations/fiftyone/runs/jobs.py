"""A run as a job: choose samples, freeze them, do the work, write labels; killed anywhere, the next call goes on."""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umscosod.config import PipelineConfig
from umscosod.config_io import config_to_dict
from umscosod.data.groups import groups_from_rows
from umscosod.export.report import package_versions
from umscosod.integrations.fiftyone.runs.fields import (
    HUMAN,
    MODEL,
    LabelItem,
    check_field,
    declare_fields,
    write_labels,
)
from umscosod.integrations.fiftyone.runs.parts import (
    Part,
    PartState,
    add_part,
    hold_run,
    list_parts,
    remove_part,
    set_state,
)
from umscosod.integrations.fiftyone.runs.resume import resume_part
from umscosod.integrations.fiftyone.runs.rows import SampleRow, choose_rows, flat_images, read_rows
from umscosod.integrations.fiftyone.runs.stages import Progress, noting, showing
from umscosod.integrations.fiftyone.runs.start import check_start, folder_of, free_name, open_run
from umscosod.integrations.fiftyone.runs.store import every_sample
from umscosod.progress import ProgressFn
from umscosod.types import ImageGroup, Labelled, Status

if TYPE_CHECKING:
    from umscosod.integrations.fiftyone.runs.record import CoSalRunConfig
    from umscosod.pipeline import LabelReport

logger = logging.getLogger(__name__)

Work = Callable[[Part, ProgressFn], "LabelReport"]
"""Does a part in its folder, or what is left of it."""


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
        What was chosen on the way and why.
    kept : int
        Samples of the view that were left alone: done before, or a person's.
    ungrouped : int
        Samples of the view without a group, which were left alone too.
    seconds : float
        Wall time of the work, that of the calls it goes on from included.
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
        """One sentence for people."""
        parts = [f"{count} {status}" for status, count in self.counts.items() if count]
        parts += [f"{self.kept} kept"] if self.kept else []
        parts += [f"{self.ungrouped} without a group"] if self.ungrouped else []
        first = next((row for row in self.rows if row.status is Status.FAILED), None)
        failed = f"; {first.reason}" if first is not None else ""
        return f"{self.key}: {', '.join(parts) or 'nothing to do'}{failed}"

    @property
    def is_success(self) -> bool:
        """Whether anything was labelled, or nothing was left to do."""
        return not self.rows or self.counts[Status.LABELLED] > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one call of a run asks for.

    Attributes
    ----------
    key, method : str
    group_field : str or None
    out_dir : path or None
    config : PipelineConfig
    verb : dict
        What decides the results beside the configuration.
    overwrite, has_maps : bool
    tree : str
        Folder of the masks inside an output folder.
    """

    key: str
    method: str
    group_field: str | None
    out_dir: str | Path | None
    config: PipelineConfig
    verb: dict[str, Any]
    overwrite: bool
    has_maps: bool = True
    tree: str = "masks"

    @property
    def settings(self) -> dict[str, Any]:
        """What an interrupted part must have in common with a call that goes on with it."""
        return json.loads(json.dumps({**self.verb, "config": config_to_dict(self.config)}))  # type: ignore[no-any-return]


def run_job(sample_collection: Any, job: Job, work: Work, progress: Progress = None) -> RunReport:
    """Finish what an earlier call began, then do what is left of the samples given.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    job : Job
    work : callable
        One call into the pipeline; it resumes by itself in the folder of an interrupted part.
    progress : callable or bool, optional
        See `umscosod.integrations.fiftyone.runs.stages.showing`.

    Raises
    ------
    UmscosodError
        No images, a setting, device or file that is not there, a field that does not fit or is not this run's, or an
        interrupted part of other settings. Nothing is registered by then.
    """
    view = flat_images(sample_collection)
    dataset = view._dataset  # a view has no public way to its data set
    dataset.reload()  # another process may have begun this run since the data set was loaded here
    check_field(dataset, job.key, has_maps=job.has_maps)
    free_name(dataset, job)
    with hold_run(folder_of(dataset, job)), showing(progress) as shown:
        report = _run_held(view, dataset, job, work, shown)
    logger.info("%s", report.summary)
    return report


def _run_held(view: Any, dataset: Any, job: Job, work: Work, progress: ProgressFn) -> RunReport:
    """Do what `run_job` says, while no other call works on the run."""
    found, groups, writes = _choose(view, job)  # refuses a view before anything is registered
    if writes:
        check_start(job)
    config = open_run(dataset, job)
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
    if part is None or not part.replaces:  # else this call was to finish the replacing, and has
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
    """All samples of a view, the groups in which something is left to do, and the ids of the samples to write."""
    found = read_rows(view, job.group_field, job.key)
    chosen, writes = choose_rows(found, overwrite=job.overwrite)
    groups = groups_from_rows((row.id, row.path, row.group) for row in chosen) if chosen else []
    return found, groups, writes


def label_items(part: Part, rows: Iterable[Labelled], tree: str, *, has_maps: bool) -> list[LabelItem]:
    """Turn the rows of a part into labels, where their files are there."""
    items = []
    for row in rows:
        mask, soft = part.folder / tree / row.output, part.folder / "maps" / row.output
        is_there = row.status in (Status.LABELLED, Status.EMPTY) and mask.is_file()
        items.append(
            LabelItem(
                sample_id=row.image_id,
                mask_path=mask if is_there else None,
                map_path=soft if is_there and has_maps and soft.is_file() else None,  # an import may have masks alone
                confidence=row.confidence,
                status=row.status,
                reason=row.reason,
                provenance=HUMAN if row.source == HUMAN else MODEL,
            )
        )
    return items


def _write_part(dataset: Any, job: Job, config: CoSalRunConfig, part: Part, report: LabelReport) -> list[Labelled]:
    """Write the labels of a part; this can be repeated."""
    from umscosod.integrations.fiftyone.runs.record import update_run

    update_run(dataset, job.key, config, changed=uuid.uuid4().hex)  # before: what was evaluated is of other labels now
    rows = [row for row in report.rows if row.image_id in part.writes]
    declare_fields(dataset, job.key, has_maps=job.has_maps)
    items = label_items(part, rows, job.tree, has_maps=job.has_maps)
    write_labels(dataset, job.key, job.key, items, has_maps=job.has_maps, clear_missing=part.replaces)
    return rows


def _close_run(dataset: Any, job: Job, config: CoSalRunConfig, last: Part | None, seconds: list[float]) -> None:
    """Complete the record, then the last part, then drop files that no label points to any more.

    In this order: killed between two of them, the next call finds the part open, and only has to do this again.
    """
    from umscosod.integrations.fiftyone.runs.record import COMPLETE, freeze_samples, update_run

    parts = [part for part in list_parts(Path(config.folder)) if part.run_id == config.run_id]
    whole = [part for part in parts if part.state is PartState.COMPLETE or (last and part.file == last.file)]
    statuses = every_sample(dataset).count_values(f"{job.key}_status") if dataset.has_field(f"{job.key}_status") else {}
    freeze_samples(dataset, job.key, config, [sample_id for part in whole for sample_id in part.sample_ids])
    update_run(
        dataset,
        job.key,
        config,
        state=COMPLETE,
        counts={str(status): count for status, count in statuses.items() if status is not None},
        settings=config_to_dict(job.config),
        seed=job.config.seed,
        versions=package_versions(),
        group_field=job.group_field,
        seconds=seconds[-1] if seconds else getattr(config, "seconds", 0.0),
        backbones=_backbones(whole[-1].folder) if whole else config.backbones,
        checkpoint=next((str(part.folder) for part in reversed(whole) if _has_network(part)), ""),
    )
    if last is not None:
        set_state(last, PartState.COMPLETE)
    if dataset.has_field(job.key):
        used = {
            Path(path).parts for path in every_sample(dataset).exists(job.key).values(f"{job.key}.mask_path") if path
        }
        for part in parts:
            if not any(parts_of[: len(part.folder.parts)] == part.folder.parts for parts_of in used):
                remove_part(part)


def _has_network(part: Part) -> bool:
    return (part.folder / "run" / "checkpoints").is_dir()


def _backbones(folder: Path) -> list[str]:
    try:
        return list(json.loads((folder / "report.json").read_text(encoding="utf-8"))["backbones"])
    except (OSError, ValueError, KeyError):  # a job without features, such as an import
        return []
