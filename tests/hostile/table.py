"""The tables of docs/reliability.md: between two marks, made by ``python -m tests.hostile --write``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.hostile.harness import Case, Outcome
from tests.hostile.kills import Kill
from tests.hostile.signals import Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_LONGEST = 400
_BEGIN, _END = "<!-- begin: tables of python -m tests.hostile -->", "<!-- end -->"


def read_tables() -> str:
    """What the page says now."""
    return PAGE.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0].strip()


def write_tables(text: str) -> None:
    """Put the tables into the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(_BEGIN)[0], page.partition(_END)[2]
    PAGE.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}", encoding="utf-8")


def format_cases(room: str, rows: Iterable[tuple[Case, Outcome]]) -> str:
    """Table of one kind of input."""
    cells = [(case.what, _code(case.command), outcome.code, _code(outcome.line)) for case, outcome in rows]
    return _format(room, ("input", "command", "exit", "line"), cells)


def format_kills(kills: Iterable[Kill], seed: int) -> str:
    """Table of kills."""
    cells = [
        (f"{kill.share:.3f}", kill.orphans, kill.code, "equal" if kill.is_equal else "other")
        for kill in sorted(kills, key=lambda kill: kill.share)
    ]
    head = ("share of the whole job's time", "processes left", "exit of the same command", "bytes of its results")
    return _format(f"SIGKILL, moments of seed {seed}", head, cells)


def format_signals(rows: Iterable[Row]) -> str:
    """Table of signals."""
    cells = [
        (
            row.stage,
            row.signal,
            row.exit_code,
            _code(row.last_line),
            len(row.left),
            "equal" if row.is_resumed else "other",
        )
        for row in rows
    ]
    head = ("stage", "signal", "exit", "line", "processes left", "bytes when resumed")
    return _format("SIGTERM and Ctrl-C", head, cells)


def _format(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(_cell(str(cell)) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _code(text: str) -> str:
    plain = text.replace("`", "'").strip()
    return f"`{plain if len(plain) <= _LONGEST else f'{plain[: _LONGEST - 3]}...'}`"


def _cell(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
    return plain.replace("|", "\\|")
