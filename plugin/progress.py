"""Run one long call beside a generator, so that the App can show its progress and stop it."""

import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from umscosod.errors import Cancelled
from umscosod.progress import ProgressFn, stage_name

REPORT_EVERY_S = 1.0
"""Shortest time between two reports of one stage: each costs the App a message, or a delegated run a database write."""


class Throttle:
    """Let a stage's first and last report through, and one a second between them."""

    def __init__(self, report: ProgressFn) -> None:
        self._report = report
        self._stage = ""
        self._last_s = 0.0

    def __call__(self, done: int, total: int, stage: str) -> None:
        """Pass the report on, or drop it."""
        now_s = time.monotonic()
        name = stage_name(stage)
        if name != self._stage or done >= total or now_s - self._last_s >= REPORT_EVERY_S:
            self._stage, self._last_s = name, now_s
            self._report(done, total, stage)


def describe(done: int, total: int, stage: str) -> dict[str, Any]:
    """Give FiftyOne's progress arguments for one report.

    Examples
    --------
    >>> describe(1, 4, "features")
    {'progress': 0.25, 'label': 'features 1/4'}
    >>> describe(1, 4, "training, loss 0.412")["label"]
    'training 1/4, loss 0.412'
    """
    name = stage_name(stage)
    return {"progress": done / total if total else 0.0, "label": f"{name} {done}/{total}{stage.removeprefix(name)}"}


def iter_progress(work: Callable[[ProgressFn], Any]) -> Generator[tuple[int, int, str], None, Any]:
    """Run ``work(progress)`` in a thread; yield each report and return what it returned.

    Closing the generator (the user closed or reloaded the tab) makes the next report raise `Cancelled` inside the
    work, which then stops between two units with everything before them on disk. What the work raises is raised here.
    """
    reports: queue.Queue[tuple[int, int, str] | None] = queue.Queue()
    outcome: dict[str, Any] = {}
    stopped = threading.Event()

    def report(done: int, total: int, stage: str) -> None:
        if stopped.is_set():
            raise Cancelled("stopped from the App")
        reports.put((done, total, stage))

    def run() -> None:
        try:
            outcome["value"] = work(report)
        except BaseException as error:  # carried to the caller's thread and raised there
            outcome["error"] = error
        finally:
            reports.put(None)

    thread = threading.Thread(target=run, name="umscosod-operator", daemon=True)
    thread.start()
    try:
        while (item := reports.get()) is not None:
            yield item
    finally:
        stopped.set()  # no join here: whoever closes this must not wait for the work's next report
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
