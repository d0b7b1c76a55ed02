"""What a signal does to the command line's process, and only there."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from umscosod.cli.console import heed_signals

ROOT = Path(__file__).resolve().parents[3]
RESUMES = "the same command resumes from what was written"
# A command that is told to stop in the middle of something; `work` is filled in.
PROGRAM = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from umscosod import cli
def tell(number): os.kill(os.getpid(), number)
class Doomed:
    def __del__(self): tell(signal.SIGINT)
def run(given):
{work}
cli._run = run
sys.exit(cli.main(["label"]))
"""


def run_program(work: str, *, ignored: int | None = None) -> subprocess.CompletedProcess[str]:
    lines = "".join(f"    {line}\n" for line in work.splitlines())
    # Not ignored, as all that `nohup` starts would.
    start = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    start += "" if ignored is None else f"signal.signal({ignored}, signal.SIG_IGN)\n"
    code = start + PROGRAM.format(root=str(ROOT), work=lines)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("number", "word"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"), (signal.SIGHUP, "terminal closed")],
)
def test_a_signal_is_one_line_and_the_exit_code_of_shells(number: signal.Signals, word: str) -> None:
    done = run_program(f"tell({int(number)})\nreturn 0")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", f"\n{word}; {RESUMES}\n")


@pytest.mark.parametrize(
    "work",
    [
        "one = Doomed()\ndel one\nreturn 0",  # Python prints and drops what a destructor raises
        "try:\n    tell(2)\nexcept BaseException as error:\n    raise RuntimeError('x') from error",
        "try:\n    tell(2)\nexcept BaseException as error:\n    raise OSError('x') from error",
    ],
    ids=["in a destructor", "made another error", "made an OSError"],
)
def test_an_interruption_that_others_catch_is_one_line_too(work: str) -> None:
    done = run_program(work)
    assert (done.returncode, done.stderr) == (130, f"\ninterrupted; {RESUMES}\n")


def test_in_the_middle_of_an_import_the_process_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text(
        "import os\ntry:\n    os.kill(os.getpid(), 15)\nexcept BaseException:\n    pass\n"
    )
    done = run_program(f"sys.path.insert(0, {str(tmp_path)!r})\nimport heavy\nreturn 0")
    assert (done.returncode, done.stderr) == (143, f"\nterminated; {RESUMES}\n")


def test_the_second_signal_ends_the_process_at_once_without_a_word() -> None:
    work = "try:\n    tell(2)\nfinally:\n    tell(2)\n    print('never', file=sys.stderr)"
    done = run_program(work)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_what_nohup_ignores_stays_ignored() -> None:
    done = run_program("tell(1)\nreturn 0", ignored=signal.SIGHUP)
    assert (done.returncode, done.stderr) == (0, "")


def test_handlers_are_put_back_and_other_threads_leave_them_alone() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    hook = sys.unraisablehook
    with heed_signals():
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before
    assert sys.unraisablehook is hook
    seen = []

    def work() -> None:
        with heed_signals():
            seen.extend(signal.getsignal(number) for number in numbers)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before
