"""What a person decided about a mask, and what became of a decision."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum


class ReviewState(StrEnum):
    """Value of ``<field>_review``; a sample that nobody decided about has none."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SENT_BACK = "sent back"


def review_field(field: str) -> str:
    """Name of the field that holds the `ReviewState` of a run's masks.

    Examples
    --------
    >>> review_field("cosal")
    'cosal_review'
    """
    return f"{field}_review"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewReport:
    """Outcome of one decision about some samples.

    Attributes
    ----------
    field : str
        Mask field of the run.
    accepted, rejected, sent_back, undone : int
        Samples that are so now.
    skipped : tuple of (str, str)
        Sample id and reason of those left as they were.
    """

    field: str
    accepted: int = 0
    rejected: int = 0
    sent_back: int = 0
    undone: int = 0
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def summary(self) -> str:
        """One sentence for people.

        Examples
        --------
        >>> ReviewReport(field="cosal", accepted=2, skipped=(("a", "it has no mask"),)).summary
        'cosal: 2 accepted; 1 left as it was (it has no mask)'
        """
        counts = {
            "accepted": self.accepted,
            "rejected": self.rejected,
            "sent back": self.sent_back,
            "undone": self.undone,
        }
        parts = [", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing changed"]
        if self.skipped:
            reasons = Counter(reason for _, reason in self.skipped)
            told = "; ".join(reason if len(reasons) == 1 else f"{n}: {reason}" for reason, n in reasons.most_common())
            parts.append(f"{len(self.skipped)} left as {'it was' if len(self.skipped) == 1 else 'they were'} ({told})")
        return f"{self.field}: {'; '.join(parts)}"

    @property
    def is_success(self) -> bool:
        """Whether the decision holds for at least one sample."""
        return self.accepted + self.rejected + self.sent_back + self.undone > 0
