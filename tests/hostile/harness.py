"""Run the command line on hostile input, each case in a process of its own, and see what it says and leaves behind.

A case's process is forked from one that has imported the program already, so that it takes a fraction of a second. It
may kill its interpreter, hang, start programs or leave processes: all of that is seen and fails the case.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

LIMIT_S = 300.0  # of one case; a case takes seconds, a busy machine may take a hundred times as long
MEMORY_LIMIT = 4 << 30
_PROVENANCE = ("git", "uname")  # which version wrote a result, on which system: run/run.json
_PROGRAM_EVENTS = frozenset({"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty"})
_PR_SET_CHILD_SUBREAPER = 36
# What differs from run to run, or from machine to machine, is left out of the table.
_VARYING = {
    r"; [\d.]+ s, [\d.]+ s an image": "",
    r"\d\.\d{6,}": "0.…",
    r"/\S+/umscosod-\w{8}/": "TMPDIR/",
    r"[0-9a-f]{2}/[0-9a-f]{64}": "KEY",
}
# The fewest steps that run every stage; one process for DenseCRF, so that any program started is one too many.
_FLAGS = {
    "label": "--preset smoke --no-train",
    "pseudo": "--preset smoke",
    "train": "--preset smoke",
    "predict": "--preset smoke",
    "refine": "--preset smoke",
    "discover": "--preset smoke",
    "features": "--preset smoke",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One hostile input.

    Attributes
    ----------
    what : str
        The input in words.
    command : str
        What follows ``umscosod``, as a shell would read it; run in the case's own folder, with the flags of `_FLAGS`
        unless it names a preset.
    code : int
        The exit code that is right.
    says : str
        Part of the line that tells the user; the whole line goes into the table.
    make : callable
        Makes the input in the case's folder.
    needs : tuple of str
        What is copied into the folder first: ``photos``, ``gt``, ``result``, ``pseudo``.
    largest_file : int
        Bytes after which writing a file fails, as on a full disk; 0: no limit.
    """

    what: str
    command: str
    code: int
    says: str
    make: Callable[[Path], object] = lambda folder: None
    needs: tuple[str, ...] = ("photos",)
    largest_file: int = 0

    @property
    def arguments(self) -> list[str]:
        """The argument vector."""
        given = shlex.split(self.command)
        name = given[0] if given else ""
        if name == "features" and given[1:2] == ["prune"]:
            return given
        return given if "--preset" in given else given + shlex.split(_FLAGS.get(name, ""))


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a case did.

    Attributes
    ----------
    code : int
        Exit code; negative: the signal that ended it.
    output : str
        Standard output, then standard error.
    line : str
        The line that holds what the case was to say; ``""``: there is none.
    faults : tuple of str
        Everything that should not have been.
    """

    code: int
    output: str
    line: str
    faults: tuple[str, ...] = ()


def run_case(case: Case, folder: Path, base: Path) -> Outcome:
    """Make a case's input in a new folder and run it.

    Parameters
    ----------
    case : Case
    folder : Path
        Does not exist yet.
    base : Path
        Holds what cases need.
    """
    folder.mkdir(parents=True)
    for name in case.needs:
        shutil.copytree(base / name, folder / name, symlinks=True)
    case.make(folder)
    log = folder.with_name(f"{folder.name}.log")
    log.mkdir()
    code, used_bytes, orphans = _run_in_fork(case, folder, log)
    output = "".join((log / name).read_bytes().decode("utf-8", "backslashreplace") for name in ("out", "err"))
    output = output.replace(str(folder), ".")
    line = next((line.strip() for line in output.splitlines() if case.says in line), "")
    for pattern, instead in _VARYING.items():
        line = re.sub(pattern, instead, line)
    started = (log / "started").read_text(encoding="utf-8") if (log / "started").is_file() else ""
    return Outcome(
        code=code,
        output=output,
        line=line,
        faults=tuple(_faults(case, code, output, line, used_bytes, orphans, started)),
    )


def _faults(
    case: Case, code: int, output: str, line: str, used_bytes: int, orphans: int, started: str
) -> Iterator[str]:
    if code != case.code:
        yield f"exit code {code} instead of {case.code}"
    if not line:
        yield f"no line says {case.says!r}"
    if "Traceback" in output:
        yield "a traceback"
    if code == 2 and "error:" in output and output.count("\nerror: ") + output.startswith("error: ") != 1:
        yield "not one error line"
    if any(ord(letter) < 32 and letter not in "\n\r" for letter in output):
        yield "control characters on the terminal"
    if used_bytes > MEMORY_LIMIT:
        yield f"{used_bytes / 1e9:.1f} GB of memory"
    if orphans:
        yield f"{orphans} processes left behind"
    if started:
        yield f"programs started: {' '.join(started.split())}"


def _run_in_fork(case: Case, folder: Path, log: Path) -> tuple[int, int, int]:
    """Exit code, peak memory in bytes, and how many processes were left."""
    adopt_orphans()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        become_command_line(case.arguments, folder, log, case.largest_file)
    deadline = time.monotonic() + LIMIT_S
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, count_orphans()


def become_command_line(arguments: list[str], folder: Path, log: Path, largest_file: int = 0) -> NoReturn:
    """Become the command line, in the folder, with both streams in files of `log`; never returns."""
    code = 99
    started: list[str] = []
    try:
        gc.freeze()
        for name, descriptor in (("out", 1), ("err", 2)):
            opened = os.open(log / name, os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(opened, descriptor)
            os.close(opened)
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - lives as long as the process
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if largest_file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        os.chdir(folder)

        def note_program(event: str, values: tuple[object, ...]) -> None:
            if event in _PROGRAM_EVENTS and values[:1] not in [(name,) for name in _PROVENANCE]:
                started.append(f"{event}{values[:1]}")

        sys.addaudithook(note_program)
        from umscosod.cli import main

        try:
            code = main(arguments)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # a traceback is what the case looks for, so it is written down like any other
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        if started:
            (log / "started").write_text("\n".join(started), encoding="utf-8")
        os._exit(code)


def adopt_orphans() -> None:
    """Make processes whose parent died children of this one, so that they can be counted."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def count_orphans() -> int:
    """Count the processes that a case left running, after half a minute of grace, and end them."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if ended:
            continue
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    return len(children)
