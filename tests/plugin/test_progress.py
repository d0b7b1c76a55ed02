"""A long call beside a generator: reports arrive in order, errors and a closed tab are handed across."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from plugin.progress import Throttle, iter_progress
from umscosod.errors import Cancelled


def test_reports_in_order_then_the_result() -> None:
    def work(progress: Any) -> str:
        for done in range(3):
            progress(done, 3, "train")
        return "result"

    reports = iter_progress(work)
    assert [next(reports) for _ in range(3)] == [(0, 3, "train"), (1, 3, "train"), (2, 3, "train")]
    with pytest.raises(StopIteration) as end:
        next(reports)
    assert end.value.value == "result"


def test_an_error_of_the_work_is_raised_here() -> None:
    def work(progress: Any) -> None:
        progress(0, 1, "features")
        raise OSError("disk full")

    reports = iter_progress(work)
    next(reports)
    with pytest.raises(OSError, match="disk full"):
        next(reports)


def test_closing_stops_the_work_at_its_next_report() -> None:
    go_on, ended = threading.Event(), threading.Event()
    outcome: list[str] = []

    def work(progress: Any) -> None:
        try:
            progress(0, 2, "train")
            go_on.wait(10)
            progress(1, 2, "train")
            outcome.append("went on")
        except Cancelled:
            outcome.append("stopped")
        finally:
            ended.set()

    reports = iter_progress(work)
    next(reports)
    reports.close()
    go_on.set()
    assert ended.wait(10)
    assert outcome == ["stopped"]


def test_throttle_keeps_first_last_and_stage_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("plugin.progress.time.monotonic", lambda: clock[0])
    seen: list[tuple[int, int, str]] = []
    report = Throttle(lambda *given: seen.append(given))
    for done, total, stage, at_s in [
        (1, 9, "features", 100.0),
        (2, 9, "features", 100.5),  # dropped
        (3, 9, "features", 101.0),
        (4, 9, "train", 101.1),
        (9, 9, "train", 101.2),
    ]:
        clock[0] = at_s
        report(done, total, stage)
    assert seen == [(1, 9, "features"), (3, 9, "features"), (4, 9, "train"), (9, 9, "train")]


def test_a_loss_that_changes_makes_no_new_stage() -> None:
    seen: list[str] = []
    throttle = Throttle(lambda done, total, stage: seen.append(stage))
    for done in range(1, 51):
        throttle(done, 50, f"training, loss {1 / done:.3f}")
    assert seen == ["training, loss 1.000", "training, loss 0.020"]  # first and last; the rest came within a second
