"""Checkpoints: the head's weights, what they belong to, and what a killed run needs to go on.

``RUN_DIR/checkpoints/step-00000120/{model.safetensors, meta.json, state.pt}``; written under a temporary name and
renamed, so that a folder with this name is always whole.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from umscosod.config import NetworkConfig
from umscosod.errors import CheckpointError
from umscosod.network.model import UmsNetwork

SCHEMA = 1
_WRITING = ".writing-"
MODEL_FILE, META_FILE, STATE_FILE = "model.safetensors", "meta.json", "state.pt"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointMeta:
    """What the weights belong to.

    Attributes
    ----------
    config : dict
        The whole resolved `PipelineConfig`, as plain JSON values.
    backbone_ids : (str, str)
        Of the first and second stream.
    dims : (int, int)
        Token widths of the two streams.
    fingerprint : str
        See `umscosod.training.targets.compute_fingerprint`.
    step, epoch : int
        Steps done, and epochs begun.
    calibration : dict of str to float
        Statistics measured after training, such as ``b_bar`` of eq. 6.
    schema : int
        Version of this layout.
    """

    config: dict[str, Any]
    backbone_ids: tuple[str, str]
    dims: tuple[int, int]
    fingerprint: str
    step: int
    epoch: int
    calibration: dict[str, float] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA


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
    (temporary / META_FILE).write_text(_meta_text(meta), encoding="utf-8")
    torch.save(dict(state), temporary / STATE_FILE)
    for name in (MODEL_FILE, META_FILE, STATE_FILE):
        with (temporary / name).open("rb+") as file:
            os.fsync(file.fileno())
    temporary.replace(target)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left half-written, or half-deleted, in its folder of checkpoints."""
    for leftover in folder.glob(f"{_WRITING}*"):
        shutil.rmtree(leftover)


def find_checkpoint(path: Path) -> Path:
    """Find a checkpoint's folder from itself, its run's folder, ``checkpoints/`` or ``checkpoints/last``.

    Raises
    ------
    CheckpointError
        There is none.
    """
    if (path / META_FILE).is_file():
        return path
    for folder in (path.parent if path.name == "last" else path, path / "checkpoints", path / "run" / "checkpoints"):
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
        There is no checkpoint, its ``meta.json`` is damaged, or another version wrote it.
    """
    file = find_checkpoint(path) / META_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        schema = content["schema"]
        if schema == SCHEMA:
            pairs = {key: tuple(content[key]) for key in ("backbone_ids", "dims")}
            return CheckpointMeta(**{**content, **pairs})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); use an earlier checkpoint or train anew") from error
    raise CheckpointError(f"{file} has schema {schema}, this version reads {SCHEMA}; install the version that wrote it")


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read what a killed run needs to go on (``weights_only``, so no code can hide in it).

    Raises
    ------
    CheckpointError
        The file is missing or damaged.
    """
    file = find_checkpoint(checkpoint) / STATE_FILE
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its zip and pickle readers raise
        raise CheckpointError(f"{file} cannot be read ({error}); delete its folder to use the one before") from error
    return state


def load_weights(model: UmsNetwork, checkpoint: Path) -> None:
    """Load a checkpoint's weights into a network of the same configuration, strictly.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or its tensors do not fit.
    """
    file = find_checkpoint(checkpoint) / MODEL_FILE
    try:
        model.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{file} does not fit its {META_FILE} or is damaged: {error}") from error


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
    model = UmsNetwork(
        build_config(NetworkConfig, meta.config.get("network", {}), f"{checkpoint}: network"), *meta.dims
    )
    load_weights(model, checkpoint)
    return model.eval(), meta


def save_calibration(path: Path, calibration: Mapping[str, float]) -> CheckpointMeta:
    """Store statistics measured after training (such as ``b_bar``) in a checkpoint, beside those already there."""
    checkpoint = find_checkpoint(path)
    meta = load_meta(checkpoint)
    meta = dataclasses.replace(meta, calibration={**meta.calibration, **calibration})
    temporary = checkpoint / f"{_WRITING}{META_FILE}"
    temporary.write_text(_meta_text(meta), encoding="utf-8")
    temporary.replace(checkpoint / META_FILE)
    return meta


def build_config(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Rebuild a (nested) configuration dataclass from plain values; what is missing keeps its default.

    Raises
    ------
    CheckpointError
        A key this version does not know.
    """
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise CheckpointError(f"{where} has settings this version does not know: {', '.join(unknown)}; upgrade it")
    return kind(
        **{
            key: build_config(hints[key], value, f"{where}.{key}") if dataclasses.is_dataclass(hints[key]) else value
            for key, value in values.items()
        }
    )


def _meta_text(meta: CheckpointMeta) -> str:
    return json.dumps(dataclasses.asdict(meta), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _list_checkpoints(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.glob("step-*") if (entry / META_FILE).is_file())
