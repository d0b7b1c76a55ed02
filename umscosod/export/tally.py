"""Totals of a run, counted as rows pass by."""

from __future__ import annotations

from collections import Counter
from typing import Any

from umscosod.types import Labelled, Status


class Tally:
    """Count rows by status and by source, and average the confidence of labelled ones.

    Examples
    --------
    >>> tally = Tally()
    >>> row = Labelled(image_id="a", group="g", output="a.png", status=Status.LABELLED, confidence=0.5)
    >>> tally.add(row)
    >>> tally.as_dict()["labelled"], tally.as_dict()["failed"], tally.as_dict()["mean_confidence"]
    (1, 0, 0.5)
    """

    def __init__(self) -> None:
        self._statuses: Counter[Status] = Counter()
        self._sources: Counter[str] = Counter()
        self._groups: set[str] = set()
        self._mixed: set[str] = set()
        self._confidence = 0.0

    def add(self, row: Labelled) -> None:
        """Count one row."""
        self._statuses[row.status] += 1
        self._groups.add(row.group)
        if row.is_mixed:
            self._mixed.add(row.group)
        if row.source:
            self._sources[row.source] += 1
        if row.status is Status.LABELLED:
            self._confidence += row.confidence

    def as_dict(self) -> dict[str, Any]:
        """Totals: ``images``, ``groups``, ``mixed_groups``, a count per status, ``sources``, and ``mean_confidence``.

        The mean is over labelled images, rounded to 6 digits; None where nothing is labelled.
        """
        labelled = self._statuses[Status.LABELLED]
        return {
            "images": self._statuses.total(),
            "groups": len(self._groups),
            "mixed_groups": len(self._mixed),
            **{status.value: self._statuses[status] for status in Status},
            "sources": dict(sorted(self._sources.items())),
            "mean_confidence": round(self._confidence / labelled, 6) if labelled else None,
        }
