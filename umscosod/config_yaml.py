"""YAML as settings are written in it: names, numbers, text, lists. What else YAML can do is refused in one line."""

from __future__ import annotations

import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from umscosod.errors import ConfigError, one_line, reason_of, shorten

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
