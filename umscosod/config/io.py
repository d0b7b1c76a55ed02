"""Read and write settings: presets, files, overrides, and what earlier versions stored."""

from __future__ import annotations

import difflib
import json
import logging
import stat
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict, fields
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast, get_type_hints

import yaml

from umscosod.config import PipelineConfig
from umscosod.config.schema import check_value, sections, settings
from umscosod.errors import ConfigError, one_line, reason_of, shorten

logger = logging.getLogger(__name__)

_PRESETS = resources.files("umscosod") / "presets"
_REMOVED: Mapping[str, Any] = json.loads(
    resources.files("umscosod.config").joinpath("removed.json").read_text(encoding="utf-8")
)
REMOVED = MappingProxyType({name: tuple(it) if isinstance(it, list) else it for name, it in _REMOVED.items()})
"""Dotted name of each removed setting, and the value it is fixed at; None: it never changed a result."""
_ADDED: Mapping[str, Any] = {"train.groups_per_step": 1}
"""Dotted name of a setting that stored results may lack, and the value that does what was done without it."""


def is_old_section(name: str) -> bool:
    """Whether a dotted name held settings of which all or some are removed."""
    return any(removed.startswith(f"{name}.") for removed in REMOVED)


def is_as_fixed(name: str, value: object) -> bool:
    """Whether a dotted name is a removed setting, with the very value it is fixed at or without any effect.

    Examples
    --------
    >>> is_as_fixed("refine.connectivity", 8), is_as_fixed("refine.connectivity", 4), is_as_fixed("refine.th0", 0.5)
    (True, False, False)
    """
    if name not in REMOVED:
        return False
    if REMOVED[name] is None:
        return True
    fixed, given = REMOVED[name], tuple(value) if isinstance(value, list) else value
    return type(given) in ((float, int) if isinstance(fixed, float) else (type(fixed),)) and bool(given == fixed)


def check_removed(name: str, value: object) -> None:
    """Refuse a removed setting that asks for another value than it is fixed at.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> check_removed("refine.connectivity", 8)
    >>> check_removed("refine.connectivity", 4)
    Traceback (most recent call last):
    umscosod.errors.ConfigError: refine.connectivity is no setting any more; its value is fixed at 8; remove it (got 4)
    """
    if not is_as_fixed(name, value):
        raise ConfigError(
            f"{name} is no setting any more; its value is fixed at {REMOVED[name]}; remove it (got {shorten(value)})"
        )


