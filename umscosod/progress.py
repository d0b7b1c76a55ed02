"""One callback type for progress: the command line draws a bar, the App sets a percentage, tests record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

ProgressFn = Callable[[int, int, str], None]
"""Called as ``(done, total, stage)``; ``stage`` is a short name such as ``"features"``, and may carry a remark that
changes from call to call: ``"training, loss 0.412"`` (see `stage_name`).

A callback may raise :class:`umscosod.errors.Cancelled`; the job then stops between two units of work,
and a later call resumes from what was written.
"""

_SURE_AFTER_S = 2.0
"""Time in a stage after which its pace counts; caches and start-up blur what comes before."""


def stage_name(stage: str) -> str:
    """Drop the remark of a stage.

    Examples
    --------
    >>> stage_name("training, loss 0.412"), stage_name("features")
    ('training', 'features')
    """
    return stage.partition(",")[0]


def ignore_progress(done: int, total: int, stage: str) -> None:
    """Do nothing with a progress report (the default callback)."""


class WholeJob:
    """One bar for all stages of a job: how much is done, how long it took, how long the rest will take.

    Call it with each report. The fraction never falls.

    Parameters
    ----------
    stages : mapping of str to float, optional
        Estimated seconds by stage, in their order. A stage that is not among them leaves the fraction as it is, unless
        there are none: then each stage counts by itself.

    Attributes
    ----------
    fraction : float
        Done of the whole, in [0, 1].

    Examples
    --------
    >>> whole = WholeJob({"features": 30.0, "training": 10.0})
    >>> whole(5, 10, "features"); whole.fraction
    0.375
    >>> whole(0, 7, "training"); whole.fraction
    0.75
    """

    def __init__(self, stages: Mapping[str, float] | None = None) -> None:
        self.expect(stages or {})
        self._began_s = self._stage_began_s = time.monotonic()
        self._ended_s = 0.0
        self._stage = ""
        self._share = 0.0
        self._pace = 1.0
        self.fraction = 0.0

    def expect(self, stages: Mapping[str, float]) -> None:
        """Take the estimate, where it is known only after the start."""
        self._stages = dict(stages)
        self._total_s = sum(self._stages.values())

    def __call__(self, done: int, total: int, stage: str) -> None:
        """Take a report."""
        name, now_s = stage_name(stage), time.monotonic()
        if name != self._stage:
            self._stage, self._stage_began_s = name, now_s
        self._share = done / total if total else 1.0
        if not self._stages:
            self.fraction = self._share
        elif name in self._stages:
            before_s = self._before_s(name)
            self.fraction = max(self.fraction, (before_s + self._stages[name] * self._share) / (self._total_s or 1.0))
            expected_s = self._stages[name] * self._share
            if expected_s > 0 and now_s - self._stage_began_s > _SURE_AFTER_S:
                self._pace = (now_s - self._stage_began_s) / expected_s

    def end(self) -> None:
        """Stop the clock."""
        self._ended_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, up to the end."""
        return (self._ended_s or time.monotonic()) - self._began_s

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds to the end, from the pace of the stage at hand; None while there is nothing to go by."""
        if self._stage in self._stages:
            own_s = self._stages[self._stage] * (1.0 - self._share)
            later_s = self._total_s - self._before_s(self._stage) - self._stages[self._stage]
            return (own_s + later_s) * self._pace
        stage_s = time.monotonic() - self._stage_began_s
        if self._stages or stage_s < _SURE_AFTER_S or not self._share:
            return None
        return stage_s * (1.0 - self._share) / self._share

    def _before_s(self, name: str) -> float:
        names = list(self._stages)
        return sum(self._stages[each] for each in names[: names.index(name)])


def in_words(seconds: float) -> str:
    """Say a duration as people do.

    Examples
    --------
    >>> in_words(7.2), in_words(100.0), in_words(5400.0)
    ('7 s', '2 min', '1.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
