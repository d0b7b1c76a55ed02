"""Processes that carry a mark in their environment: how tests find what a job, or a run of tests, left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 300.0
"""Longest wait for what takes a second when nothing else runs: reached only where something is broken."""


def heed_interrupts() -> None:
    """Undo that SIGINT is ignored: a shell lets what it runs in the background, and all that that starts, ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def find_marked(mark: str) -> list[int]:
    """Ids of the living processes started with an environment that holds ``NAME=VALUE``, and of all they started."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return [process for process in found if process != os.getpid()]


def wait_until(is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Ask again and again; whether it came true."""
    end = time.monotonic() + patience_s
    while not (answer := is_so()) and time.monotonic() < end:
        time.sleep(0.02)
    return answer


def wait_until_gone(mark: str) -> list[str]:
    """Give marked processes time to end; the command lines of those that do not."""
    wait_until(lambda: not find_marked(mark), 60.0)
    return [read_command(process) for process in find_marked(mark)]


def kill_marked(mark: str) -> None:
    """End all marked processes, also those that these start meanwhile."""
    while found := find_marked(mark):
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def read_command(process: int) -> str:
    """Command line of a process; empty where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
