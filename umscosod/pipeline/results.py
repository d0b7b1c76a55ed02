"""What a job hands back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from umscosod.types import Labelled, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelReport:
    """Outcome of labelling a collection.

    Attributes
    ----------
    rows : tuple of Labelled
        One per image asked for, in the order of the groups.
    out : Path
        The output folder.
    notes : tuple of str
        What was chosen on the way and why, for people.
    seconds : float
        Wall time of this call; a resumed job counts only what was left.
    """

    rows: tuple[Labelled, ...]
    out: Path
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def counts(self) -> dict[Status, int]:
        """Number of images by status, zeros included."""
        found = Counter(row.status for row in self.rows)
        return {status: found[status] for status in Status}

    @property
    def exit_code(self) -> int:
        """0 all well, 1 if any image failed, 3 if nothing was labelled."""
        if not self.counts[Status.LABELLED]:
            return 3
        return 1 if self.counts[Status.FAILED] else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """Outcome of training on pseudo-labels.

    Attributes
    ----------
    checkpoint : Path
        Folder of the final checkpoint.
    steps : int
    final_loss : float
        Of the last step.
    notes : tuple of str
    rows : tuple of Labelled
        Images that could not be used, as ``failed``.
    """

    checkpoint: Path
    steps: int
    final_loss: float
    notes: tuple[str, ...] = ()
    rows: tuple[Labelled, ...] = ()
