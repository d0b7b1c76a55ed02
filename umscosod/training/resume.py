"""Taking up a run that was killed: only the same run, from its last whole checkpoint."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umscosod.config.io import iter_differences
from umscosod.data.files import open_atomic
from umscosod.errors import CheckpointError, shorten
from umscosod.network.model import UmsNetwork
from umscosod.training.checkpoint import (
    META_FILE,
    STATE_FILE,
    CheckpointMeta,
    find_checkpoint,
    load_meta,
    load_network_weights,
    load_state,
    remove_leftovers,
)

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
# What a resumed run may change: how long it goes on and how often it saves decide nothing about the steps done.
_FREE_TO_CHANGE = frozenset({"train.epochs", "train.checkpoint_every", "train.keep_checkpoints"})


def resume_training(
    run_dir: Path,
    meta: CheckpointMeta,
    model: UmsNetwork,
    teacher: UmsNetwork,
    optimizer: torch.optim.Optimizer,
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

    Returns
    -------
    int
        Steps done.

    Raises
    ------
    CheckpointError
        The checkpoint was made with other settings, data or backbones, or is damaged.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    remove_leftovers(run_dir / "checkpoints")
    metrics = run_dir / METRICS_FILE
    try:
        checkpoint = find_checkpoint(run_dir / "checkpoints")
    except CheckpointError:
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
    if metrics.is_file():  # the rows after that step will come again; a torn last row is among them
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
    if not isinstance(moments, dict):
        raise _ForeignStateError("optimizer has no state")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, held in moments.items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise _ForeignStateError(f"optimizer: there is no parameter {shorten(index)}")
        like = {"step": torch.tensor(0.0), "exp_avg": parameters[index], "exp_avg_sq": parameters[index]}
        _check_tensors(f"optimizer: parameter {index}", held, like)
    if not moments:
        raise _ForeignStateError("optimizer has no state")
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
