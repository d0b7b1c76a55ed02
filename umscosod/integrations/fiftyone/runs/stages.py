"""How far a part is: shown while it is worked on, and kept beside it for whoever finds it interrupted."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from umscosod.data.files import open_atomic, read_json
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.parts import NOTE_FILE, Part
from umscosod.progress import ProgressFn, ignore_progress, stage_name

logger = logging.getLogger(__name__)

Progress = ProgressFn | bool | None
"""What a caller may give: a callback, or whether to show a bar; None: as FiftyOne's ``show_progress_bars`` says."""
_EVERY_S = 1.0
"""Shortest time between two notes of one stage."""


@dataclass(kw_only=True, slots=True)
class Note:
    """How far the work on a part is; called as a `ProgressFn`, which it passes on.

    Attributes
    ----------
    part : Part
    progress : callable
    text : str
        Stage with its counts; ``""`` before the first.
    seconds : float
        Worked so far, by all calls.
    """

    part: Part
    progress: ProgressFn = ignore_progress
    text: str = ""
    seconds: float = 0.0
    _since_s: float = 0.0
    _written_s: float = float("-inf")
    _stage: str = ""

    def __call__(self, done: int, total: int, stage: str) -> None:
        """Take a report of progress, and pass it on."""
        name = stage_name(stage)
        self.text = f"{name} {done}/{total}"
        if name != self._stage or time.monotonic() - self._written_s >= _EVERY_S:
            self._stage = name
            self.write()
        self.progress(done, total, stage)

    def write(self) -> None:
        """Keep it."""
        now_s = time.monotonic()
        self.seconds += now_s - self._since_s
        self._since_s = self._written_s = now_s
        with open_atomic(self.part.folder / NOTE_FILE) as stream:
            stream.write(json.dumps({"text": self.text, "seconds": round(self.seconds, 3)}).encode())


def read_note(part: Part) -> Note:
    """Read how far a part came; a note that is missing or damaged says nothing."""
    try:
        content = read_json(part.folder / NOTE_FILE)
        return Note(part=part, text=str(content["text"]), seconds=float(content["seconds"]))
    except (DataError, KeyError, TypeError, ValueError):
        return Note(part=part)


@contextmanager
def noting(part: Part, progress: ProgressFn) -> Iterator[Note]:
    """Keep notes of the work in this block, its last state included, however it ends short of a kill."""
    note = read_note(part)
    note.progress, note._since_s = progress, time.monotonic()
    try:
        yield note
    finally:
        try:
            note.write()
        except DataError as error:  # such as a full disk, of which the work itself has told
            logger.warning("%s", error)


@contextmanager
def showing(progress: Progress) -> Iterator[ProgressFn]:
    """Turn what a caller gave into a callback: their own, FiftyOne's progress bar, or nothing."""
    if callable(progress):
        yield progress
        return
    import fiftyone as fo
    import fiftyone.core.utils as fou

    if not (fo.config.show_progress_bars if progress is None else progress):
        yield ignore_progress
        return
    # without a total: each stage has one of its own
    with fou.ProgressBar(progress=True, iters_str="steps", show_remaining_time=False) as bar:
        yield lambda done, total, stage: bar.update(suffix=f"{stage_name(stage)} {done}/{total}")