def drop_removed(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leave removed settings out of nested ones, as a checkpoint stores them.

    Parameters
    ----------
    values : mapping
    prefix : str
        Dotted name of the section with a dot, such as ``"network."``, or nothing.

    Raises
    ------
    ConfigError
        One of them has another value than it is fixed at.

    Examples
    --------
    >>> drop_removed({"refine": {"th0": 0.5, "connectivity": 8}, "features": {"embedded": {"slope": 2.0}}})
    {'refine': {'th0': 0.5}}
    """
    kept: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in REMOVED:
            check_removed(name, value)
        elif isinstance(value, Mapping) and value and is_old_section(name):
            if inner := drop_removed(value, f"{name}."):
                kept[key] = inner
        else:
            kept[key] = value
    return kept


def iter_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Compare what an earlier job stored with what a job of today has.

    Parameters
    ----------
    before, now : mapping
        Nested; settings are under ``config``, the removed ones among them only in what is stored.
    prefix : str
        Starts the dotted names.

    Yields
    ------
    (str, object, object)
        Dotted name, value before, value now. A removed setting has the value it is fixed at now, and one that the
        earlier job did not know that which does the same.

    Examples
    --------
    >>> list(iter_differences({"config": {"refine": {"connectivity": 4}}, "mode": 1}, {"config": {}, "mode": 1}))
    [('config.refine.connectivity', 4, 8)]
    """
    for key in sorted(before.keys() | now.keys()):
        name = f"{prefix}{key}"
        setting = name.removeprefix("config.")
        first, second = before.get(key, _ADDED.get(setting)), now.get(key, REMOVED.get(setting))
        if isinstance(first, Mapping) and isinstance(second, Mapping | None):
            yield from iter_differences(first, second or {}, f"{name}.")
        elif first != second and not is_as_fixed(setting, first):
            yield name, first, second


MAX_BYTES = 200_000
"""A file of every setting has about 10,000; PyYAML takes a second for so much, and minutes for what a slip may name."""
_MAX_DEPTH = 20
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, tags, dates, repeated keys and deep nesting.

    An alias can stand for more than any memory holds, a tag asks for a constructor that may fail in its own way, and a
    folder's name may look like a date.
    """

    # without dates: they are text
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own name and form
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        for sign, what in (("anchor", "anchors (&) and aliases (*)"), ("tag", "tags (!)")):
            if getattr(event, sign, None) is not None:
                raise yaml.MarkedYAMLError(problem=f"settings take no {what}", problem_mark=event.start_mark)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply for settings", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError):  # a number of 5,000 digits, or without any, such as 0x_
            problem = f"{shorten(node.value, 30)} cannot be read as a number"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"{shorten(key.value, 40)} is given twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Read YAML text into plain values: text, numbers, truth values, None, lists and dictionaries.

    Parameters
    ----------
    text : str
        One document. Dates are text.

    Raises
    ------
    ConfigError
        One line: not YAML, too long, nested deeper than settings are, a key given twice, or with anchors, aliases or
        tags, which settings need not and which can stand for more than any memory holds.

    Examples
    --------
    >>> parse_yaml("train: {epochs: 3, learning_rate: 1e-4}")
    {'train': {'epochs': 3, 'learning_rate': '1e-4'}}
    >>> parse_yaml("a: &x 1")
    Traceback (most recent call last):
    umscosod.errors.ConfigError: not valid YAML: settings take no anchors (&) and aliases (*) (line 1, column 4)
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"has more than {MAX_BYTES:,} characters: no file of settings")
    try:
        return yaml.load(text, Loader=_Loader)  # it takes less than SafeLoader  # nosec B506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        what = str(error.problem or error.context or "it cannot be read")
        raise ConfigError(f"not valid YAML: {shorten(one_line(what), quoted=False)}{place}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {shorten(one_line(str(error)), quoted=False)}") from None
    except (ValueError, OverflowError):  # PyYAML's reader of "\\UFFFFFFFF"
        raise ConfigError("not valid YAML: an escape in quotes names a character that does not exist") from None


def read_settings_file(path: Path) -> str:
    """Read the text of a file of settings; a byte order mark is dropped.

    Raises
    ------
    ConfigError
        Missing, not a regular file, larger than settings are, or not UTF-8.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would be waited for
            raise ConfigError(f"configuration file {path} is no regular file; give a YAML file in UTF-8")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(
                f"configuration file {path} has more than {MAX_BYTES:,} bytes; give a YAML file of settings"
            )
        return content.decode("utf-8-sig")
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or NUL in the name
        raise ConfigError(
            f"configuration file {path} cannot be read: {reason_of(error)}; give a YAML file in UTF-8"
        ) from None


DEFAULT_PRESET = "fast"
"""What the command line and the calls of `umscosod` take unless told otherwise."""


def load_config(
    preset: str | None = None, file: Path | None = None, overrides: Mapping[str, Any] = MappingProxyType({})
) -> PipelineConfig:
    """Put a configuration together: defaults, then preset, then file, then overrides.

    Parameters
    ----------
    preset : str, optional
        One of `preset_names`.
    file : Path, optional
        YAML; nested or with dotted keys.
    overrides : mapping
        Nested or with dotted keys: ``{"refine.crf.iterations": 3}``.

    Returns
    -------
    PipelineConfig
        Checked.

    Raises
    ------
    ConfigError
        The preset or a key is unknown (the nearest known one is named), a value has the wrong type or is out of its
        bounds, a setting of an earlier version is fixed at another value, or the file cannot be read.

    Examples
    --------
    >>> load_config(overrides={"refine.crf.iterations": 3}).refine.crf.iterations
    3
    >>> load_config(overrides={"refine": {"crf": {"iteratons": 3}}})
    Traceback (most recent call last):
    umscosod.errors.ConfigError: unknown key 'refine.crf.iteratons'; did you mean 'refine.crf.iterations'?
    """
    values: dict[str, Any] = {}
    if preset is not None:
        values.update(preset_values(preset))
    if file is not None:
        values.update(_read_text(read_settings_file(Path(file)), str(file)))
    values.update(_check_values(overrides, ""))
    return cast(PipelineConfig, _build(PipelineConfig, values, ""))


def load_stored(values: object, origin: str) -> PipelineConfig:
    """Read the settings that a run of this or an earlier version stored.

    Parameters
    ----------
    values : object
        Plain values, as `config_to_dict` or `parse_yaml` gives them; ``keep=better`` is read as ``blend``.
    origin : str
        Where they were stored, for the messages.

    Raises
    ------
    ConfigError
        No settings by name, a value has the wrong type or is out of its bounds, or a setting that this version does not
        have has another value than it is fixed at.
    """
    if isinstance(values, Mapping) and values.get("keep") == "better":
        values = {**values, "keep": "blend"}
    return cast(PipelineConfig, _build(PipelineConfig, _check_values(values, origin), ""))


def change_config(config: PipelineConfig, overrides: Mapping[str, Any]) -> PipelineConfig:
    """Lay settings over a configuration, as strictly as `load_config` lays them over the defaults.

    Parameters
    ----------
    config : PipelineConfig
        Stays as it is.
    overrides : mapping
        Nested or with dotted keys; empty: an equal configuration.

    Raises
    ------
    ConfigError
        A key is unknown, or a value, of either, has the wrong type or is out of its bounds.

    Examples
    --------
    >>> changed = change_config(PipelineConfig(seed=7), {"refine.crf.iterations": 3})
    >>> changed.seed, changed.refine.crf.iterations
    (7, 3)
    """
    validate_config(config)
    values = dict(_iter_values(config, PipelineConfig, ""))
    return cast(PipelineConfig, _build(PipelineConfig, values | _check_values(overrides, ""), ""))


def dump_config(config: PipelineConfig) -> str:
    """Write every setting as YAML; `load_config` reads it back to an equal configuration."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True, width=120)


def config_to_dict(config: PipelineConfig) -> dict[str, Any]:
    """Nested dictionary of plain values that YAML and JSON can hold: tuples become lists."""
    return asdict(config, dict_factory=lambda items: {k: list(v) if isinstance(v, tuple) else v for k, v in items})


def validate_config(config: PipelineConfig) -> None:
    """Check every type and bound of a configuration, also of one built in Python.

    Raises
    ------
    ConfigError
        The first setting that is wrong is named with its value and its bound.
    """
    for name, value in _iter_values(config, PipelineConfig, ""):
        check_value(name, value)


def preset_names() -> tuple[str, ...]:
    """Names of the presets that come with the package, in alphabetical order."""
    names = (entry.name for entry in _PRESETS.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def preset_values(preset: str) -> dict[str, Any]:
    """What a preset changes, by dotted name.

    Raises
    ------
    ConfigError
        Unknown preset.
    """
    if preset not in preset_names():
        near = difflib.get_close_matches(preset, preset_names(), n=1)
        suggestion = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"unknown preset {preset!r}{suggestion} Presets: {', '.join(preset_names())}")
    return _read_text((_PRESETS / f"{preset}.yaml").read_text(encoding="utf-8"), f"preset {preset}")


def _check_values(values: object, origin: str) -> dict[str, Any]:
    """Flatten to dotted names and check each value; `origin` starts the messages."""
    checked: dict[str, Any] = {}
    try:
        for name, value in _flatten(values, ""):
            if name in checked:
                raise ConfigError(f"{name} is given twice, nested and dotted")
            checked[name] = check_value(name, value)
        return checked
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}" if origin else str(error)) from None


def _flatten(values: object, prefix: str) -> Iterator[tuple[str, Any]]:
    if values is None:  # a section whose lines are all commented out
        return
    if not isinstance(values, Mapping):
        what = f"{prefix.rstrip('.')} is a section and" if prefix else "the configuration"
        raise ConfigError(f"{what} must hold settings by name, got {shorten(values)}")
    for key, value in values.items():
        name = f"{prefix}{key if isinstance(key, str) else shorten(key)}"
        if name in settings():
            yield name, value
        elif name in REMOVED:
            check_removed(name, value)
        elif name in sections() or is_old_section(name):
            yield from _flatten(value, f"{name}.")
        else:
            raise ConfigError(f"unknown key {shorten(name)}{_suggest(name[:100])}")


def _suggest(name: str) -> str:
    known = [*settings(), *sections()]
    same_leaf = [other for other in settings() if other.rpartition(".")[2] == name.rpartition(".")[2]]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7) or same_leaf
    return f"; did you mean {near[0]!r}?" if near else f"; the sections are {', '.join(sorted(sections()))}"


def _read_text(text: str, origin: str) -> dict[str, Any]:
    try:
        content = parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    return _check_values(content, origin)


def _build(section: Any, values: Mapping[str, Any], prefix: str) -> Any:
    """Make a section from dotted values; what they leave out keeps its default."""
    hints, given = get_type_hints(section), {}
    for field in fields(section):
        name = f"{prefix}{field.name}"
        if name in sections():
            given[field.name] = _build(hints[field.name], values, f"{name}.")
        elif name in values:
            given[field.name] = values[name]
    return section(**given)


def _iter_values(section: Any, expected: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if type(section) is not expected:
        raise ConfigError(
            f"{prefix.rstrip('.') or 'the configuration'} must be a {expected.__name__}, got {shorten(section)}"
        )
    hints = get_type_hints(expected)
    for field in fields(section):
        name, value = f"{prefix}{field.name}", getattr(section, field.name)
        if name in sections():
            yield from _iter_values(value, hints[field.name], f"{name}.")
        else:
            yield name, value
