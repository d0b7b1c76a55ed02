"""Runs the jobs of the App: each in a thread of the App's server. The panel `progress` shows them.

A job belongs to the server, not to a tab: closing or reloading a tab stops no job. A job ends with the server. The next
call resumes it from the files on disk.
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
"""Ended jobs that the server remembers for a data set."""
RUNNING, DONE, STOPPED, FAILED = "running", "done", "stopped", "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class NextStep:
    """A button that the panel shows at the end of a job.

    Attributes
    ----------
    label : str
    operator : str
        Name of one of our operators.
    params : dict
    has_form : bool
        Open its form with these parameters; if False, execute it at once.
    """

    label: str
    operator: str
    params: dict[str, Any]
    has_form: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEnd:
    """The result of a job, as the panel shows it.

    Attributes
    ----------
    summary, details : str
        The outcome, and where it is.
    is_success : bool
    steps : tuple of NextStep
    view : fiftyone.core.view.DatasetView or None
        The view that the grid shows at the end.
    is_look : bool
        The view is temporary: when the panel is closed, the grid returns to its earlier view.
    """

    summary: str
    details: str = ""
    is_success: bool = True
    steps: tuple[NextStep, ...] = ()
    view: Any = None
    is_look: bool = False


class AppJob:
    """One long call in a thread of the server.

    Parameters
    ----------
    label : str
        Title of the job in the panel.
    dataset_name : str
    uri : str
        Operator that was executed.
    params : dict
        Its parameters; the panel can open its form again with them.
    work : callable
        ``work(progress, whole)`` returns a `JobEnd`. It may give `whole` the expected stages.
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
        """Start the job. From now on `list_jobs` returns it."""
        with _lock:
            before = _jobs.get(self.dataset_name, [])
            # The new job replaces jobs of the same operator that failed or were stopped.
            kept = [job for job in before if job.uri != self.uri or job.state in (RUNNING, DONE)]
            ended = [job for job in kept if job.state != RUNNING]
            _jobs[self.dataset_name] = [job for job in kept if job not in ended[:-KEPT]] + [self]
        self._thread.start()

    def stop(self) -> None:
        """Ask the work to end at its next report. All results before that report are on disk."""
        self._stop.set()
        self.message = "stopping after the image or step at hand"

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was requested and the job still runs."""
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
        except BaseException as error:  # an unexpected error: nothing else would report it
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
        self.state = state  # last: a reader that sees the state reads the other attributes


_jobs: dict[str, list[AppJob]] = {}
_lock = threading.Lock()


def list_jobs(dataset_name: str) -> list[AppJob]:
    """Return the jobs of a data set that this server runs or remembers, the newest first."""
    with _lock:
        return list(reversed(_jobs.get(dataset_name, [])))


def find_job(dataset_name: str, job_id: str) -> AppJob | None:
    """Return the job with an id; None if it was dismissed."""
    return next((job for job in list_jobs(dataset_name) if job.id == job_id), None)


def dismiss(dataset_name: str) -> None:
    """Forget the ended jobs of a data set."""
    with _lock:
        _jobs[dataset_name] = [job for job in _jobs.get(dataset_name, []) if job.state == RUNNING]


def describe(done: int, total: int, stage: str) -> str:
    """Describe one report in words.

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
    """Passes on the first and last report of a stage, and one a second between: each report costs a database write."""

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
