"""``python -m tests.hostile``: every hostile case, 20 kills, and a signal in each stage, held against the docs.

Prints what fails, and where docs/reliability.md says otherwise. ``--write`` rewrites the tables there; ``--only WORD``
runs the cases whose room or words contain it and prints their output.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.hostile import checkpoints, coco, groups, images, masks, paths, settings, signals
from tests.hostile.base import make_base
from tests.hostile.harness import Case, Outcome, run_case
from tests.hostile.kills import COUNT, SEED, run_kills
from tests.hostile.table import PAGE, format_cases, format_kills, format_signals, read_tables, write_tables
from tests.processes import heed_interrupts

ROOMS: dict[str, list[Case]] = {
    "Pictures": images.CASES,
    "Groups, names and lists": groups.CASES,
    "Masks and maps": masks.CASES,
    "Instance masks (COCO)": coco.CASES,
    "Checkpoints and weights": checkpoints.CASES,
    "Settings": settings.CASES,
    "Output folders and disks": paths.CASES,
}
KILLS, SIGNALS = "kills", "signals"


class Tally:
    """What passed and what did not."""

    def __init__(self) -> None:
        self.total = 0
        self.failed = 0

    def add(self, what: str, faults: list[str]) -> None:
        """Count one check, and print its faults."""
        self.total += 1
        if faults:
            self.failed += 1
            print(f"FAILED {what}: {'; '.join(faults)}", flush=True)


def main() -> int:
    """Run and compare; 1 where anything failed or the page says otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    heed_interrupts()
    started, tally = time.monotonic(), Tally()
    scratch = Path(tempfile.mkdtemp(prefix="umscosod-hostile-"))
    _isolate(scratch)
    try:
        _in_a_fork(lambda: make_base(scratch / "base"))
        names = list(ROOMS) if options.only else [*ROOMS, KILLS, SIGNALS]
        with multiprocessing.get_context("fork").Pool(2) as pool:  # the longest first
            jobs = {name: pool.apply_async(_run, (name, options.only, scratch)) for name in reversed(names)}
            done = {name: jobs[name].get() for name in names}
    finally:  # not by rmtree, which recurses: one case is 1,100 folders deep
        subprocess.run(["rm", "-rf", str(scratch)], check=True)
    for _, one in done.values():
        tally.total, tally.failed = tally.total + one.total, tally.failed + one.failed
    text = "\n\n".join(table for table, _ in done.values())
    if options.write:
        write_tables(text)
    elif not options.only:
        before, after = _plain_rows(read_tables()), _plain_rows(text)
        changed = [f"- {line}" for line in sorted(before - after)] + [f"+ {line}" for line in sorted(after - before)]
        tally.add(f"{PAGE.name} says otherwise", [f"\n{line}" for line in changed])
    print(f"hostile input, kills and signals: {time.monotonic() - started:.0f} s")
    print(f"{tally.total - tally.failed} passed, {tally.failed} failed")
    return int(bool(tally.failed))


def _plain_rows(tables: str) -> set[str]:
    """Rows without what stands in brackets: there other programs have the word, and change it with their versions."""
    while (shorter := re.sub(r"\([^()]*\)", "()", tables).replace("(())", "()")) != tables:
        tables = shorter
    return set(tables.splitlines())


def _run(name: str, only: str, scratch: Path) -> tuple[str, Tally]:
    tally = Tally()
    if name == KILLS:
        return _run_kills(scratch, tally), tally
    if name == SIGNALS:
        return _run_signals(scratch, tally), tally
    return _run_cases(name, only, scratch, tally), tally


def _isolate(scratch: Path) -> None:
    """A home, a cache and temporary files of its own, and no network."""
    for name in ("home", "cache", "tmp", "base"):
        (scratch / name).mkdir()
    own = {"HOME": "home", "UMSCOSOD_CACHE": "cache", "TMPDIR": "tmp"}
    os.environ.update({name: str(scratch / folder) for name, folder in own.items()}, HF_HUB_OFFLINE="1", COLUMNS="80")
    tempfile.tempdir = None  # settled before TMPDIR was set


def _run_cases(room: str, only: str, scratch: Path, tally: Tally) -> str:
    rows: list[tuple[Case, Outcome]] = []
    for number, case in enumerate(ROOMS[room]):
        name = f"{room}: {case.what}"
        if only not in name:
            continue
        outcome = run_case(case, scratch / room.split()[0].strip(",").lower() / f"{number:03}", scratch / "base")
        rows.append((case, outcome))
        tally.add(f"{name}: umscosod {case.command}", list(outcome.faults))
        if outcome.faults or only:
            print("".join(f"  | {line}\n" for line in outcome.output.splitlines()[-12:]), end="", flush=True)
    return format_cases(room, rows)


def _run_kills(scratch: Path, tally: Tally) -> str:
    kills = run_kills(scratch / "base" / "photos", scratch / "kills")
    tally.add("kills", [] if len(kills) == COUNT else [f"{len(kills)} kills instead of {COUNT}"])
    for kill in kills:
        faults = [f"{kill.orphans} processes left"] if kill.orphans else []
        faults += [] if kill.is_equal else [f"exit code {kill.code}, other bytes than an undisturbed job"]
        tally.add(f"kill at {kill.share:.3f}", faults)
    return format_kills(kills, SEED)


def _run_signals(scratch: Path, tally: Tally) -> str:
    rows = signals.run_all(scratch / "signals")
    for row in rows:
        number = signals.signal.Signals[row.signal]
        wanted = f"{signals.WORDS[number]}; the same command resumes from what was written"
        faults = [f"exit code {row.exit_code}"] if row.exit_code != 128 + number else []
        faults += [f"says {row.last_line!r}"] if row.last_line != wanted else []
        faults += ["a traceback"] if "Traceback" in row.said or "Error" in row.said else []
        faults += [f"left: {row.left}"] if row.left else []
        faults += [] if row.is_resumed else ["not resumed to equal bytes"]
        tally.add(f"{row.signal} in {row.stage}", faults)
    return format_signals(rows)


def _in_a_fork(work: Callable[[], None]) -> None:
    """In a process of its own, silent: one that has used torch's threads must not be forked from later."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            work()
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the sound results that cases start from could not be made")


if __name__ == "__main__":
    import umscosod.bench.run
    import umscosod.cli.commands
    import umscosod.export.formats
    import umscosod.grouping.discover
    import umscosod.pipeline  # noqa: F401 - imported once, before the first fork

    sys.exit(main())
