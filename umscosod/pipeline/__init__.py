"""The paper in six calls: features -> pseudo-labels -> network -> refinement -> outputs."""

from __future__ import annotations

import json
import time
from pathlib import Path

from umscosod.baselines.choose import PEERS
from umscosod.config import PipelineConfig
from umscosod.config_io import DEFAULT_PRESET, load_config
from umscosod.data.places import check_place, real_path
from umscosod.errors import DataError
from umscosod.features.registry import BackbonePair
from umscosod.network.model import UmsNetwork
from umscosod.pipeline.checkpoints import (
    calibrate,
    check_fits,
    find_probe,
    hash_checkpoint,
    load_whitenings,
    take_checkpoint,
)
from umscosod.pipeline.choosing import NETWORK, PROBE, PSEUDO
from umscosod.pipeline.outputs import finish_job
from umscosod.pipeline.peers import peer_stage
from umscosod.pipeline.prepare import Images, Prepared, prepare
from umscosod.pipeline.refiner import Refiner, open_workers
from umscosod.pipeline.refining import refine_maps
from umscosod.pipeline.results import LabelReport, TrainReport
from umscosod.pipeline.rows import choice_notes, finished_rows, mixed_notes, pseudo_rows
from umscosod.pipeline.stages import (
    clean_stage,
    label_doubt,
    prediction_stage,
    pseudo_stage,
    read_labels,
    training_stage,
)
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.pseudo.probe import LinearProbe
from umscosod.training.checkpoint import load_model as load_network
from umscosod.training.targets import compute_fingerprint
from umscosod.types import Labelled, PseudoLabel

__all__ = ["LabelReport", "TrainReport", "label_groups", "make_pseudo_labels", "predict", "refine_maps", "train"]


