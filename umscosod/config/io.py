"""Read and write settings: presets, files, overrides."""

from __future__ import annotations

import difflib
import logging
import stat
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict, fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast, get_type_hints

import yaml

from umscosod.config import PipelineConfig
from umscosod.config.schema import check_value, sections, settings
from umscosod.errors import ConfigError, one_line, reason_of, shorten

MAX_BYTES = 200_000
"""A file of every setting has about 10,000; PyYAML takes a second for so much, and minutes for what a slip may name."""
_MAX_DEPTH = 20
_REMOVED = ("keep_margin", "refine.agreement_ridge", "train.rounds", "train.round_share")
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


logger = logging.getLogger(__name__)


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
        bounds, or the file cannot be read.

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
        values.update(_read_text(_preset_text(preset), f"preset {preset}"))
    if file is not None:
        values.update(_read_text(read_settings_file(Path(file)), str(file)))
    values.update(_check_values(overrides, ""))
    return cast(PipelineConfig, _build(PipelineConfig, values, ""))


def load_stored(values: object, origin: str) -> PipelineConfig:
    """Read the settings that a run of this or an earlier version stored.

    Parameters
    ----------
    values : object
        Plain values, as `config_to_dict` or `parse_yaml` gives them. Settings that this version does not have are left
        out, and ``keep=better`` is read as ``blend``; the log names them.
    origin : str
        Where they were stored, for the log and the messages.

    Raises
    ------
    ConfigError
        No settings by name, or a value has the wrong type or is out of its bounds.
    """
    unknown: list[str] = []
    known = dict(_flatten(values, "", unknown))
    if known.get("keep") == "better":
        unknown.append("keep=better")
        known["keep"] = "blend"
    if unknown:
        logger.warning("%s: settings of an earlier version are not used: %s", origin, ", ".join(unknown))
    return cast(PipelineConfig, _build(PipelineConfig, _check_values(known, origin), ""))


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


def iter_differences(before: object, now: object, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name and both values of every setting that differs between two nested dictionaries; None: not there.

    Examples
    --------
    >>> list(iter_differences({"seed": 1, "train": {"epochs": 2}}, {"seed": 1, "train": {"epochs": 3}}))
    [('train.epochs', 2, 3)]
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted(before.keys() | now.keys()):
            yield from iter_differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield name, before, now


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
    files = (Path(entry.name) for entry in _presets().iterdir())
    return tuple(sorted(path.stem for path in files if path.suffix == ".yaml"))


def preset_values(preset: str) -> dict[str, Any]:
    """What a preset changes, by dotted name.

    Raises
    ------
    ConfigError
        Unknown preset.
    """
    return _read_text(_preset_text(preset), f"preset {preset}")


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


def _flatten(values: object, prefix: str, unknown: list[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Settings by dotted name; an unknown one is an error, or goes to the list `unknown`."""
    if values is None:  # a section whose lines are all commented out
        return
    if not isinstance(values, Mapping):
        what = f"{prefix.rstrip('.')} is a section and" if prefix else "the configuration"
        raise ConfigError(f"{what} must hold settings by name, got {shorten(values)}")
    for key, value in values.items():
        name = f"{prefix}{key if isinstance(key, str) else shorten(key)}"
        if name in sections():
            yield from _flatten(value, f"{name}.", unknown)
        elif name in settings():
            yield name, value
        elif unknown is not None:
            unknown.append(shorten(name, quoted=False))
        else:
            raise ConfigError(f"unknown key {shorten(name)}{_suggest(name[:100])}")


def _suggest(name: str) -> str:
    if name in _REMOVED:
        return "; this version has it no more: remove it"
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


def _presets() -> Traversable:
    return resources.files("umscosod") / "presets"


def _preset_text(preset: str) -> str:
    if preset not in preset_names():
        near = difflib.get_close_matches(preset, preset_names(), n=1)
        suggestion = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"unknown preset {preset!r}{suggestion} Presets: {', '.join(preset_names())}")
    return (_presets() / f"{preset}.yaml").read_text(encoding="utf-8")


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
