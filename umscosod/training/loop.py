"""Stage 2, training: the network learns the pseudo-labels, a group or some a step (eq. 9, 10).

What predicts is the teacher, an exponential moving average of the network over its steps. Killed at any moment, a run
resumes from its last checkpoint and ends with the bits it would have had (CPU). Several processes may share the groups
of a step: see `umscosod.training.processes`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from umscosod.config import PipelineConfig
from umscosod.config.io import iter_differences
from umscosod.data.files import open_atomic
from umscosod.device import autocast, deterministic_kernels, resolve_device
from umscosod.errors import Cancelled, CheckpointError, UmscosodError, shorten
from umscosod.network.losses import Loss, compute_loss
from umscosod.network.model import UmsNetwork, build_network
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.training.checkpoint import (
    META_FILE,
    STATE_FILE,
    CheckpointMeta,
    find_checkpoint,
    load_meta,
    load_network_weights,
    load_state,
    remove_leftovers,
    save_checkpoint,
)
from umscosod.training.processes import ALONE, Processes
from umscosod.training.sampler import (
    build_targets,
    compute_fingerprint,
    count_steps,
    image_weight,
    iter_seen,
    locate_step,
    select_groups,
)
from umscosod.types import GroupFeatures, ImageGroup, PseudoLabel

logger = logging.getLogger(__name__)


class Teacher:
    """Follows a network; what training hands back and predicts with.

    A network learns what its labels have in common first and their faults later, one group a step; the average over
    steps holds the former and evens out the latter.

    Parameters
    ----------
    student : UmsNetwork
        Left unchanged.
    decay : float
        Share of the average that a step keeps, in [0, 1), from (1 + t) / (10 + t) upwards in step t = 1, 2, ...; 0
        makes the student its own teacher.

    References
    ----------
    Tarvainen and Valpola, "Mean teachers are better role models", NIPS 2017, arXiv 1703.01780.
    """

    def __init__(self, student: UmsNetwork, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(student) if decay > 0.0 else student

    @torch.no_grad()
    def follow(self, student: UmsNetwork, step: int) -> None:
        """Take step number `step`, from 1, of the student in."""
        if self.model is student:
            return
        keep = min(self.decay, (1 + step) / (10 + step))
        for average, weights in zip(self.model.parameters(), student.parameters(), strict=True):
            average.mul_(keep).add_(weights, alpha=1.0 - keep)
        for own, buffer in zip(self.model.buffers(), student.buffers(), strict=True):
            own.copy_(buffer)


METRICS_FILE = "metrics.jsonl"
# What a resumed run may change: how long it goes on and how often it saves decide nothing about the steps done.
_FREE_TO_CHANGE = frozenset({"train.epochs", "train.checkpoint_every", "train.keep_checkpoints"})
KEEP_CHECKPOINTS = 2  # the latest, on disk: one more than the one that is resumed from, should that be damaged


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedNetwork:
    """Outcome of training.

    Attributes
    ----------
    model : UmsNetwork
        In eval mode, on the device it was trained on; the teacher, where ``train.ema_decay`` is not 0.
    meta : CheckpointMeta
    checkpoint : Path
        Folder of the final checkpoint.
    resumed_step : int
        Step at which the run was resumed; 0 for a run from the start.
    """

    model: UmsNetwork
    meta: CheckpointMeta
    checkpoint: Path
    resumed_step: int


def train_network(
    features: Sequence[GroupFeatures],
    labels: Mapping[str, PseudoLabel],
    config: PipelineConfig,
    run_dir: Path,
    progress: ProgressFn = ignore_progress,
    *,
    groups: Sequence[ImageGroup] | None = None,
    processes: Processes = ALONE,
) -> TrainedNetwork:
    """Train the network on the pseudo-labels of a collection (eq. 9, 10), or resume the run that `run_dir` holds.

    Parameters
    ----------
    features : sequence of GroupFeatures
        One group at a time is looked at, and of it the images drawn: a sequence that loads on access keeps no more
        than these in memory.
    labels : mapping of image id to PseudoLabel
        Images without a label, or of weight 0, are never drawn.
    config : PipelineConfig
    run_dir : Path
        Gets ``metrics.jsonl`` and ``checkpoints/``.
    progress : ProgressFn
        Called after every step as ``(steps done, all steps, "training, loss 0.412")``. If it raises `Cancelled` the
        run is saved where it stands and the exception goes on; resuming continues from that very step.
    groups : sequence of ImageGroup, optional
        ``features[i].group`` for every i, where known without loading; else one pass over `features` reads them.
    processes : Processes
        Those that train this network together, each with all of these arguments; the first alone writes.

    Returns
    -------
    TrainedNetwork

    Raises
    ------
    CheckpointError
        The run in `run_dir` was made with other settings, data or backbones.
    ConfigError
        The groups of a step cannot be shared evenly.
    DataError
        Nothing to train on, or streams that do not fit each other.
    UmscosodError
        The loss is no longer a finite number, or another process has ended.
    """
    config = processes.settle(config)
    device = resolve_device(config.device)
    groups = [one.group for one in features] if groups is None else groups
    usable = select_groups(groups, labels, config.train.label_weights)
    order = tuple(usable)
    meta = _describe_run(features[order[0]].take((0,)), config, compute_fingerprint(groups, labels))
    model = build_network(config.network, *meta.dims, config.seed).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.train.learning_rate)

    with deterministic_kernels(device):
        teacher = Teacher(model, config.train.ema_decay)
        with processes.first_alone():
            resumed = step = _resume(run_dir, meta, model, teacher.model, optimizer, writes=processes.is_first)
        processes.check_same("checkpoint, images and pseudo-labels", int(meta.fingerprint[:15], 16) + step)
        epoch_steps = count_steps(len(order), config.train.groups_per_step)
        total = epoch_steps * config.train.epochs
        model.train()
        with (run_dir / METRICS_FILE if processes.is_first else Path(os.devnull)).open("a", encoding="utf-8") as log:
            while step < total:
                visits = locate_step(config.seed, step, len(order), config.train.groups_per_step)
                seen = iter_seen(features, groups, usable, processes.share(visits), config)
                loss = _train_step(model, optimizer, seen, len(visits), labels, config, processes)
                step += 1
                teacher.follow(model, step)
                epoch = visits[0].epoch + 1
                _log_step(log, step, epoch, loss)
                meta = dataclasses.replace(meta, step=step, epoch=epoch)
                if step == total or step % (epoch_steps * config.train.checkpoint_every) == 0:
                    _save(run_dir, model, teacher, optimizer, meta, processes)
                try:
                    progress(step, total, f"training, loss {loss.total.item():.3f}")
                except Cancelled:
                    _save(run_dir, model, teacher, optimizer, meta, processes)
                    raise
    processes.wait()
    checkpoint = find_checkpoint(run_dir / "checkpoints")
    return TrainedNetwork(
        model=teacher.model.eval(), meta=load_meta(checkpoint), checkpoint=checkpoint, resumed_step=resumed
    )


def _train_step(
    model: UmsNetwork,
    optimizer: torch.optim.Optimizer,
    seen: Iterable[GroupFeatures],
    count: int,
    labels: Mapping[str, PseudoLabel],
    config: PipelineConfig,
    processes: Processes,
) -> Loss:
    """Take a step by the mean gradient of `count` groups, of which `seen` is this process's share; give their loss."""
    device = next(model.parameters()).device
    optimizer.zero_grad(set_to_none=True)
    losses = torch.zeros(len(Loss._fields), device=device)
    for features in seen:
        # Divided before the sum, not after it, so that it is the same in one process and in several.
        loss = Loss(*(part / count for part in _compute_group_loss(model, features, labels, config, device)))
        loss.total.backward()  # type: ignore[no-untyped-call]
        losses += torch.stack([part.detach() for part in loss])
    (group,) = optimizer.param_groups
    losses = processes.sum_gradients(group["params"], losses)
    optimizer.step()
    return Loss(*losses)


