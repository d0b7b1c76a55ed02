"""Label a folder again and again, each time killed before another change to a file: a program, run by a test.

Usage: ``kill_at_write.py IMAGES WORK CACHE COUNT MODE``. It labels into ``WORK/whole`` undisturbed, counting the
changes to files below the output folder; then, COUNT times, starts into a folder of its own, sends itself SIGKILL
before a change drawn by a seed (the first three and the last are always among them), and runs once more to the end.
MODE ``fresh`` starts without a folder, ``overwrite`` from results of other settings, to be replaced. Prints the folders
as JSON.

Each run is a fork of a process that has torch loaded, so that dozens fit in a test.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.jobs import quick_config
from umscosod.pipeline import label_groups

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(out: Path, on_change: Callable[[], None]) -> None:
    """Call back before every change that Python makes to a file below a folder."""
    below = f"{out}{os.sep}"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            is_change = str(arguments[0]).startswith(below) and bool((arguments[2] or 0) & WRITING)
        elif event in CHANGES:
            # rmtree names files relative to an open folder
            is_relative = event in ("os.remove", "os.rmdir") and arguments[1] != -1
            is_change = is_relative or str(arguments[0]).startswith(below)
        else:
            return
        if is_change:
            on_change()

    sys.addaudithook(hook)


def fork(work: Callable[[], None]) -> int:
    """Do some work in a process of its own; gives its exit status, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:  # nothing of the parent may run on in the child
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count_changes(out: Path, work: Callable[[], None]) -> int:
    """Do the work undisturbed and count its changes to files."""
    changes = 0

    def note() -> None:
        nonlocal changes
        changes += 1

    def counted() -> None:
        watch(out, note)
        work()
        (out.parent / f"{out.name}.count").write_text(str(changes), encoding="ascii")

    assert fork(counted) == 0
    return int((out.parent / f"{out.name}.count").read_text(encoding="ascii"))


def kill_before(out: Path, number: int, work: Callable[[], None]) -> int:
    """Do the work until just before a change to a file."""
    left = number

    def shoot() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def doomed() -> None:
        watch(out, shoot)
        work()

    return fork(doomed)


def main(images: Path, work: Path, cache: Path, count: int, mode: str) -> None:
    """Run the drill and print what came of it."""
    config = quick_config(cache)
    label_groups(images, work / "warm", config, train=True)  # loads what is loaded late, once for all forks
    old = work / "old"
    if mode == "overwrite":
        assert fork(lambda: void(label_groups(images, old, replace(config, seed=99), train=False))) == 0

    def start(out: Path, *, overwrite: bool) -> Callable[[], None]:
        return lambda: void(label_groups(images, out, config, overwrite=overwrite, train=True))

    def fresh(name: str) -> Path:
        if mode == "overwrite":
            shutil.copytree(old, work / name)
        return work / name

    whole = fresh("whole")
    total = count_changes(whole, start(whole, overwrite=mode == "overwrite"))
    drawn = random.Random(f"{mode} {total}").sample(range(4, total), count - 4)
    runs = []
    for number in sorted({1, 2, 3, *drawn, total}):
        out = fresh(f"killed-{number}")
        killed = kill_before(out, number, start(out, overwrite=mode == "overwrite"))
        resumed = fork(start(out, overwrite=mode == "overwrite"))
        runs.append({"number": number, "out": str(out), "killed": killed, "resumed": resumed})
    print(json.dumps({"whole": str(whole), "changes": total, "runs": runs}))


def void(_: object) -> None:
    """Drop a result."""


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
