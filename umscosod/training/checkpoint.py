"""Checkpoints: the head's weights, what they belong to, and what a killed run needs to go on.

``RUN_DIR/checkpoints/step-00000120/{model.safetensors, meta.json, state.pt}``; written under a temporary name and
renamed, so that a folder with this name is always whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from umscosod.config import NetworkConfig
from umscosod.errors import CheckpointError, ConfigError, shorten
from umscosod.network.model import UmsNetwork

# the redundant names re-export: a checkpoint's metadata is asked for where the checkpoint is
from umscosod.training.metadata import CheckpointMeta as CheckpointMeta
from umscosod.training.metadata import build_config as build_config
from umscosod.training.metadata import format_meta, read_meta, require_file

_WRITING = ".writing-"
MODEL_FILE, META_FILE, STATE_FILE = "model.safetensors", "meta.json", "state.pt"


def save_checkpoint(
    run_dir: Path, model: UmsNetwork, meta: CheckpointMeta, state: Mapping[str, Any], *, keep: int
) -> Path:
    """Write a checkpoint and delete all but the latest `keep`.

    A checkpoint of this very step that is already there is left as it is: a run is a function of its inputs.

    Parameters
    ----------
    run_dir : Path
    model : UmsNetwork
    meta : CheckpointMeta
    state : mapping
        Optimiser, generator and position; tensors, numbers, strings and containers of them only.
    keep : int
        At least 1.

    Returns
    -------
    Path
        Folder of the checkpoint.

    Raises
    ------
    CheckpointError
        It cannot be written.
    """
    folder = run_dir / "checkpoints"
    target = folder / f"step-{meta.step:08d}"
    if not target.is_dir():
        try:
            _write_checkpoint(target, model, meta, state)
        except (OSError, SafetensorError, RuntimeError) as error:  # the last two: a full disk, as the writers say it
            raise CheckpointError(f"cannot write {target}: {error}; check the folder and the disk") from error
    for old in _list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old.rename(folder / f"{_WRITING}{old.name}"))  # never half a folder under its own name
    return target


def _write_checkpoint(target: Path, model: UmsNetwork, meta: CheckpointMeta, state: Mapping[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    temporary = target.with_name(f"{_WRITING}{target.name}")
    temporary.mkdir()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, temporary / MODEL_FILE)
    (temporary / META_FILE).write_text(format_meta(meta), encoding="utf-8")
    torch.save(dict(state), temporary / STATE_FILE)
    for name in (MODEL_FILE, META_FILE, STATE_FILE):
        with (temporary / name).open("rb+") as file:
            os.fsync(file.fileno())
    temporary.replace(target)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left half-written, or half-deleted, in its folder of checkpoints."""
    for leftover in folder.glob(f"{_WRITING}*"):
        if leftover.is_dir() and not leftover.is_symlink():  # ours are folders
            shutil.rmtree(leftover)


def find_checkpoint(path: Path) -> Path:
    """Find a checkpoint's folder from itself, its run's folder, ``checkpoints/`` or ``checkpoints/last``.

    Raises
    ------
    CheckpointError
        There is none.
    """
    with contextlib.suppress(OSError):  # a name longer than the file system allows: nothing is there
        if (path / META_FILE).is_file():
            return path
        for folder in (
            path.parent if path.name == "last" else path,
            path / "checkpoints",
            path / "run" / "checkpoints",
        ):
            found = _list_checkpoints(folder)
            if found:
                return found[-1]
    raise CheckpointError(
        f"no checkpoint in {path}; give a run's folder, or a folder that holds {MODEL_FILE} and {META_FILE}"
    )


