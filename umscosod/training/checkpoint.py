"""Checkpoints: the network, and what it was trained with.

``RUN_DIR/checkpoints/step-00000120/{model.safetensors, meta.json, state.pt}``; written under a temporary name and
renamed, so that a folder with this name is always whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from umscosod.config import NetworkConfig
from umscosod.config.io import drop_removed
from umscosod.config.schema import check_setting, iter_settings
from umscosod.data.files import open_atomic, read_json, why_unreadable
from umscosod.errors import CheckpointError, ConfigError, DataError, shorten
from umscosod.network.model import UmsNetwork

SCHEMA = 1
_MAX_BYTES = 64 * 2**20
_MAX_WIDTH = 16_384
_MAX_COUNT = 2**53
_MAX_DEPTH = 8  # a configuration has 4 levels

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
        See `umscosod.training.sampler.compute_fingerprint`.
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


def _is_count(value: object, low: int = 0, high: int = _MAX_COUNT) -> bool:
    return type(value) is int and low <= value <= high


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0  # NaN is not


def _depth(value: object) -> int:
    """Levels of nesting, counted as far as is too many."""
    level, depth = [value], 0
    while level and depth <= _MAX_DEPTH:
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level, depth = [item for items in inner for item in items], depth + 1
    return depth


# Of the file: what each value must be, in words and as a test.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "config": (
        f"settings by name, at most {_MAX_DEPTH} levels deep",
        lambda value: isinstance(value, dict) and _depth(value) <= _MAX_DEPTH,
    ),
    "backbone_ids": ("two texts", lambda value: _is_pair(value) and all(isinstance(item, str) for item in value)),
    "dims": (
        f"two whole numbers from 1 to {_MAX_WIDTH}",
        lambda value: _is_pair(value) and all(_is_count(item, 1, _MAX_WIDTH) for item in value),
    ),
    "fingerprint": ("text", lambda value: isinstance(value, str)),
    "calibration": (
        "numbers from 0 to 1 by name",
        lambda value: isinstance(value, dict) and all(_is_share(item) for item in value.values()),
    ),
    **dict.fromkeys(("step", "epoch", "schema"), ("a whole number >= 0", _is_count)),
}


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2


def read_part(file: Path) -> Any:
    """Read a JSON file of a checkpoint.

    Raises
    ------
    CheckpointError
        It is missing, not a regular file, very large, or no JSON.
    """
    try:
        return read_json(file, _MAX_BYTES)
    except DataError as error:
        raise CheckpointError(f"{error}; use an earlier checkpoint or train anew") from None


def require_file(file: Path) -> None:
    """Refuse, with a CheckpointError, what is missing or no regular file, which may be waited for."""
    if reason := why_unreadable(file):
        raise CheckpointError(f"{file} cannot be read: {reason}; use an earlier checkpoint or train anew")


def format_meta(meta: CheckpointMeta) -> str:
    """Write metadata as the text of ``meta.json``."""
    return json.dumps(dataclasses.asdict(meta), indent=2, sort_keys=True) + "\n"  # ASCII: paths may be no UTF-8


def build_config(kind: type[T], values: object, where: str, prefix: str = "") -> T:
    """Rebuild a (nested) configuration dataclass from plain values; what is missing keeps its default.

    Parameters
    ----------
    kind : type
        `NetworkConfig` or `FeaturesConfig`.
    values : object
        What the file holds for it.
    where : str
        Starts each message.
    prefix : str
        Dotted name of the section, such as ``"network"``.

    Raises
    ------
    CheckpointError
        Not settings by name, a key this version does not know, a value it does not take, or one of an earlier version
        that is fixed at another value now.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{where}: {prefix} must hold settings by name, got {shorten(values)}; train anew")
    hints = get_type_hints(kind)
    declared = {setting.name: setting for setting in iter_settings(kind, f"{prefix}.")}
    built: dict[str, Any] = {}
    try:
        values = drop_removed(values, f"{prefix}.")
        if unknown := sorted(set(values) - set(hints)):
            names = shorten(", ".join(unknown), quoted=False)
            raise CheckpointError(f"{where}: {prefix} has settings this version does not know: {names}; upgrade it")
        for key, value in values.items():
            name = f"{prefix}.{key}"
            built[key] = (
                build_config(hints[key], value, where, name)
                if dataclasses.is_dataclass(hints[key])
                else check_setting(declared[name], value)
            )
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}; use an earlier checkpoint or train anew") from None
    return kind(**built)


# the redundant names re-export: a checkpoint's metadata is asked for where the checkpoint is

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
        There is no checkpoint, its ``meta.json`` is damaged, a field is missing or of another kind than it must be, or
        another version wrote it; field and value are named.
    """
    file = find_checkpoint(path) / META_FILE
    content = read_part(file)
    cure = "use an earlier checkpoint or train anew"
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is damaged: it holds {shorten(content)} where fields by name belong; {cure}")
    if _is_count(content.get("schema")) and content["schema"] != SCHEMA:
        raise CheckpointError(
            f"{file} has schema {content['schema']}, this version reads {SCHEMA}; install the version that wrote it"
        )
    missing = sorted(_FIELDS.keys() - content.keys() - {"calibration"})
    unknown = sorted(content.keys() - _FIELDS.keys())
    if missing or unknown:
        what = f"{missing[0]} is missing" if missing else f"{shorten(unknown[0])} is no field of it"
        raise CheckpointError(f"{file} is damaged: {what}; {cure}")
    for name, value in content.items():
        wanted, holds = _FIELDS[name]
        if not holds(value):
            raise CheckpointError(f"{file} is damaged: {name} must be {wanted}, got {shorten(value)}; {cure}")
    pairs = {key: tuple(content[key]) for key in ("backbone_ids", "dims")}
    return CheckpointMeta(**{**content, **pairs})


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


def load_network_weights(model: UmsNetwork, checkpoint: Path) -> None:
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


def load_network(path: Path, expected_backbone_ids: tuple[str, str] | None = None) -> tuple[UmsNetwork, CheckpointMeta]:
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
    load_network_weights(model, checkpoint)
    return model.eval(), meta


def network_config(meta: CheckpointMeta, checkpoint: Path) -> NetworkConfig:
    """Settings of the network that a checkpoint holds; CheckpointError names the file and what is wrong in it."""
    return build_config(NetworkConfig, meta.config.get("network", {}), str(checkpoint / META_FILE), "network")


def save_calibration(path: Path, calibration: Mapping[str, float]) -> CheckpointMeta:
    """Store statistics measured after training (such as ``b_bar``) in a checkpoint, beside those already there."""
    checkpoint = find_checkpoint(path)
    meta = load_meta(checkpoint)
    meta = dataclasses.replace(meta, calibration={**meta.calibration, **calibration})
    with open_atomic(checkpoint / META_FILE) as stream:
        stream.write(format_meta(meta).encode())
    return meta


def _list_checkpoints(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.glob("step-*") if (entry / META_FILE).is_file())
