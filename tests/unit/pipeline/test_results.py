"""Counts and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from umscosod.pipeline import LabelReport
from umscosod.types import Labelled, Status


def report(*statuses: Status) -> LabelReport:
    rows = [Labelled(image_id=str(n), group="g", output=f"{n}.png", status=one) for n, one in enumerate(statuses)]
    return LabelReport(rows=tuple(rows), out=Path("out"))


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([Status.LABELLED], 0),
        ([Status.LABELLED, Status.EMPTY, Status.SKIPPED], 0),
        ([Status.LABELLED, Status.FAILED], 1),
        ([Status.EMPTY], 3),
        ([Status.FAILED, Status.FAILED], 3),
        ([], 3),
    ],
)
def test_exit_code(statuses: list[Status], code: int) -> None:
    assert report(*statuses).exit_code == code


def test_counts_name_every_status() -> None:
    counts = report(Status.LABELLED, Status.EMPTY, Status.LABELLED).counts
    assert counts == {Status.LABELLED: 2, Status.EMPTY: 1, Status.FAILED: 0, Status.SKIPPED: 0}