def load_meta(path: Path) -> CheckpointMeta:
    """Read what a checkpoint belongs to.

    Raises
    ------
    CheckpointError
        There is no checkpoint, its ``meta.json`` is damaged, or another version wrote it; field and value are named.
    """
    return read_meta(find_checkpoint(path) / META_FILE)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read what a killed run needs to go on (``weights_only``, so no code can hide in it).

    Raises
    ------
    CheckpointError
        The file is missing or damaged.
    """
    file = find_checkpoint(checkpoint) / STATE_FILE
    require_file(file)
    try:
        state: object = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its zip and pickle readers raise
        # Its own words are left out: they advise to load the file in a way that runs code in it.
        raise CheckpointError(
            f"{file} cannot be read: it is damaged, or holds more than tensors and numbers ({type(error).__name__}); "
            "delete its folder to use the one before"
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{file} is no state of a training: it holds a {type(state).__name__} where fields by name belong; delete "
            "its folder to use the one before"
        )
    return state


def load_weights(model: UmsNetwork, checkpoint: Path) -> None:
    """Load a checkpoint's weights into a network of the same configuration, strictly.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or its tensors do not fit.
    """
    file = find_checkpoint(checkpoint) / MODEL_FILE
    check_weights(model, file)
    try:
        weights = load_file(file)
        model.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{file} is damaged: {shorten(str(error), quoted=False)}; train anew") from None
    broken = sorted(name for name, tensor in weights.items() if not torch.isfinite(tensor).all())
    if broken:
        raise CheckpointError(f"{file} is damaged: {broken[0]} holds NaN or infinity; train anew")


def check_weights(model: UmsNetwork, file: Path) -> None:
    """Compare the names, shapes and types in a file of weights with a network's, without reading any tensor.

    Parameters
    ----------
    model : UmsNetwork
        May lie on the device ``meta``.
    file : Path

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or its tensors do not fit; the first that does not is named.
    """
    require_file(file)
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(file, framework="pt") as content:
            slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118
            found = {name: list(part.get_shape()) for name, part in slices.items()}
            kinds = {name: str(part.get_dtype()) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} is damaged: {shorten(str(error), quoted=False)}; train anew") from None
    other = sorted(name for name, kind in kinds.items() if kind != "F32")
    if other:
        raise CheckpointError(
            f"{file} does not fit: {shorten(other[0])} holds numbers of type {shorten(kinds[other[0]])}, expected F32, "
            "as training saves them; train anew"
        )
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        more = f", and {len(wrong) - 1} more do not fit" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{file} does not fit its {META_FILE}: {shorten(name)} has the shape {found.get(name, 'of nothing')}, "
            f"expected {expected.get(name, 'no such tensor')}{more}; train anew"
        )


def load_model(path: Path, expected_backbone_ids: tuple[str, str] | None = None) -> tuple[UmsNetwork, CheckpointMeta]:
    """Load a trained network, in eval mode on the CPU.

    Parameters
    ----------
    path : Path
        Anything `find_checkpoint` understands.
    expected_backbone_ids : (str, str), optional
        Ids of the two streams it will be fed with.

    Raises
    ------
    CheckpointError
        No checkpoint, damaged, of another version, or trained on the tokens of other backbones.
    """
    checkpoint = find_checkpoint(path)
    meta = load_meta(checkpoint)
    if expected_backbone_ids is not None and tuple(expected_backbone_ids) != meta.backbone_ids:
        lines = [
            f"  {stream} stream: trained on {trained!r}, given {given!r}"
            for stream, trained, given in zip(
                ("first", "second"), meta.backbone_ids, expected_backbone_ids, strict=True
            )
            if trained != given
        ]
        raise CheckpointError(
            f"{checkpoint} was trained on the tokens of other backbones:\n" + "\n".join(lines) + "\n"
            "Use the same backbones, weights, size and version of umscosod as in training, or train anew."
        )
    config = network_config(meta, checkpoint)
    try:
        with torch.device("meta"):  # takes no memory, whatever the file says
            check_weights(UmsNetwork(config, *meta.dims), checkpoint / MODEL_FILE)
        model = UmsNetwork(config, *meta.dims)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint / META_FILE}: {error}") from None
    load_weights(model, checkpoint)
    return model.eval(), meta


def network_config(meta: CheckpointMeta, checkpoint: Path) -> NetworkConfig:
    """Settings of the network that a checkpoint holds; CheckpointError names the file and what is wrong in it."""
    return build_config(NetworkConfig, meta.config.get("network", {}), str(checkpoint / META_FILE), "network")


def save_calibration(path: Path, calibration: Mapping[str, float]) -> CheckpointMeta:
    """Store statistics measured after training (such as ``b_bar``) in a checkpoint, beside those already there."""
    checkpoint = find_checkpoint(path)
    meta = load_meta(checkpoint)
    meta = dataclasses.replace(meta, calibration={**meta.calibration, **calibration})
    temporary = checkpoint / f"{_WRITING}{META_FILE}"
    temporary.write_text(format_meta(meta), encoding="utf-8")
    temporary.replace(checkpoint / META_FILE)
    return meta


def _list_checkpoints(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.glob("step-*") if (entry / META_FILE).is_file())
