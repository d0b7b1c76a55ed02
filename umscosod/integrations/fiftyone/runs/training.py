"""Trains on the masks of a data set: pseudo-labels, accepted masks, or both."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, config_to_dict, load_config
from umscosod.data.files import open_atomic
from umscosod.data.groups import groups_from_rows
from umscosod.data.images import read_upright_size
from umscosod.data.masks import encode_rle
from umscosod.errors import DataError, count_of
from umscosod.integrations.fiftyone.runs.fields import FOREGROUND, REVIEWED, ReviewState, every_sample
from umscosod.integrations.fiftyone.runs.jobs import Job, flat_images, read_groups
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
from umscosod.integrations.fiftyone.runs.record import Progress, noting, showing
from umscosod.integrations.fiftyone.runs.start import check_start, folder_of, free_name, open_run
from umscosod.progress import ProgressFn
from umscosod.pseudo.store import MANIFEST_NAME, dump_row, iter_rows
from umscosod.types import NAMES, ImageGroup


def with_detections_file(
    sample_collection: Any, detections_field: str | None, part: Part, config: PipelineConfig
) -> PipelineConfig:
    """Write the instance masks of a part's samples to ``PART/detections.json`` and point the configuration there.

    If the configuration names a COCO file, the pipeline reads it and finds images by the paths of their files.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    detections_field : str or None
        ``Detections`` field whose detections have masks; None: the configuration decides.
    part : Part
    config : PipelineConfig

    Returns
    -------
    PipelineConfig
        Unchanged without a field.

    Raises
    ------
    DataError
        A detection has no mask.
    """
    if detections_field is None:
        return config
    target = part.folder / "detections.json"
    content = _from_field(sample_collection, detections_field, part)
    with open_atomic(target) as stream:
        stream.write(json.dumps(content).encode())
    chosen = replace(config.pseudo, proposer="coco-json", detections=str(target), detections_images="")
    return replace(config, pseudo=chosen)


def check_detections_field(dataset: Any, field: str) -> None:
    """Refuse a field that is missing or holds no ``Detections``."""
    if getattr(dataset.get_field(field), "document_type", None) is not fo.Detections:
        raise DataError(f"{field!r} is no Detections field; choose one whose detections have masks")


def _from_field(sample_collection: Any, field: str, part: Part) -> dict[str, Any]:
    dataset = sample_collection._dataset
    annotations = []
    for sample in every_sample(dataset).select(part.sample_ids).select_fields(field).iter_samples():
        detections = sample[field].detections if sample[field] is not None else []
        size_hw = read_upright_size(Path(sample.filepath))[0] if detections else (0, 0)
        for detection in detections:
            if not detection.has_mask:
                raise DataError(f"{sample.filepath}: a detection in {field!r} has no mask; boxes alone cannot be used")
            whole_HW = np.zeros(size_hw, np.uint8)
            detection.to_segmentation(mask=whole_HW, target=FOREGROUND)  # draws into the given mask
            score = 1.0 if detection.confidence is None else float(detection.confidence)
            annotations.append({"image_id": sample.id, "segmentation": encode_rle(whole_HW > 0), "score": score})
    return {"images": [{"id": id_, "file_name": id_} for id_ in part.sample_ids], "annotations": annotations}


METHOD = "umscosod/train"


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
    config = load_config(DEFAULT_PRESET) if config is None else config
    view = flat_images(sample_collection)
    dataset = view._dataset
    dataset.reload()  # another process may have begun this run since the data set was loaded here
    if not key.isidentifier() or key.startswith("_"):
        raise DataError(f"run name {key!r} must be letters, digits and '_', starting with a letter")
    if dataset.has_field(key):
        raise DataError(f"{key!r} is a field of this data set; give the network another name")
    job = Job(
        key=key,
        method=METHOD,
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
    from umscosod.pipeline import train

    dataset = view._dataset
    is_new = _refuse_trained(dataset, job.key, job.overwrite)
    check_start(job)
    chosen = _choose(view, job, labels, reviewed) if is_new else None  # refuses bad input before the run is registered
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
    _complete(dataset, job, record, part, outcome)
    set_state(part, PartState.COMPLETE)
    for other in list_parts(folder):
        if other.run_id == record.run_id and other.file != part.file:
            remove_part(other)
    return outcome


def _refuse_trained(dataset: Any, key: str, overwrite: bool) -> bool:
    """Refuse the name of a complete run; return whether the run is new."""
    from umscosod.integrations.fiftyone.runs.record import COMPLETE, find_run

    present = find_run(dataset, key)
    if present is not None and not overwrite and present.state == COMPLETE:
        raise DataError(f"the run {key!r} is complete; choose another name for the network, or overwrite")
    return present is None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chosen:
    """The training data: groups of images, their masks, and which masks are a person's."""

    groups: tuple[ImageGroup, ...]
    masks: dict[str, Path]
    people: frozenset[str]