def label_groups(
    images: Images,
    out: str | Path,
    config: PipelineConfig | None = None,
    *,
    checkpoint: str | Path | None = None,
    train: bool = True,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> LabelReport:
    """Find and segment the common object in every group of images.

    Parameters
    ----------
    images : path or sequence of ImageGroup
        A folder with one sub-folder per group, a ``.csv`` list of path and group, or groups made before.
    out : path
        Output folder: ``masks/``, ``maps/``, ``pseudo/``, ``report.json``, ``index.html``, ``run/``.
    config : PipelineConfig, optional
        By default the ``fast`` preset. ``method`` chooses another maker of maps than the whole method.
    checkpoint : path, optional
        Label with this trained network; nothing is trained and no pseudo-labels are made.
    train : bool
        Off: stop at refined pseudo-labels, as ``method=pseudo`` does. Peers, see `config.method`, do not ask.
    overwrite : bool
        Replace the results of an earlier job of other settings or images.
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
    Killed at any moment, the same call takes the job up where it stopped and ends with the same files.
    """
    if checkpoint is not None:
        return predict(images, out, checkpoint, config, overwrite=overwrite, progress=progress)
    started = time.monotonic()
    config = load_config(DEFAULT_PRESET) if config is None else config
    train = train and config.method == "ums"
    mode = {"verb": "label", "train": train}
    wants_masks = config.method not in PEERS
    with prepare(
        images, out, config, mode=mode, overwrite=overwrite, progress=progress, wants_masks=wants_masks
    ) as prepared:
        if prepared.config.method in PEERS:
            return _label_as_peer(prepared, started, progress)
        cleaned = clean_stage(prepared, pseudo_stage(prepared, progress))
        labels = cleaned.labels
        _bind_labels(prepared, labels)
        if (rows := finished_rows(prepared)) is not None:
            return _finish(prepared, rows, started)
        network: UmsNetwork | None = None
        if train and _has_work(labels):
            trained = training_stage(prepared, labels, progress)
            network = trained.model
            b_bar = calibrate(prepared, trained, cleaned.probe, progress)
        b_bars = {} if network is None else {NETWORK: b_bar}
        if network is None or prepared.config.keep != "network":
            b_bars[PSEUDO] = label_doubt(prepared, labels)
        return _refine_and_finish(prepared, labels, b_bars, started, progress)


def _label_as_peer(prepared: Prepared, started: float, progress: ProgressFn) -> LabelReport:
    if (rows := finished_rows(prepared)) is not None:
        return _finish(prepared, rows, started)
    b_bar = peer_stage(prepared, progress)
    return _refine_and_finish(prepared, None, {prepared.config.method: b_bar}, started, progress)


def predict(
    images: Images,
    out: str | Path,
    checkpoint: str | Path,
    config: PipelineConfig | None = None,
    *,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> LabelReport:
    """Label a collection with a trained network and the probe kept with it.

    Which of the two a group keeps, or a mean of both, is chosen as `label_groups` chooses between network and
    pseudo-labels (``keep``). A checkpoint without a probe labels with the network alone.

    Parameters
    ----------
    images, out, config, overwrite, progress
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
        ``method`` names a maker of maps that uses no network.
    """
    started = time.monotonic()
    check_place(out, "job")
    folder, config = take_checkpoint(checkpoint, load_config(DEFAULT_PRESET) if config is None else config)
    if real_path(folder).is_relative_to(real_path(Path(out) / "run")):
        raise DataError(f"the checkpoint {folder} belongs to the results in {out}; choose another --out")
    mode = {"verb": "predict", "checkpoint": hash_checkpoint(folder)}
    whitenings, saved = load_whitenings(folder), find_probe(folder, config)

    def admit(pair: BackbonePair) -> None:
        check_fits(folder, pair, whitenings)

    with prepare(
        images, out, config, mode=mode, overwrite=overwrite, progress=progress, whitenings=whitenings, admit=admit
    ) as prepared:
        pair = prepared.features.pair
        network, meta = load_network(folder, (pair.first.id, pair.second.id))
        b_bar = prediction_stage(prepared, network, progress)
        b_bars = {NETWORK: meta.calibration.get("b_bar", b_bar)}
        if saved is None:
            return _refine_and_finish(prepared, None, b_bars, started, progress)
        b_bars[PROBE] = saved.b_bar
        return _refine_and_finish(prepared, None, b_bars, started, progress, probe=saved.probe)


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
    mode = {"verb": "pseudo"}
    with prepare(images, out, config, mode=mode, overwrite=overwrite, progress=progress, wants_masks=True) as prepared:
        labels = pseudo_stage(prepared, progress)
        rows = pseudo_rows(prepared.features.groups, labels)
        return finish_job(prepared, [*rows, *prepared.failed_rows()], prepared.notes, started)


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
    DataError
        No image has a usable label.
    """
    folder = Path(pseudo) / "pseudo" if (Path(pseudo) / "pseudo").is_dir() else Path(pseudo)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of pseudo-labels; make them with: umscosod pseudo IMAGES --out DIR")
    mode = {"verb": "train"}
    with prepare(images, out, config, mode=mode, overwrite=overwrite, progress=progress, inputs=[folder]) as prepared:
        labels = read_labels(prepared, folder)
        cleaned = clean_stage(prepared, labels)
        _bind_labels(prepared, cleaned.labels)
        trained = training_stage(prepared, cleaned.labels, progress)
        calibrate(prepared, trained, cleaned.probe, progress)
        prepared.job.finish()
        return TrainReport(
            checkpoint=trained.checkpoint,
            steps=trained.meta.step,
            final_loss=_last_loss(prepared.job.run / "metrics.jsonl"),
            notes=prepared.notes,
            rows=tuple(prepared.failed_rows()),
        )


def _refine_and_finish(
    prepared: Prepared,
    labels: dict[str, PseudoLabel] | None,
    b_bars: dict[str, float],
    started: float,
    progress: ProgressFn,
    probe: LinearProbe | None = None,
) -> LabelReport:
    with open_workers(prepared) as pool:
        rows = Refiner(prepared=prepared, labels=labels, b_bars=b_bars, pool=pool, probe=probe).run(progress)
    return _finish(prepared, rows, started, PSEUDO if probe is None else PROBE)


def _finish(prepared: Prepared, rows: list[Labelled], started: float, other: str = PSEUDO) -> LabelReport:
    """Write the report of a job that refined; where two makers competed it says whose maps were kept."""
    competed = other == PROBE or (prepared.job.run / "checkpoints").is_dir()
    is_choice = prepared.config.keep == "better" and competed
    notes = [*prepared.notes, *(choice_notes(rows, other) if is_choice else ()), *mixed_notes(rows)]
    return finish_job(prepared, [*rows, *prepared.failed_rows()], notes, started)


def _bind_labels(prepared: Prepared, labels: dict[str, PseudoLabel]) -> None:
    prepared.job.bind_labels(compute_fingerprint(prepared.features.groups, labels, None))


def _has_work(labels: dict[str, PseudoLabel]) -> bool:
    return any(label.mask_hw.any() for label in labels.values())


def _last_loss(file: Path) -> float:
    lines = file.read_text(encoding="utf-8").splitlines()
    return float(json.loads(lines[-1])["loss"]) if lines else float("nan")
