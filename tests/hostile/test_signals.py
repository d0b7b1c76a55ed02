"""A job that is told to stop, in whatever stage, says one line, leaves no process, and is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.signals import SIGNALS, STAGES, WORDS, run_all


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_a_signal_in_each_stage_ends_in_one_line_no_process_and_a_job_that_is_resumed(tmp_path: Path) -> None:
    rows = run_all(tmp_path)
    assert [(row.signal, row.stage) for row in rows] == [(each.name, stage) for each in SIGNALS for stage in STAGES]
    for row, number in zip(rows, [number for number in SIGNALS for _ in STAGES], strict=True):
        assert row.exit_code == 128 + number, row
        assert row.last_line == f"{WORDS[number]}; the same command resumes from what was written", row
        assert "Traceback" not in row.said, row
        assert "Error" not in row.said, row
        assert row.left == (), row
        assert row.is_resumed, row
