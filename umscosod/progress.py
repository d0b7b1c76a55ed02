"""One callback type for progress: the command line draws a bar, the App sets a percentage, tests record."""

from __future__ import annotations

from collections.abc import Callable

ProgressFn = Callable[[int, int, str], None]
"""Called as ``(done, total, stage)``; ``stage`` is a short name such as ``"features"``, and may carry a remark that
changes from call to call: ``"training, loss 0.412"`` (see `stage_name`).

A callback may raise :class:`umscosod.errors.Cancelled`; the job then stops between two units of work,
and a later call resumes from what was written.
"""


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
