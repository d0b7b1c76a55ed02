"""Fill the settings page from ``umscosod/config/__init__.py``, so that no setting is described twice."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the checkout that is documented, not another installed version

from umscosod.config import GroupingConfig, PipelineConfig  # noqa: E402
from umscosod.config.schema import Setting, iter_settings, settings  # noqa: E402

MARK = "<!-- settings -->"


def format_type(setting: Setting) -> str:
    """Type and bounds of a setting, short enough for a table."""
    origin = get_origin(setting.kind)
    if origin is tuple:
        text = "list of " + get_args(setting.kind)[0].__name__
    elif origin is None:
        text = setting.kind.__name__
    else:
        text = " ".join(f"`{value}`" for value in get_args(setting.kind))
    return ", ".join([text, *(f"{sign} {limit}" for sign, limit in setting.limits)])


def iter_rows(config: PipelineConfig) -> Iterator[tuple[str, str, str, str]]:
    """Yield dotted name, type, default and meaning of every setting; those of `discover` come last."""
    grouping = iter_settings(GroupingConfig, "grouping.")
    for name, setting in [*settings().items(), *((each.name, each) for each in grouping)]:
        value: Any = GroupingConfig() if name.startswith("grouping.") else config
        for part in name.removeprefix("grouping.").split("."):
            value = getattr(value, part)
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else "(empty)" if value == "" else str(value)
        yield name, format_type(setting), shown, setting.meaning


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
