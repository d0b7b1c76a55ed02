"""Trains on the masks of a data set: pseudo-labels, accepted masks, or both."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fiftyone as fo

from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, load_config
from umscosod.data.files import open_atomic
from umscosod.data.groups import groups_from_rows
from umscosod.data.images import read_upright_size
from umscosod.data.masks import encode_rle
from umscosod.errors import DataError, count_of
from umscosod.integrations.fiftyone.runs.edits import read_edits
from umscosod.integrations.fiftyone.runs.fields import REVIEWED, ReviewState, check_name, draw_instances, every_sample
from umscosod.integrations.fiftyone.runs.jobs import Job, flat_images, read_samples
from umscosod.integrations.fiftyone.runs.parts import (
    Part,
    PartState,
    add_part,
    hold_run,
    list_parts,
    remove_part,
    resume_part,
    set_state,
    stage_part,
)
from umscosod.integrations.fiftyone.runs.record import COMPLETE, Progress, complete_run, find_run, noting, showing
from umscosod.integrations.fiftyone.runs.start import check_start, folder_of, free_name, open_run
from umscosod.pipeline import train
from umscosod.progress import ProgressFn
from umscosod.pseudo.store import MANIFEST_NAME, dump_row, iter_rows
from umscosod.training.checkpoint import load_meta
from umscosod.types import NAMES, ImageGroup


def with_detections_file(dataset: Any, detections_field: str, part: Part, config: PipelineConfig) -> PipelineConfig:
    """Write the instance masks of a part's samples to ``PART/detections.json`` and point the configuration there.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    detections_field : str
        ``Detections`` field whose detections have masks.
    part : Part
    config : PipelineConfig

    Returns
    -------
    PipelineConfig

    Raises
    ------
    DataError
        A detection has no mask.
    """
    target = part.folder / "detections.json"
    annotations = _read_instances(dataset, detections_field, part)
    images = [{"id": id_, "file_name": id_} for id_ in part.sample_ids]
    with open_atomic(target) as stream:
        stream.write(json.dumps({"images": images, "annotations": annotations}).encode())
    chosen = replace(config.pseudo, proposer="coco-json", detections=str(target), detections_images="")
    return replace(config, pseudo=chosen)


def check_detections_field(dataset: Any, field: str) -> None:
    """Refuse a field that is missing or holds no ``Detections``."""
    if getattr(dataset.get_field(field), "document_type", None) is not fo.Detections:
        raise DataError(f"{field!r} is no Detections field; choose one whose detections have masks")


def _read_instances(dataset: Any, field: str, part: Part) -> list[dict[str, Any]]:
    """Return the instance masks of a part's samples as annotations of a COCO file."""
    annotations = []
    for sample in every_sample(dataset).select(part.sample_ids).select_fields(field).iter_samples():
        detections = sample[field].detections if sample[field] is not None else []
        size_hw = read_upright_size(Path(sample.filepath))[0] if detections else (0, 0)
        for detection in detections:
            if not detection.has_mask:
                raise DataError(f"{sample.filepath}: a detection in {field!r} has no mask; boxes alone cannot be used")
            mask = encode_rle(draw_instances([detection], size_hw) > 0)
            score = 1.0 if detection.confidence is None else float(detection.confidence)
            annotations.append({"image_id": sample.id, "segmentation": mask, "score": score})
    return annotations


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOutcome:
    """The result of a training run.

    Attributes
    ----------
    key : str
        Name of the run; `predict_dataset` takes it.
    checkpoint : Path
    steps : int
    final_loss : float
    out : Path
        Folder of the run.
    n_labels, n_reviewed : int
        Number of masks trained on, and of those that are a person's.
    notes : tuple of str
    seconds : float
        Wall time of the work, with that of the interrupted calls.
    """

    key: str
    checkpoint: Path
    steps: int
    final_loss: float
    out: Path
    n_labels: int
    n_reviewed: int
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """One sentence for people."""
        return (
            f"{self.key}: trained on {count_of(self.n_labels, 'mask')} ({self.n_reviewed} accepted by a person), "
            f"{count_of(self.steps, 'step')}, loss {self.final_loss:.3f}"
        )

    @property
    def is_success(self) -> bool:
        """True: there is a checkpoint, since a failure raises an error."""
        return True


