"""The default progress callback."""

from __future__ import annotations

import pytest

from umscosod.progress import ProgressFn, ignore_progress


def test_the_default_takes_any_report_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    report: ProgressFn = ignore_progress
    for done in range(3):
        assert report(done, 2, "features") is None
    assert report(0, 0, "") is None
    assert capsys.readouterr() == ("", "")
