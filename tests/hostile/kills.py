"""Kill a job at random moments, take it up again, and compare what it ends with.

Every kill strikes another job that is at work, at a moment drawn evenly from the time that an undisturbed one takes.
The seed fixes the shares of that time, so that a run can be repeated.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.harness import adopt_orphans, become_command_line, count_orphans
from tests.jobs import read_results

SEED, COUNT = 20, 20
_COMMAND = (
    "label {photos} --out {out} --preset smoke --train always --config.train.epochs 3 --config.refine.crf.workers 2"
    " --config.features.cache-dir {out}.cache"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """One SIGKILL.

    Attributes
    ----------
    share : float
        Of the time that an undisturbed job takes, in [0, 1].
    orphans : int
        Processes that were left.
    code : int
        Exit code of the same command afterwards.
    is_equal : bool
        Whether that ended with the bytes of an undisturbed job.
    """

    share: float
    orphans: int
    code: int
    is_equal: bool


def run_kills(photos: Path, scratch: Path, *, seed: int = SEED, count: int = COUNT) -> list[Kill]:
    """Kill `count` jobs over a folder of images.

    Parameters
    ----------
    photos : Path
    scratch : Path
        Made.
    seed, count : int
    """
    adopt_orphans()
    scratch.mkdir()
    started = time.monotonic()
    _end(_start(photos, scratch / "whole", scratch))
    duration_s = time.monotonic() - started
    expected = read_results(scratch / "whole")
    rng = random.Random(seed)
    kills = []
    for number in range(count):
        out, share = scratch / f"{number:02}", rng.random()
        seconds = share * duration_s
        while not _kill_after(_start(photos, out, scratch), seconds):  # the machine has become faster: it had ended
            subprocess.run(["rm", "-rf", str(out)], check=True)
            seconds /= 2
        orphans = count_orphans()
        code = _end(_start(photos, out, scratch))
        is_equal = code == 0 and read_results(out) == expected
        kills.append(Kill(share=share, orphans=orphans, code=code, is_equal=is_equal))
    return kills


def _start(photos: Path, out: Path, scratch: Path) -> int:
    pid = os.fork()
    if pid == 0:
        log = scratch / f"{out.name}.log"
        log.mkdir(exist_ok=True)
        become_command_line(_COMMAND.format(photos=photos, out=out).split(), scratch, log)
    return pid


def _end(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _kill_after(pid: int, seconds: float) -> bool:
    """Wait, kill; whether there was still something to kill."""
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)  # not yet waited for, so the number is still this process's
    return _end(pid) == -signal.SIGKILL