def _choose(view: Any, job: Job, labels: str | None, reviewed: str | None) -> _Chosen:
    """Find the images with a group and a mask."""
    masks, people = _find_masks(view, labels, reviewed)
    ids, paths = view.values(["id", "filepath"])
    names = read_groups(view, [Path(path) for path in paths], job.group_field)
    rows = [(id_, Path(path), name) for id_, path, name in zip(ids, paths, names, strict=True) if name and id_ in masks]
    if not rows:
        raise DataError(
            f"no sample with a group has a mask in {labels or reviewed!r}; make pseudo-labels or accept masks first"
        )
    return _Chosen(groups=tuple(groups_from_rows(rows)), masks=masks, people=people)


def _freeze(chosen: _Chosen, dataset: Any, job: Job, folder: Path, run_id: str, labels: str | None) -> Part:
    """Copy the masks to train on, then record the part: an earlier interruption leaves no part to resume."""
    ids = frozenset(image.id for group in chosen.groups for image in group.images)
    n_reviewed = len(ids & chosen.people)
    with stage_part(folder) as staging:
        target = staging / "labels"
        _copy_masks(chosen.groups, chosen.masks, target)
        _write_manifest(dataset, labels, ids - chosen.people, target)
        with open_atomic(target / "sources.json") as stream:
            stream.write(json.dumps({"reviewed": n_reviewed, "labels": len(ids) - n_reviewed}).encode())
        return add_part(folder, run_id, job.settings, chosen.groups, ids, replaces=job.overwrite, content=staging)


def _find_masks(view: Any, labels: str | None, reviewed: str | None) -> tuple[dict[str, Path], frozenset[str]]:
    """Return mask files by sample, and the samples whose mask is a person's."""
    masks = _mask_files(view, labels) if labels else {}
    if labels and view.has_field(f"{labels}_review"):
        for id_, state in zip(*view.values(["id", f"{labels}_review"]), strict=True):
            if state == ReviewState.REJECTED:
                masks.pop(id_, None)
    accepted = _mask_files(view, reviewed) if reviewed and view.has_field(reviewed) else {}
    return {**masks, **accepted}, frozenset(accepted)


def _mask_files(view: Any, field: str) -> dict[str, Path]:
    if not view.has_field(field):
        raise DataError(f"there is no mask field {field!r}; make pseudo-labels first, or name another field")
    rows = zip(*view.exists(field).values(["id", f"{field}.mask_path"]), strict=True)
    return {id_: Path(path) for id_, path in rows if path}


def _copy_masks(groups: Iterable[ImageGroup], masks: dict[str, Path], target: Path) -> None:
    """Copy masks byte by byte into the pipeline's folder."""
    for group in groups:
        for image in group.images:
            source = masks[image.id]
            try:
                content = source.read_bytes()
            except OSError as error:
                raise DataError(f"cannot read the mask {source}: {error.strerror}; label or review it again") from error
            with open_atomic(target / image.output) as stream:
                stream.write(content)


def _write_manifest(dataset: Any, labels: str | None, sample_ids: Iterable[str], target: Path) -> None:
    """Copy a pseudo-label run's values of its masks: source, confidence and the grid they were made on."""
    from umscosod.integrations.fiftyone.runs.record import find_run

    record = find_run(dataset, labels) if labels else None
    wanted = set(sample_ids)
    rows: dict[str, dict[str, Any]] = {}
    if record is not None and record.tree == "pseudo":
        for part in list_parts(Path(record.folder)):
            for row in iter_rows(part.folder / "pseudo" / MANIFEST_NAME):
                if row["image"] in wanted:
                    rows[row["image"]] = row  # a later part's row replaces an earlier one's
    with open_atomic(target / MANIFEST_NAME) as stream:
        stream.writelines(dump_row(row).encode("utf-8", NAMES) for row in rows.values())


def _complete(dataset: Any, job: Job, record: Any, part: Part, outcome: TrainOutcome) -> None:
    from umscosod.integrations.fiftyone.runs.record import COMPLETE, freeze_samples, update_run
    from umscosod.training.checkpoint import load_meta

    freeze_samples(dataset, job.key, record, sorted(part.writes))
    update_run(
        dataset,
        job.key,
        record,
        state=COMPLETE,
        checkpoint=str(outcome.checkpoint),
        backbones=list(load_meta(outcome.checkpoint).backbone_ids),
        counts={"trained on": outcome.n_labels},
        settings=config_to_dict(job.config),
        seed=job.config.seed,
        group_field=job.group_field,
        seconds=outcome.seconds,
    )