def train_dataset(
    sample_collection: Any,
    *,
    group_field: str | None = None,
    labels: str | None = "pseudo",
    reviewed: str | None = REVIEWED,
    key: str = "network",
    out_dir: str | Path | None = None,
    config: PipelineConfig | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> TrainOutcome:
    """Train the network on masks of the data set and register it as a run.

    Parameters
    ----------
    sample_collection, group_field, out_dir, config, progress
        As for `umscosod.integrations.fiftyone.label_dataset`.
    labels : str or None
        Mask field to learn from, such as that of a pseudo-label run, whose confidences weight the loss. Samples
        rejected by a person are omitted. None: learn from `reviewed` alone.
    reviewed : str or None
        Field of accepted masks; they replace those of `labels` and have full weight. None: do not use any.
    key : str
        Name of the run.
    overwrite : bool
        Train anew if the run is complete.

    Returns
    -------
    TrainOutcome

    Raises
    ------
    DataError
        There are no masks to train on, the run exists, or an interrupted run has other settings.

    Notes
    -----
    The masks are copied when the run begins: later reviews do not change it.
    """
    config = config or load_config(DEFAULT_PRESET)
    view = flat_images(sample_collection)
    dataset = view._dataset
    dataset.reload()  # another process may have begun this run since the data set was loaded here
    check_name(key, "run name")
    if dataset.has_field(key):
        raise DataError(f"{key!r} is a field of this data set; give the network another name")
    job = Job(
        key=key,
        group_field=group_field,
        out_dir=out_dir,
        config=config,
        verb={"verb": "train", "labels": labels or "", "reviewed": reviewed or ""},
        overwrite=overwrite,
        has_maps=False,
        tree="",
    )
    free_name(dataset, job)
    with hold_run(folder_of(dataset, job)), showing(progress) as shown:
        return _train_held(view, job, labels, reviewed, shown)


def _train_held(view: Any, job: Job, labels: str | None, reviewed: str | None, progress: ProgressFn) -> TrainOutcome:
    """Do the work of `train_dataset`, while no other call works on the run."""
    dataset = view._dataset
    if labels:
        read_edits(dataset, labels)
    present = find_run(dataset, job.key)
    if present is not None and not job.overwrite and present.state == COMPLETE:
        raise DataError(f"the run {job.key!r} is complete; choose another name for the network, or overwrite")
    check_start(job)
    # bad input is refused before a new run is registered
    chosen = _choose(view, job, labels, reviewed) if present is None else None
    record = open_run(dataset, job)
    folder = Path(record.folder)
    reports = []

    def do(part: Part) -> None:
        with noting(part, progress) as note:
            report = train(part.groups, part.folder / "labels", part.folder, job.config, progress=note)
        reports.append((report, note.seconds))

    part = resume_part(folder, record.run_id, job, do)
    if part is None:
        part = _freeze(chosen or _choose(view, job, labels, reviewed), dataset, job, folder, record.run_id, labels)
        do(part)
    ((report, seconds),) = reports
    counted = json.loads((part.folder / "labels" / "sources.json").read_text(encoding="utf-8"))
    outcome = TrainOutcome(
        key=job.key,
        checkpoint=report.checkpoint,
        steps=report.steps,
        final_loss=report.final_loss,
        out=folder,
        n_labels=counted["labels"] + counted["reviewed"],
        n_reviewed=counted["reviewed"],
        notes=report.notes,
        seconds=seconds,
    )
    # If the process is killed between two steps, the next call finds the part open and its network trained. The record
    # never names a missing network.
    complete_run(
        dataset,
        job,
        record,
        sorted(part.writes),
        counts={"trained on": outcome.n_labels},
        seconds=outcome.seconds,
        backbones=list(load_meta(outcome.checkpoint).backbone_ids),
        checkpoint=str(outcome.checkpoint),
    )
    set_state(part, PartState.COMPLETE)
    for other in list_parts(folder, record.run_id):
        if other.file != part.file:
            remove_part(other)
    return outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chosen:
    """The training data: groups of images, their masks, and which masks are a person's."""

    groups: tuple[ImageGroup, ...]
    masks: dict[str, Path]
    people: frozenset[str]


def _choose(view: Any, job: Job, labels: str | None, reviewed: str | None) -> _Chosen:
    """Find the images with a group and a mask that nobody rejected; accepted masks replace others."""
    masks = _mask_files(view, labels) if labels else {}
    if labels and view.has_field(f"{labels}_review"):
        for id_, state in zip(*view.values(["id", f"{labels}_review"]), strict=True):
            if state == ReviewState.REJECTED:
                masks.pop(id_, None)
    accepted = _mask_files(view, reviewed) if reviewed and view.has_field(reviewed) else {}
    masks |= accepted
    rows = [row for row in read_samples(view, job.group_field) if row.group and row.id in masks]
    if not rows:
        raise DataError(
            f"no sample with a group has a mask in {labels or reviewed!r}; make pseudo-labels or accept masks first"
        )
    groups = groups_from_rows((row.id, row.path, row.group) for row in rows)
    return _Chosen(groups=tuple(groups), masks=masks, people=frozenset(accepted))


def _mask_files(view: Any, field: str) -> dict[str, Path]:
    if not view.has_field(field):
        raise DataError(f"there is no mask field {field!r}; make pseudo-labels first, or name another field")
    rows = zip(*view.exists(field).values(["id", f"{field}.mask_path"]), strict=True)
    return {id_: Path(path) for id_, path in rows if path}


def _freeze(chosen: _Chosen, dataset: Any, job: Job, folder: Path, run_id: str, labels: str | None) -> Part:
    """Copy the masks to train on, then record the part: an earlier interruption leaves no part to resume."""
    images = [image for group in chosen.groups for image in group.images]
    ids = frozenset(image.id for image in images)
    n_reviewed = len(ids & chosen.people)
    rows = _manifest_rows(dataset, labels, ids - chosen.people)
    with stage_part(folder) as staging:
        target = staging / "labels"
        for image in images:
            _copy(chosen.masks[image.id], target / image.output)
        with open_atomic(target / MANIFEST_NAME) as stream:
            stream.writelines(dump_row(row).encode("utf-8", NAMES) for row in rows)
        with open_atomic(target / "sources.json") as stream:
            stream.write(json.dumps({"reviewed": n_reviewed, "labels": len(ids) - n_reviewed}).encode())
        return add_part(folder, run_id, job.settings, chosen.groups, ids, replaces=job.overwrite, content=staging)


def _copy(mask: Path, target: Path) -> None:
    """Copy a mask byte by byte."""
    try:
        content = mask.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the mask {mask}: {error.strerror}; label or review it again") from error
    with open_atomic(target) as stream:
        stream.write(content)


def _manifest_rows(dataset: Any, labels: str | None, wanted: frozenset[str]) -> Iterable[dict[str, Any]]:
    """Return a pseudo-label run's values of its masks: source, confidence and the grid they were made on."""
    record = find_run(dataset, labels) if labels else None
    if record is None or record.tree != "pseudo":
        return ()
    rows = (
        row for part in list_parts(Path(record.folder)) for row in iter_rows(part.folder / "pseudo" / MANIFEST_NAME)
    )
    return {row["image"]: row for row in rows if row["image"] in wanted}.values()  # a later part's row replaces others