def _compute_group_loss(
    model: UmsNetwork,
    features: GroupFeatures,
    labels: Mapping[str, PseudoLabel],
    config: PipelineConfig,
    device: torch.device,
) -> Loss:
    group = features.group
    targets = [labels[image.id] for image in group.images]
    height, width = features.size_hw
    target_NHW = build_targets(targets, (height, width))

    def tensor(array: np.ndarray[Any, Any], dtype: torch.dtype = torch.float32) -> Tensor:
        # `GroupFeatures.take` copies, so cached read-only features are never shared with a tensor.
        return torch.from_numpy(array).to(device=device, dtype=dtype)

    with autocast(device):
        logits = model(
            tensor(features.first.tokens_NPD),
            tensor(features.second.tokens_NPD),
            tensor(features.saliency_NP),
            features.first.grid_hw,
            features.second.grid_hw,
            (height, width),
            tensor(features.pictures_NHW3, torch.uint8) if config.network.decoder.picture else None,
        )
    loss = compute_loss(
        logits,
        target_NHW.to(device),
        torch.tensor([image_weight(label, config.train.label_weights) for label in targets], device=device),
        label_smoothing=config.train.label_smoothing,
    )
    if not math.isfinite(loss.total.item()):
        raise UmscosodError(
            f"the loss became {loss.total.item()} on group {group.name!r}; use network.fram.amp_norm=row, a smaller "
            "train.learning_rate, or device=cpu (full precision)"
        )
    return loss


