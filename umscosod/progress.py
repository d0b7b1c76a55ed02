"""One callback type for progress: the command line draws a bar, the App sets a percentage, tests record."""

from __future__ import annotations

from collections.abc import Callable

ProgressFn = Callable[[int, int, str], None]
"""Called as ``(done, total, stage)``; ``stage`` is a short name such as ``"features"``.

A callback may raise :class:`umscosod.errors.Cancelled`; the job then stops between two units of work,
and a later call resumes from what was written.
"""


def ignore_progress(done: int, total: int, stage: str) -> None:
    """Do nothing with a progress report (the default callback)."""
