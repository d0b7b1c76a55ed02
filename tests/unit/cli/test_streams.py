"""Standard output and standard error that are closed, full, or read by nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_cli import save_mask

ROOT = Path(__file__).resolve().parents[3]
COMMAND = f"{sys.executable} -m umscosod.cli"


def shell(line: str, cwd: Path) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of a line for bash."""
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", line], cwd=cwd, capture_output=True, text=True, env={**os.environ, **own}, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    save_mask(tmp_path / "cat" / "1.png", 255)
    return tmp_path


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(masks: Path, closed: str) -> None:
    code, _, errors = shell(f"{COMMAND} evaluate . . {closed}", masks)
    assert (code, "Traceback" in errors) == (0, False)


def test_what_is_opened_next_does_not_take_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    code = "import os, umscosod.cli as cli; cli._open_closed_streams(); print(os.open('x', os.O_CREAT | os.O_RDWR))"
    assert shell(f'{sys.executable} -c "{code}" 2>&- <&-', tmp_path)[:2] == (0, "3\n")


def test_a_reader_that_has_seen_enough_is_no_error(masks: Path) -> None:
    for verb in ("presets", "evaluate . . --json"):
        code, _, errors = shell(f"set -o pipefail; {COMMAND} {verb} | true", masks)
        assert (code, "error" in errors, "Exception" in errors) == (0, False, False)


def test_nobody_who_reads_the_progress_is_no_error(masks: Path) -> None:
    code, said, _ = shell(f"{COMMAND} evaluate . . 2> >(true)", masks)
    assert (code, "MAE" in said) == (0, True)
    assert shell(f"{COMMAND} evaluate . . 2>/dev/full", masks)[0] == 0


def test_a_full_disk_behind_standard_output_is_one_line(masks: Path) -> None:
    for verb in ("presets", "evaluate . ."):
        code, _, errors = shell(f"{COMMAND} {verb} >/dev/full", masks)
        assert code == 2
        assert errors.splitlines()[-1] == (
            "error: standard output cannot be written (No space left on device); what was done is kept: check where it "
            "leads"
        )


def test_a_working_directory_that_is_gone_is_one_line(masks: Path) -> None:
    code, _, errors = shell(f'mkdir gone; cd gone; rmdir "$PWD"; {COMMAND} evaluate {masks} {masks}', masks)
    assert code == 2
    assert errors == "error: the current folder cannot be found (No such file or directory); change to another one\n"


def test_help_ends_on_a_terminal_of_one_column(tmp_path: Path) -> None:
    code, said, _ = shell(f"ulimit -t 60; COLUMNS=1 {COMMAND} plugin info --help", tmp_path)
    assert code == 0
    assert "usage" in said