def _describe_run(sample: GroupFeatures, config: PipelineConfig, fingerprint: str) -> CheckpointMeta:
    return CheckpointMeta(
        config=json.loads(json.dumps(dataclasses.asdict(config))),
        backbone_ids=(sample.first.backbone_id, sample.second.backbone_id),
        dims=(sample.first.tokens_NPD.shape[2], sample.second.tokens_NPD.shape[2]),
        fingerprint=fingerprint,
        step=0,
        epoch=0,
    )


def _save(
    run_dir: Path,
    model: UmsNetwork,
    teacher: Teacher,
    optimizer: torch.optim.Optimizer,
    meta: CheckpointMeta,
    processes: Processes,
) -> None:
    if not processes.is_first:
        return
    state: dict[str, Any] = {"optimizer": optimizer.state_dict(), "step": meta.step}
    if teacher.model is not model:
        state["network"] = model.state_dict()
    save_checkpoint(run_dir, teacher.model, meta, state, keep=KEEP_CHECKPOINTS)


def _log_step(log: TextIO, step: int, epoch: int, loss: Loss) -> None:
    row = {"step": step, "epoch": epoch, "loss": loss.total.item(), "bce": loss.bce.item(), "iou": loss.iou.item()}
    log.write(json.dumps(row) + "\n")
    log.flush()


# Taking up a run that was killed: only the same run, from its last whole checkpoint.


def _resume(
    run_dir: Path,
    meta: CheckpointMeta,
    model: UmsNetwork,
    teacher: UmsNetwork,
    optimizer: torch.optim.Optimizer,
    *,
    writes: bool,
) -> int:
    """Restore the last checkpoint, or clear the ground for a new run.

    Parameters
    ----------
    run_dir : Path
    meta : CheckpointMeta
        Of the run that asks.
    model, teacher, optimizer
        Get the checkpoint's weights and state. A checkpoint's model is the teacher; where that is not the network
        itself, the network's weights are part of the state.
    writes : bool
        Off: the folder is only looked at, another process writes to it.

    Returns
    -------
    int
        Steps done.

    Raises
    ------
    CheckpointError
        The checkpoint was made with other settings, data or backbones, or is damaged.
    """
    if writes:
        run_dir.mkdir(parents=True, exist_ok=True)
        remove_leftovers(run_dir / "checkpoints")
    metrics = run_dir / METRICS_FILE
    try:
        checkpoint = find_checkpoint(run_dir / "checkpoints")
    except CheckpointError:
        if writes:
            shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
            metrics.unlink(missing_ok=True)
        return 0
    saved = load_meta(checkpoint)
    _check_same_run(saved, meta, checkpoint)
    load_network_weights(teacher, checkpoint)
    try:
        _restore(load_state(checkpoint), saved.step, model, teacher, optimizer)
    except _ForeignStateError as error:
        raise CheckpointError(
            f"{checkpoint / STATE_FILE} is not the state of this training: {error}; delete its folder to use the one "
            "before"
        ) from None
    if writes and metrics.is_file():  # the rows after that step will come again; a torn last row is among them
        rows = metrics.read_text(encoding="utf-8").splitlines(keepends=True)[: saved.step]
        with open_atomic(metrics) as stream:
            stream.write("".join(rows).encode())
    logger.info("training resumes from %s", checkpoint)
    return saved.step


