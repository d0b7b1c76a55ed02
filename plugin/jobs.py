"""Jobs that the App started: each runs in a thread of the App's server, and the panel `progress` shows it.

A job belongs to the server, not to a tab: one that is closed or reloaded stops nothing. It ends with the server; the
next call goes on from what is on disk.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from umscosod.errors import Cancelled, UmscosodError, one_line, reason_of
from umscosod.progress import ProgressFn, WholeJob, stage_name

logger = logging.getLogger(__name__)

KEPT = 8
"""Ended jobs of a data set that are remembered."""
RUNNING, DONE, STOPPED, FAILED = "running", "done", "stopped", "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class NextStep:
    """A button at the end of a job.

    Attributes
    ----------
    label : str
    operator : str
        Name of one of our operators.
    params : dict
    has_form : bool
        Open its form with these parameters; off: execute it at once.
    """

    label: str
    operator: str
    params: dict[str, Any]
    has_form: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEnd:
    """What a job leaves to be shown.

    Attributes
    ----------
    summary, details : str
        What came out, and where it is.
    is_success : bool
    steps : tuple of NextStep
    view : fiftyone.core.view.DatasetView or None
        To be put into the grid.
    is_look : bool
        The view is there to be looked at: what the grid showed before comes back when the panel is closed.
    """

    summary: str
    details: str = ""
    is_success: bool = True
    steps: tuple[NextStep, ...] = ()
    view: Any = None
    is_look: bool = False


class AppJob:
    """One long call beside the server's own work.

    Parameters
    ----------
    label : str
        What is done, for people.
    dataset_name : str
    uri : str
        Of the operator that was executed.
    params : dict
        Its parameters, to open its form again with them.
    work : callable
        ``work(progress, whole)`` may tell `whole` what to expect, and returns a `JobEnd`.
    """

    def __init__(
        self,
        label: str,
        dataset_name: str,
        uri: str,
        params: Mapping[str, Any],
        work: Callable[[ProgressFn, WholeJob], JobEnd],
    ) -> None:
        self.id = uuid.uuid4().hex
        self.label, self.dataset_name, self.uri, self.params = label, dataset_name, uri, dict(params)
        self.state, self.message = RUNNING, "starting"
        self.ended: JobEnd | None = None
        self.is_told = False
        self.view_before: Any = None
        self.whole = WholeJob()
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"umscosod-{label}", daemon=True)

    def start(self) -> None:
        """Begin; the job is listed from now on."""
        with _lock:
            before = _jobs.get(self.dataset_name, [])
            # What could not be done, or was stopped, is about to be done again.
            kept = [job for job in before if job.uri != self.uri or job.state in (RUNNING, DONE)]
            ended = [job for job in kept if job.state != RUNNING]
            _jobs[self.dataset_name] = [job for job in kept if job not in ended[:-KEPT]] + [self]
        self._thread.start()

    def stop(self) -> None:
        """Ask the work to end at its next report; everything before that is on disk."""
        self._stop.set()
        self.message = "stopping after the image or step at hand"

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)

    @property
    def is_stopping(self) -> bool:
        """Whether somebody asked it to stop and it has not yet."""
        return self.state == RUNNING and self._stop.is_set()

    def _report(self, done: int, total: int, stage: str) -> None:
        if self._stop.is_set():
            raise Cancelled("stopped from the App")
        self.whole(done, total, stage)
        self.message = describe(done, total, stage)

    def _run(self) -> None:
        try:
            ended = self._work(self._report, self.whole)
        except Cancelled:
            self._end(STOPPED, "Stopped. What was finished is kept: run it again, and it goes on from there")
        except UmscosodError as error:
            self._end(FAILED, f"Failed: {one_line(str(error))}")
            logger.warning("%s of %s failed: %s", self.label, self.dataset_name, error)
        except BaseException as error:  # a fault of ours: nobody else would see it
            number = self.id[:8]
            logger.exception("error %s in %s of %s", number, self.label, self.dataset_name)
            words = (
                f"{type(error).__name__}: {reason_of(error) if isinstance(error, OSError) else one_line(str(error))}"
            )
            self._end(FAILED, f"Failed: {words}. The log of the App's server has the details: error {number}")
        else:
            self.ended = ended
            self._end(DONE, ended.summary)

    def _end(self, state: str, message: str) -> None:
        self.message = message
        self.whole.end()
        self.state = state  # last: who sees it reads the rest


_jobs: dict[str, list[AppJob]] = {}
_lock = threading.Lock()


def list_jobs(dataset_name: str) -> list[AppJob]:
    """Jobs of a data set that this server runs or remembers, the newest first."""
    with _lock:
        return list(reversed(_jobs.get(dataset_name, [])))


def find_job(dataset_name: str, job_id: str) -> AppJob | None:
    """A job by its id; None where it was dismissed."""
    return next((job for job in list_jobs(dataset_name) if job.id == job_id), None)


def dismiss(dataset_name: str) -> None:
    """Forget the jobs of a data set that have ended."""
    with _lock:
        _jobs[dataset_name] = [job for job in _jobs.get(dataset_name, []) if job.state == RUNNING]


def describe(done: int, total: int, stage: str) -> str:
    """One report in words.

    Examples
    --------
    >>> describe(1, 4, "features")
    'features 1/4'
    >>> describe(1, 4, "training, loss 0.412")
    'training 1/4, loss 0.412'
    """
    name = stage_name(stage)
    return f"{name} {done}/{total}{stage.removeprefix(name)}"


class Throttle:
    """Let a stage's first and last report through, and one a second between them: each costs a database write."""

    EVERY_S = 1.0

    def __init__(self, report: ProgressFn) -> None:
        self._report = report
        self._stage = ""
        self._last_s = 0.0

    def __call__(self, done: int, total: int, stage: str) -> None:
        """Pass the report on, or drop it."""
        now_s = time.monotonic()
        name = stage_name(stage)
        if name != self._stage or done >= total or now_s - self._last_s >= self.EVERY_S:
            self._stage, self._last_s = name, now_s
            self._report(done, total, stage)
