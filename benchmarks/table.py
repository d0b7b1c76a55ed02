"""Rows as Markdown and JSON, beside those of the run before."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.rows import Row
from umscosod.data.files import open_atomic

FORMAT = 1
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
PACKAGES = ("umscosod", "numpy", "scipy", "torch", "opencv-python-headless", "pydensecrf2", "pysodmetrics")


def in_words(figure: float | None, unit: str) -> str:
    """Show a figure with three digits.

    Examples
    --------
    >>> in_words(12.3456, "x"), in_words(0.00123, "s"), in_words(48123.4, "images"), in_words(None, "x")
    ('12.3 x', '0.00123 s', '48,123 images', '-')
    """
    if figure is None:
        return "-"
    shown = f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
    return f"{shown} {unit}".rstrip()


def markdown(rows: Sequence[Row], before: Mapping[str, Row]) -> str:
    """Build one table; `before` holds earlier rows by name."""
    lines = [
        "| row | target | figure | holds? | before | command |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        sign = "≥" if row.better == "higher" else "≤"
        target = "" if row.target is None else f"{sign} {in_words(row.target, row.unit)}"
        figure = in_words(row.figure, row.unit)
        if row.is_failed:
            figure = f"failed: {row.detail}"
        elif row.detail:
            figure = row.detail if row.figure is None else f"{figure} ({row.detail})"
        holds = {True: "yes", False: "**no**", None: ""}[row.holds]
        earlier = before[row.name].figure if row.name in before else None
        was = "" if earlier is None else in_words(earlier, row.unit)
        cells = (row.name, target, figure, holds, was, f"`{row.command}`" if row.command else "")
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def machine_facts() -> dict[str, Any]:
    """CPU, cores, memory and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", ""),
        "load_1_min": round(os.getloadavg()[0], 1),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_record(rows: Iterable[Row], machine: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "format": FORMAT,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "how": dict(how),
        "machine": dict(machine),
        "rows": [{**asdict(row), "holds": row.holds} for row in rows],
    }


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write a record whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(file) as stream:
        stream.write((json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def read_rows(file: Path) -> dict[str, Row]:
    """Rows of a record by name; none where there is no file.

    Raises
    ------
    ValueError
        The record has another format.
    """
    if not file.is_file():
        return {}
    record = json.loads(file.read_text(encoding="utf-8"))
    if record.get("format") != FORMAT:
        raise ValueError(f"{file} has format {record.get('format')!r}, this program writes {FORMAT}; remove it")
    rows = (Row(**{name: value for name, value in row.items() if name != "holds"}) for row in record["rows"])
    return {row.name: row for row in rows}


def merge(before: Mapping[str, Row], rows: Sequence[Row]) -> list[Row]:
    """What to keep after a run of some rows: earlier rows stay in their place unless they were measured anew.

    Examples
    --------
    >>> [row.figure for row in merge({"a": Row(name="a", figure=1.0)}, [Row(name="a", figure=2.0), Row(name="b")])]
    [2.0, None]
    """
    new = {row.name: row for row in rows}
    kept = [new.pop(name, row) for name, row in before.items()]
    return kept + list(new.values())


def replace_between(text: str, content: str) -> str:
    """Put `content` between the two marks of a page.

    Raises
    ------
    ValueError
        The page does not hold each mark once, in this order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the page must hold {BEGIN} and {END} once each, in this order")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{content}\n{END}{rest.split(END)[1]}"


def page_part(rows: Sequence[Row], before: Mapping[str, Row], record: Mapping[str, Any]) -> str:
    """The table, and on which machine it was measured."""
    machine = record["machine"]
    how = ", ".join(name for name, is_on in record["how"].items() if is_on)
    sentence = (
        f"Measured on {record['when'][:10]}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"Python {machine['python']}, torch {machine['packages']['torch']}; load of the machine at the start "
        f"{machine['load_1_min']}"
    )
    return f"{sentence}{f' ({how})' if how else ''}.\n\n{markdown(rows, before)}"


def with_command(row: Row, command: str) -> Row:
    """The row, with the command that measures it unless it names its own."""
    return row if row.command else replace(row, command=command)
