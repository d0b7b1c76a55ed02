"""Taking up a run that was killed: only the same run, from its last whole checkpoint."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import torch

from umscosod.errors import CheckpointError
from umscosod.network.model import UmsNetwork
from umscosod.training.checkpoint import (
    CheckpointMeta,
    find_checkpoint,
    load_meta,
    load_state,
    load_weights,
    remove_leftovers,
)

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
# What a resumed run may change: how long it goes on and how often it saves decide nothing about the steps done.
_FREE_TO_CHANGE = frozenset({"train.epochs", "train.checkpoint_every", "train.keep_checkpoints"})


def take_up(
    run_dir: Path,
    meta: CheckpointMeta,
    model: UmsNetwork,
    teacher: UmsNetwork,
    optimizer: torch.optim.Optimizer,
    resume: str,
) -> int:
    """Restore the last checkpoint, or clear the ground for a new run.

    Parameters
    ----------
    run_dir : Path
    meta : CheckpointMeta
        Of the run that asks.
    model, teacher, optimizer
        Get the checkpoint's weights and state; the global CPU generator gets its state too. A checkpoint's model is
        the teacher; where that is not the network itself, the network's weights are part of the state.
    resume : {"auto", "never", "must"}
        See `umscosod.training.loop.train_network`.

    Returns
    -------
    int
        Steps done.

    Raises
    ------
    CheckpointError
        The checkpoint was made with other settings, data or backbones, is damaged, or is missing where it must be.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    remove_leftovers(run_dir / "checkpoints")
    if resume != "never":
        try:
            checkpoint = find_checkpoint(run_dir / "checkpoints")
        except CheckpointError:
            if resume == "must":
                raise
        else:
            _check_same_run(load_meta(checkpoint), meta, checkpoint)
            load_weights(teacher, checkpoint)
            state = load_state(checkpoint)
            if teacher is not model:
                model.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            _cut_metrics(run_dir / METRICS_FILE, state["step"])
            logger.info("training resumes from %s", checkpoint)
            return int(state["step"])
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
    (run_dir / METRICS_FILE).unlink(missing_ok=True)
    return 0


def _check_same_run(saved: CheckpointMeta, now: CheckpointMeta, checkpoint: Path) -> None:
    """Refuse to resume a run with other settings: the result would be neither run's."""

    def flatten(value: object, key: str) -> dict[str, object]:
        if isinstance(value, dict):
            parts = [flatten(inner, f"{key}.{name}" if key else name) for name, inner in value.items()]
            return {name: leaf for part in parts for name, leaf in part.items()}
        return {key: value}

    def relevant(meta: CheckpointMeta) -> dict[str, object]:
        settings = flatten({name: meta.config.get(name) for name in ("seed", "network", "train")}, "")
        settings = {name: value for name, value in settings.items() if name not in _FREE_TO_CHANGE}
        streams = {"first backbone": meta.backbone_ids[0], "second backbone": meta.backbone_ids[1]}
        return {**settings, **streams, "images and pseudo-labels": meta.fingerprint[:12]}

    old, new = relevant(saved), relevant(now)
    lines = [
        f"  {name}: {old.get(name)!r} then, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if lines:
        raise CheckpointError(
            f"cannot resume {checkpoint}, it was made with other settings:\n" + "\n".join(lines) + "\n"
            "Restore them, choose another output folder, or start anew (--overwrite)."
        )


def _cut_metrics(file: Path, step: int) -> None:
    """Drop the rows after a step, which will be done again; a torn last row is among them."""
    if file.is_file():
        rows = file.read_text(encoding="utf-8").splitlines(keepends=True)[:step]
        temporary = file.with_name(f".writing-{file.name}")
        temporary.write_text("".join(rows), encoding="utf-8")
        temporary.replace(file)