class _ForeignStateError(Exception):
    """A state is whole, but of something else; says what is wrong."""


def _restore(
    state: dict[str, Any], step: int, model: UmsNetwork, teacher: UmsNetwork, optimizer: torch.optim.Optimizer
) -> None:
    """Put a state back, once all of it is known to fit."""
    wanted = {"optimizer", "step"} | ({"network"} if teacher is not model else set())
    if missing := sorted(wanted - state.keys()):
        raise _ForeignStateError(f"{missing[0]} is missing")
    if type(state["step"]) is not int or state["step"] != step:
        raise _ForeignStateError(f"step is {shorten(state['step'])}, {META_FILE} says {step}")
    moments = _check_optimizer(state["optimizer"], optimizer)
    if teacher is not model:
        _check_tensors("network", state["network"], model.state_dict())
        model.load_state_dict(state["network"])
    # Its own step size and betas stay: they are settings, which `_check_same_run` has compared.
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_optimizer(saved: object, optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """Adam's moments, one set for each parameter that had a gradient."""
    moments = saved.get("state") if isinstance(saved, dict) else None
    if not isinstance(moments, dict) or not moments:
        raise _ForeignStateError("optimizer has no state")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, held in moments.items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise _ForeignStateError(f"optimizer: there is no parameter {shorten(index)}")
        like = {"step": torch.tensor(0.0), "exp_avg": parameters[index], "exp_avg_sq": parameters[index]}
        _check_tensors(f"optimizer: parameter {index}", held, like)
    return moments


def _check_tensors(what: str, found: object, expected: Mapping[str, Tensor]) -> None:
    if not isinstance(found, dict) or found.keys() != expected.keys():
        names = sorted(map(str, found)) if isinstance(found, dict) else found
        raise _ForeignStateError(f"{what} holds {shorten(names)}, expected {shorten(sorted(expected))}")
    for name, wanted in expected.items():
        held = found[name]
        if not isinstance(held, Tensor) or (held.shape, held.dtype) != (wanted.shape, wanted.dtype):
            got = f"{tuple(held.shape)} {held.dtype}" if isinstance(held, Tensor) else shorten(held)
            raise _ForeignStateError(f"{what}: {name} is {got}, expected {tuple(wanted.shape)} {wanted.dtype}")
        if held.is_floating_point() and not torch.isfinite(held).all():
            raise _ForeignStateError(f"{what}: {name} holds NaN or infinity")


def _check_same_run(saved: CheckpointMeta, now: CheckpointMeta, checkpoint: Path) -> None:
    """Refuse to resume a run with other settings: the result would be neither run's."""

    def facts(meta: CheckpointMeta) -> dict[str, Any]:
        settings = {name: meta.config.get(name) for name in ("seed", "network", "train")}
        streams = {"first backbone": meta.backbone_ids[0], "second backbone": meta.backbone_ids[1]}
        return {"config": settings, **streams, "images and pseudo-labels": meta.fingerprint[:12]}

    lines = [
        f"  {name.removeprefix('config.')}: {shorten(then)} then, {shorten(today)} now"
        for name, then, today in iter_differences(facts(saved), facts(now))
        if name.removeprefix("config.") not in _FREE_TO_CHANGE
    ]
    if lines:
        raise CheckpointError(
            f"cannot resume {checkpoint}, it was made with other settings:\n" + "\n".join(lines) + "\n"
            "Restore them, choose another output folder, or start anew (--overwrite)."
        )
