"""The ``meta.json`` of a checkpoint: what its weights belong to, checked field by field before use."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

from umscosod.config_schema import check_setting, iter_settings
from umscosod.data.files import read_json, why_unreadable
from umscosod.errors import CheckpointError, ConfigError, DataError, shorten

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


class _Field(NamedTuple):
    """Of the file: what its value must be, in words and as a test."""

    wanted: str
    holds: Callable[[Any], bool]


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


_FIELDS = {
    "config": _Field(
        f"settings by name, at most {_MAX_DEPTH} levels deep",
        lambda value: isinstance(value, dict) and _depth(value) <= _MAX_DEPTH,
    ),
    "backbone_ids": _Field("two texts", lambda value: _is_pair(value) and all(isinstance(item, str) for item in value)),
    "dims": _Field(
        f"two whole numbers from 1 to {_MAX_WIDTH}",
        lambda value: _is_pair(value) and all(_is_count(item, 1, _MAX_WIDTH) for item in value),
    ),
    "fingerprint": _Field("text", lambda value: isinstance(value, str)),
    "step": _Field("a whole number >= 0", _is_count),
    "epoch": _Field("a whole number >= 0", _is_count),
    "calibration": _Field(
        "numbers from 0 to 1 by name",
        lambda value: isinstance(value, dict) and all(_is_share(item) for item in value.values()),
    ),
    "schema": _Field("a whole number >= 0", _is_count),
}


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2


def read_meta(file: Path) -> CheckpointMeta:
    """Read and check a ``meta.json``.

    Raises
    ------
    CheckpointError
        It is damaged, a field is missing or of another kind than it must be, or another version wrote it.
    """
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
        if not _FIELDS[name].holds(value):
            raise CheckpointError(
                f"{file} is damaged: {name} must be {_FIELDS[name].wanted}, got {shorten(value)}; {cure}"
            )
    pairs = {key: tuple(content[key]) for key in ("backbone_ids", "dims")}
    return CheckpointMeta(**{**content, **pairs})


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
        Not settings by name, a key this version does not know, or a value it does not take.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{where}: {prefix} must hold settings by name, got {shorten(values)}; train anew")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        names = shorten(", ".join(unknown), quoted=False)
        raise CheckpointError(f"{where}: {prefix} has settings this version does not know: {names}; upgrade it")
    declared = {setting.name: setting for setting in iter_settings(kind, f"{prefix}.")}
    built: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}"
        try:
            built[key] = (
                build_config(hints[key], value, where, name)
                if dataclasses.is_dataclass(hints[key])
                else check_setting(declared[name], value)
            )
        except ConfigError as error:
            raise CheckpointError(f"{where}: {error}; use an earlier checkpoint or train anew") from None
    return kind(**built)
