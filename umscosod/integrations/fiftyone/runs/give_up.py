"""Leaving what an interrupted call has begun: its finished labels stay, the rest is made anew by the next call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from umscosod.integrations.fiftyone.runs.parts import PartState, hold_run, list_parts, set_state


def give_up_interrupted(dataset: Any, key: str) -> bool:
    """Give up the unfinished part of a run, so that the next call begins with what settings it likes.

    Labels that are written stay. Files of the part go once no label points to them.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    key : str
        Name of the run; there need not be one.

    Returns
    -------
    bool
        Whether there was such a part.

    Raises
    ------
    DataError
        A call is at work on the run, or the name belongs to somebody else's.
    """
    from umscosod.integrations.fiftyone.runs.record import find_run

    dataset.reload()  # another process may have begun the run since the data set was loaded here
    record = find_run(dataset, key)
    if record is None or not Path(record.folder).is_dir():
        return False
    with hold_run(Path(record.folder)):
        parts = [part for part in list_parts(Path(record.folder)) if part.run_id == record.run_id]
        left = [part for part in parts if part.state is PartState.RUNNING]
        for part in left:
            set_state(part, PartState.SUPERSEDED)
    return bool(left)
