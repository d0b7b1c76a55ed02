"""The paper in six calls: features -> pseudo-labels -> network -> refinement -> outputs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from umscosod.baselines import BASELINES
from umscosod.config import PipelineConfig, RefineConfig
from umscosod.config.io import DEFAULT_PRESET, load_config
from umscosod.data.files import check_place, real_path
from umscosod.data.groups import Images, find_groups
from umscosod.engine import Engine
from umscosod.errors import DataError
from umscosod.features.backbone import Backbone, BackbonePair, blank_pair
from umscosod.network.model import UmsNetwork
from umscosod.pipeline.checkpoints import (
    calibrate,
    find_probe,
    hash_checkpoint,
    load_fitting,
    load_whitenings,
    take_checkpoint,
)
from umscosod.pipeline.identity import JobSpec, find_finished, named_files, settle_training, specify
from umscosod.pipeline.maps import (
    NETWORK,
    STORED,
    Maps,
    Source,
    baseline_maps,
    check_stored,
    choose_sources,
    find_stored,
    hash_stored,
    read_stored,
)
from umscosod.pipeline.report import (
    LabelReport,
    TrainReport,
    finish_job,
    finished_rows,
    pseudo_rows,
)
from umscosod.pipeline.setup import Prepared, prepare
from umscosod.pipeline.stages import (
    boot_refiners,
    clean_stage,
    label_source,
    prediction_stage,
    pseudo_stage,
    read_labels,
    segment_stage,
    store_maps,
    stored_source,
    training_stage,
)
from umscosod.pipeline.steer import SteerReport, relabel
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.refine.rrbe import mean_uncertainty
from umscosod.steering.examples import Example
from umscosod.training.checkpoint import CheckpointMeta
from umscosod.training.processes import join_processes
from umscosod.training.sampler import compute_fingerprint
from umscosod.types import BoolArray, FloatArray, GroupFeatures, Labelled, PseudoLabel

logger = logging.getLogger(__name__)

__all__ = ["LabelReport", "TrainReport", "label_groups", "make_pseudo_labels", "predict", "refine_maps", "train"]


def label_groups(
    images: Images,
    out: str | Path,
    config: PipelineConfig | None = None,
    *,
    checkpoint: str | Path | None = None,
    train: bool | None = None,
    examples: str | Path | Mapping[str, Example | BoolArray] | None = None,
    backbones: tuple[Backbone, Backbone] | None = None,
    overwrite: bool = False,
    engine: Engine | None = None,
    progress: ProgressFn = ignore_progress,
) -> LabelReport:
    """Find and segment the common object in every group of images.

    Parameters
    ----------
    images : path or sequence of ImageGroup
        A folder with one sub-folder per group, a ``.csv`` or ``.parquet`` list of path (or address, see
        `umscosod.features.remote`) and group, or groups made before.
    out : path
        Output folder: ``masks/``, ``maps/``, ``pseudo/``, ``report.json``, ``index.html``, ``run/``.
    config : PipelineConfig, optional
        By default the ``fast`` preset. ``method`` chooses another source of maps than the whole method.
    checkpoint : path, optional
        Label with this trained network; nothing is trained and no pseudo-labels are made.
    train : bool, optional
        Whether to train the network on the pseudo-labels; off, the masks are refined pseudo-labels. By default where
        it pays, see `umscosod.pipeline.identity.advise_training`; a note says so. Only the method ``ums`` trains.
    examples : path or mapping, optional
        What a person shows of some images, which then corrects their groups: a folder, see
        `umscosod.steering.examples`, or as for `umscosod.relabel`.
    backbones : (Backbone, Backbone), optional
        Of one's own, in the place of those that ``features`` names; see `umscosod.features.backbone.Backbone`.
    overwrite : bool
        Replace the results of an earlier job of other settings or images.
    engine : Engine, optional
        Where images are encoded and groups worked on, see `umscosod.engine.RayEngine`; None: in this process. The
        results are the same. Training and what looks at `examples` stay here.
    progress : callable
        See `umscosod.progress.ProgressFn`.

    Returns
    -------
    LabelReport

    Raises
    ------
    UmscosodError
        What is wrong at the door: settings, images, weights, or an output folder in use. A bad image is no error: it
        is reported as ``failed``.

    Notes
    -----
    Killed at any moment, the same call resumes the job where it stopped and ends with the same files.
    """
    if checkpoint is not None:
        report = predict(
            images, out, checkpoint, config, backbones=backbones, overwrite=overwrite, engine=engine, progress=progress
        )
    else:
        spec = specify(out, config, "label", backbones=backbones, engine=engine, train=train)
        report = _label(images, spec, overwrite, progress)
    if examples is None:
        return report
    return _with_examples(report, relabel(out, examples, backbones=backbones, progress=progress))


def _label(images: Images, spec: JobSpec, overwrite: bool, progress: ProgressFn) -> LabelReport:
    is_baseline = spec.config.method in BASELINES

    def work(prepared: Prepared) -> list[Labelled]:
        if is_baseline:
            return _label_by_baseline(prepared, progress)
        return _label_by_method(prepared, progress)

    return _run(images, spec, work, overwrite=overwrite, progress=progress, wants_masks=not is_baseline)


def _with_examples(report: LabelReport, steered: SteerReport) -> LabelReport:
    rows = {row.image_id: row for row in steered.rows}
    return replace(
        report,
        rows=tuple(rows.get(row.image_id, row) for row in report.rows),
        notes=(*report.notes, *steered.notes),
        seconds=report.seconds + steered.seconds,
    )


def _run(
    images: Images,
    spec: JobSpec,
    work: Callable[[Prepared], list[Labelled]],
    *,
    overwrite: bool,
    progress: ProgressFn,
    **at_door: Any,
) -> LabelReport:
    """Take the report of a job that is finished, or do its work; `at_door` goes to `prepare`."""
    started = time.monotonic()
    groups = find_groups(images, spec.out, inputs=named_files(spec.config))
    spec = settle_training(spec, sum(len(group.images) for group in groups))
    if not overwrite and (done := find_finished(groups, spec)) is not None:
        return done
    with prepare(groups, spec, overwrite=overwrite, progress=progress, **at_door) as prepared:
        return finish_job(prepared, work(prepared), started)


def _label_by_method(prepared: Prepared, progress: ProgressFn) -> list[Labelled]:
    if not prepared.spec.mode["train"]:  # else they would wait for the end of the training
        boot_refiners(prepared)
    labels, probe = clean_stage(prepared, pseudo_stage(prepared, progress))
    _bind_labels(prepared, labels)
    if (rows := finished_rows(prepared)) is not None:
        return rows
    network = pseudo = None
    if prepared.spec.mode["train"] and any(label.mask_hw.any() for label in labels.values()):
        trained = training_stage(prepared, labels, progress)
        b_bar = calibrate(prepared, trained, probe, progress)
        network = stored_source(prepared, NETWORK, b_bar)
    if network is None or prepared.config.keep != "network":
        pseudo = label_source(prepared, labels)
    return segment_stage(prepared, choose_sources(prepared.config, network, pseudo), progress, labels=labels)


def _label_by_baseline(prepared: Prepared, progress: ProgressFn) -> list[Labelled]:
    if (rows := finished_rows(prepared)) is not None:
        return rows
    method = prepared.config.method
    b_bar = store_maps(prepared, baseline_maps(prepared, progress), method, progress)
    return segment_stage(prepared, [stored_source(prepared, method, b_bar)], progress)


def predict(
    images: Images,
    out: str | Path,
    checkpoint: str | Path,
    config: PipelineConfig | None = None,
    *,
    backbones: tuple[Backbone, Backbone] | None = None,
    overwrite: bool = False,
    engine: Engine | None = None,
    progress: ProgressFn = ignore_progress,
) -> LabelReport:
    """Label a collection with a trained network and the probe kept with it.

    The probe stands for the pseudo-labels of `label_groups`: ``keep`` blends its maps with the network's, or takes
    one of them. A checkpoint without a probe labels with the network alone.

    Parameters
    ----------
    images, out, config, backbones, overwrite, engine, progress
        As for `label_groups`. With ``features.backbone`` left at ``auto`` the backbones of the checkpoint are used.
    checkpoint : path
        A checkpoint, a run's folder, or the output folder of `train` or `label_groups`.

    Raises
    ------
    CheckpointError
        No checkpoint there, it is damaged, or it belongs to other backbones; the message says what differs.
    DataError
        The checkpoint is one of the results in `out`, which this job would replace.
    ConfigError
        ``method`` names a source of maps that uses no network.
    """
    check_place(out, "job")
    folder, config = take_checkpoint(checkpoint, load_config(DEFAULT_PRESET) if config is None else config)
    if real_path(folder).is_relative_to(real_path(Path(out) / "run")):
        raise DataError(f"the checkpoint {folder} belongs to the results in {out}; choose another --out")
    spec = specify(out, config, "predict", backbones=backbones, engine=engine, checkpoint=hash_checkpoint(folder))
    whitenings, probe = load_whitenings(folder), find_probe(folder, config)
    loaded: list[tuple[UmsNetwork, CheckpointMeta]] = []

    def admit(pair: BackbonePair) -> None:
        loaded.append(load_fitting(folder, pair, whitenings))

    def work(prepared: Prepared) -> list[Labelled]:
        if (rows := finished_rows(prepared)) is not None:
            return rows
        network = None
        if probe is None or prepared.config.keep != "pseudo":
            ((model, meta),) = loaded
            b_bar = prediction_stage(prepared, model, progress)
            network = stored_source(prepared, NETWORK, meta.calibration.get("b_bar", b_bar))
        return segment_stage(prepared, choose_sources(prepared.config, network, probe), progress)

    return _run(images, spec, work, overwrite=overwrite, progress=progress, whitenings=whitenings, admit=admit)


def make_pseudo_labels(
    images: Images,
    out: str | Path,
    config: PipelineConfig | None = None,
    *,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> LabelReport:
    """Make the pseudo-labels of a collection and stop, so that a person can look at them and replace some.

    Parameters
    ----------
    images, out, config, overwrite, progress
        As for `label_groups`; masks go to ``OUT/pseudo`` beside ``manifest.jsonl``.
    """
    started = time.monotonic()
    spec = specify(out, config, "pseudo")
    groups = find_groups(images, spec.out, inputs=named_files(spec.config))
    with prepare(groups, spec, overwrite=overwrite, progress=progress, wants_masks=True) as prepared:
        labels = pseudo_stage(prepared, progress)
        return finish_job(prepared, pseudo_rows(prepared.features.groups, labels), started)


def train(
    images: Images,
    pseudo: str | Path,
    out: str | Path,
    config: PipelineConfig | None = None,
    *,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> TrainReport:
    """Train the network on pseudo-labels made or reviewed before.

    Parameters
    ----------
    images, out, config, overwrite, progress
        As for `label_groups`; the checkpoint goes to ``OUT/run/checkpoints``.
    pseudo : path
        Folder that `make_pseudo_labels` wrote (``OUT`` or ``OUT/pseudo``), masks replaced by hand included; or any
        folder of masks named like the images.

    Raises
    ------
    ConfigError
        Processes cannot share the groups of a step evenly.
    DataError
        No image has a usable label.
    UmscosodError
        As for `label_groups`; or another process has ended.

    Notes
    -----
    Started by ``torchrun``, or called in every worker of Ray Train, the processes train one network together: the first
    encodes, writes and reports progress; see docs/performance.md. All of them return the same report.
    """
    folder = Path(pseudo) / "pseudo" if (Path(pseudo) / "pseudo").is_dir() else Path(pseudo)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of pseudo-labels; make them with: umscosod pseudo IMAGES --out DIR")
    config = load_config(DEFAULT_PRESET) if config is None else config
    with join_processes(config.device) as processes:
        progress = progress if processes.is_first else ignore_progress
        spec = specify(out, config, "train", processes=processes)
        groups = find_groups(images, spec.out, inputs=[folder, *named_files(spec.config)])
        with prepare(groups, spec, overwrite=overwrite, progress=progress, processes=processes) as prepared:
            labels, probe = clean_stage(prepared, read_labels(prepared, folder))
            _bind_labels(prepared, labels)
            trained = training_stage(prepared, labels, progress)
            if processes.is_first:
                calibrate(prepared, trained, probe, progress)
                prepared.job.finish()
            return TrainReport(
                checkpoint=trained.checkpoint,
                steps=trained.meta.step,
                final_loss=_last_loss(prepared.job.run / "metrics.jsonl"),
                notes=prepared.notes,
                rows=tuple(prepared.failed_rows()),
            )


def _bind_labels(prepared: Prepared, labels: dict[str, PseudoLabel]) -> None:
    prepared.job.bind_labels(compute_fingerprint(prepared.features.groups, labels))


def _last_loss(file: Path) -> float:
    lines = file.read_text(encoding="utf-8").splitlines()
    return float(json.loads(lines[-1])["loss"]) if lines else float("nan")


def refine_maps(
    images: Images,
    maps: Maps,
    out: str | Path,
    config: PipelineConfig | None = None,
    *,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> LabelReport:
    """Make masks anew from stored soft maps, by the settings under ``refine``.

    Parameters
    ----------
    images, out, overwrite, progress
        As for `umscosod.label_groups`; ``OUT/maps`` holds the maps that the masks were made from.
    maps : path, or mapping of str to Path
        Folder of 8-bit grey PNGs laid out like the outputs; the ``OUT`` of an earlier job stands for ``OUT/maps``. Or
        a file by image id.
    config : PipelineConfig, optional
        By default the ``fast`` preset. Only ``data``, ``features`` and ``refine`` have an effect.

    Returns
    -------
    LabelReport
        An image whose map is missing or damaged is ``failed``, and takes no part in its group.

    Raises
    ------
    DataError
        No image has a map, or the maps are among the results in `out`.
    UmscosodError
        As for `umscosod.label_groups`.

    Notes
    -----
    b_bar of eq. 6 is the mean of 1 - conf over all maps given. A saved map has 256 levels, so that masks can differ
    from those of the job it came from where a pixel lies within 1/255 of a threshold, and where the image is smaller
    than the network's input.

    With ``refine.region_filter`` off no backbone is loaded. With it on, the first backbone's tokens come from the
    feature cache, or are made; those of ``embedded`` are whitened by the statistics of the images given here, also
    where the maps came from a network that was trained on others.
    """
    spec = specify(out, config, "refine")
    groups = find_groups(images, spec.out, inputs=named_files(spec.config))
    files = find_stored(groups, maps, spec.out)
    pair = None if looks_at_tokens(spec.config.refine) else blank_pair()
    spec = replace(spec, pair=pair, stored=files, stored_hash=hash_stored(files))

    def work(prepared: Prepared) -> list[Labelled]:
        b_bar = _calibrate(prepared, files, progress)
        return segment_stage(prepared, [_source_of(files, b_bar)], progress)

    return _run(groups, spec, work, overwrite=overwrite, progress=progress)


def looks_at_tokens(config: RefineConfig) -> bool:
    """Whether refinement needs a backbone."""
    return config.enabled and config.region_filter


def _source_of(files: Mapping[str, Path], b_bar: float) -> Source:
    def read_maps(features: GroupFeatures) -> FloatArray:
        height, width = features.pictures_NHW3.shape[1:3]
        return np.stack([read_stored(files[image.id], (height, width)) for image in features.group.images])

    return Source(name=STORED, b_bar=b_bar, make_maps=read_maps)


def _calibrate(prepared: Prepared, files: Mapping[str, Path], progress: ProgressFn) -> float:
    """Read every map once for b_bar, and leave out the images that have none."""
    size_px = prepared.config.features.size_px
    reasons: dict[str, str] = {}
    resized: list[Path] = []

    def iter_maps() -> Iterator[FloatArray]:
        images = [image for group in prepared.features.groups for image in group.images]
        for number, image in enumerate(images):
            progress(number, len(images), "stored maps")
            try:
                if image.id not in files:
                    raise DataError("no soft map was given for it; add one, or leave the image out")
                map_HW = read_stored(files[image.id], (size_px, size_px))
                resized.extend([files[image.id]] if check_stored(files[image.id], image) else [])
            except DataError as error:
                reasons[image.id] = str(error)
            else:
                yield map_HW
        progress(len(images), len(images), "stored maps")

    b_bar = mean_uncertainty(iter_maps())
    prepared.features.leave_out(reasons)
    if resized:
        logger.warning(
            "%d maps have another size than their images (%s is one): they are resized", len(resized), resized[0]
        )
    return b_bar
