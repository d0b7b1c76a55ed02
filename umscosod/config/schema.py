"""What the settings declare, as data: each with its type, bounds and meaning, and the check of a value."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from typing_extensions import Doc

from umscosod.config import PipelineConfig
from umscosod.errors import ConfigError, shorten

_COMPARE = {">=": operator.ge, "<=": operator.le}
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One hyper-parameter as ``umscosod.config`` declares it.

    Attributes
    ----------
    name : str
        Dotted, such as ``"refine.crf.iterations"``.
    kind : object
        Its type without annotations: ``int``, ``float``, ``bool``, ``str``, a ``Literal`` or a ``tuple``.
    limits : tuple of (str, float)
        Such as ``((">=", 1), ("<=", 100))``; they hold for each number of a tuple.
    meaning : str
    """

    name: str
    kind: Any
    limits: tuple[tuple[str, float], ...]
    meaning: str

    @property
    def bounds(self) -> str:
        """Limits in words: ``">= 1 and <= 100"``, or ``""``."""
        return " and ".join(f"{sign} {limit}" for sign, limit in self.limits)


@functools.cache
def settings() -> Mapping[str, Setting]:
    """Every setting by its dotted name, in the order of ``umscosod.config``."""
    return MappingProxyType({setting.name: setting for setting in iter_settings(PipelineConfig)})


@functools.cache
def sections() -> frozenset[str]:
    """Dotted names that hold settings instead of being one."""
    names = (name.split(".") for name in settings())
    return frozenset(".".join(parts[:depth]) for parts in names for depth in range(1, len(parts)))


def check_value(name: str, value: Any) -> Any:
    """Check a value against the type and bounds of a setting.

    Parameters
    ----------
    name : str
        Dotted name of a setting that exists.
    value : object
        As YAML gives it: whole numbers pass for floats, lists for tuples, and text such as ``1e-4``, which YAML 1.1
        does not see as a number, for floats.

    Returns
    -------
    object
        The value in the setting's own type.

    Raises
    ------
    ConfigError
        Wrong type, not finite, not one of the choices, or out of bounds.

    Examples
    --------
    >>> check_value("train.learning_rate", "1e-4")
    0.0001
    >>> check_value("refine.crf.iterations", 0)
    Traceback (most recent call last):
    umscosod.errors.ConfigError: refine.crf.iterations must be >= 1 and <= 100, got 0
    """
    return check_setting(settings()[name], value)


def check_section(section: Any, prefix: str) -> None:
    """Check every value of settings that are no part of `PipelineConfig`, such as a `GroupingConfig`.

    Raises
    ------
    ConfigError
        The first setting that is wrong is named, with `prefix`, its value and its bound.

    Examples
    --------
    >>> from umscosod.config import GroupingConfig
    >>> check_section(GroupingConfig(min_size=0), "grouping")
    Traceback (most recent call last):
    umscosod.errors.ConfigError: grouping.min_size must be >= 1 and <= 100000, got 0
    """
    for setting in iter_settings(type(section), f"{prefix}."):
        check_setting(setting, operator.attrgetter(setting.name.removeprefix(f"{prefix}."))(section))


def check_setting(setting: Setting, value: Any) -> Any:
    """Check a value as `check_value` does, against a setting that may be no part of `PipelineConfig`."""
    name = setting.name
    converted = _convert(name, setting.kind, value)
    numbers = converted if isinstance(converted, tuple) else (converted,)
    if not all(_COMPARE[sign](number, limit) for number in numbers for sign, limit in setting.limits):
        raise ConfigError(f"{name} must be {setting.bounds}, got {shorten(value)}")
    return converted


def _convert(name: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise ConfigError(f"{name} must be one of {', '.join(map(str, choices))}, got {shorten(value)}")
        return value
    if get_origin(kind) is tuple:
        return _convert_tuple(name, get_args(kind), value)
    if kind is float:
        number = _as_float(value)
        if number is None or not math.isfinite(number):
            raise ConfigError(f"{name} must be a finite number, got {shorten(value)}")
        return number
    if type(value) is not kind:
        hint = " (write '' for none)" if kind is str and value is None else ""
        raise ConfigError(f"{name} must be {_PLAIN[kind]}, got {shorten(value)}{hint}")
    if kind is str and "\0" in value:  # most are paths, which cannot hold it
        raise ConfigError(f"{name} must be text without NUL characters, got {shorten(value)}")
    return value


def _convert_tuple(name: str, kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    is_open = kinds[-1] is Ellipsis
    wanted = f"a list of {'' if is_open else f'{len(kinds)} '}numbers"
    if not isinstance(value, list | tuple) or not (is_open or len(value) == len(kinds)):
        raise ConfigError(f"{name} must be {wanted}, got {shorten(value)}")
    return tuple(_convert(name, kinds[0] if is_open else kinds[i], item) for i, item in enumerate(value))


def _as_float(value: Any) -> float | None:
    """Turn a number, or text that reads as one, into a float; True and False are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def iter_settings(section: type, prefix: str = "") -> Iterator[Setting]:
    """Settings of one dataclass of ``umscosod.config`` and of those inside it; `prefix` starts the dotted names."""
    hints = get_type_hints(section, include_extras=True)
    for field in fields(section):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        if is_dataclass(hint):
            yield from iter_settings(hint, f"{name}.")  # type: ignore[arg-type]  # is_dataclass admits instances too
            continue
        notes = getattr(hint, "__metadata__", ())
        limits: list[tuple[str, Any]] = [(">=", note.ge) for note in notes if isinstance(note, Ge)]
        limits += [("<=", note.le) for note in notes if isinstance(note, Le)]
        yield Setting(
            name=name,
            kind=get_args(hint)[0] if notes else hint,
            limits=tuple(limits),
            meaning=next((note.documentation for note in notes if isinstance(note, Doc)), ""),
        )
