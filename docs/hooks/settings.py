"""Fill the settings page from ``umscosod/config.py``, so that no setting is described twice."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the checkout that is documented, not another installed version

import annotated_types  # noqa: E402
from typing_extensions import Doc  # noqa: E402

from umscosod.config import PipelineConfig  # noqa: E402

MARK = "<!-- settings -->"
BOUNDS = {annotated_types.Ge: ">=", annotated_types.Gt: ">", annotated_types.Le: "<=", annotated_types.Lt: "<"}


def format_type(hint: Any) -> str:
    """Type and bounds of a setting, short enough for a table."""
    base, notes = hint, ()
    if hasattr(hint, "__metadata__"):
        base, notes = get_args(hint)[0], hint.__metadata__
    if get_origin(base) is not None and str(get_origin(base)) == "typing.Literal":
        text = " ".join(f"`{value}`" for value in get_args(base))
    elif get_origin(base) is tuple:
        text = "list of " + get_args(base)[0].__name__
    else:
        text = getattr(base, "__name__", str(base))
    limits = [
        f"{sign} {next(iter(vars_of(note)))}" for note in notes for kind, sign in BOUNDS.items() if type(note) is kind
    ]
    return ", ".join([text, *limits])


def vars_of(note: Any) -> Iterator[Any]:
    """Values of a bound, such as the 1 of ``Ge(1)``."""
    return (getattr(note, field.name) for field in dataclasses.fields(note))


def iter_rows(config: Any, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield dotted name, type, default and meaning of every setting below a configuration."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from iter_rows(value, f"{name}.")
            continue
        notes = getattr(hints[field.name], "__metadata__", ())
        meaning = next((note.documentation for note in notes if isinstance(note, Doc)), "")
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else "(empty)" if value == "" else str(value)
        yield name, format_type(hints[field.name]), shown, meaning


def make_tables() -> str:
    """Write one table for each stage, in Markdown."""
    sections: dict[str, list[str]] = {}
    for name, kind, default, meaning in iter_rows(PipelineConfig()):
        stage = name.split(".")[0] if "." in name else "General"
        cells = (f"`{name}`", kind, f"`{default}`", meaning.replace("|", "\\|"))
        sections.setdefault(stage, []).append("| " + " | ".join(cells) + " |")
    head = "| setting | type and bounds | default | meaning |\n| --- | --- | --- | --- |\n"
    return "\n\n".join(f"## {stage}\n\n{head}" + "\n".join(rows) for stage, rows in sections.items())


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the mark on the settings page (MkDocs calls this for every page)."""
    return markdown.replace(MARK, make_tables()) if MARK in markdown else markdown
