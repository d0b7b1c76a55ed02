"""What an evaluation found, in figures and in one sentence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from umscosod.evaluation.report import Measure
from umscosod.evaluation.scores import Definition, Scores
from umscosod.integrations.fiftyone.evaluation.pairs import LeftOut
from umscosod.words import count_of

WORDS: dict[Measure, str] = {
    "s": "S-measure",
    "e_max": "Max E-measure",
    "f_max": "Max F-measure",
    "iou": "IoU",
    "mae": "MAE",
    "e_mean": "Mean E-measure",
    "f_mean": "Mean F-measure",
    "e_adaptive": "Adaptive E-measure",
    "f_adaptive": "Adaptive F-measure",
}
"""The nine measures in words, the usual ones first."""
IMAGE_FIELDS: tuple[Measure, ...] = ("iou", "s")
"""Measures that each image gets a field for, unless told otherwise; its other figures are with the results."""
LOWER_IS_BETTER: frozenset[str] = frozenset({"mae"})
NAMED = 3
"""So many samples that were left out are named in one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationReport:
    """Outcome of `evaluate_dataset`.

    Attributes
    ----------
    eval_key, pred_field, gt_field : str
        `gt_field` is the mask field really used.
    definition : {"cosod", "sod"}
        What the figures mean; never quote them without it.
    dataset : Scores
    groups : dict of str to Scores
    n : int
        Images scored.
    missing : int
        Samples left out.
    missing_reasons : tuple of LeftOut
        Each of them, with its reason.
    notes : tuple of str
        What else the user should know.
    """

    eval_key: str
    pred_field: str
    gt_field: str
    definition: Definition
    dataset: Scores
    groups: dict[str, Scores]
    n: int
    missing: int
    missing_reasons: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One sentence for people."""
        scores = self.dataset
        text = (
            f"{self.eval_key}: {count_of(self.n, 'image')} in {count_of(len(self.groups), 'group')}, "
            f"S {scores.s:.3f}, maxE {scores.e_max:.3f}, maxF {scores.f_max:.3f}, IoU {scores.iou:.3f}, "
            f"MAE {scores.mae:.3f} ({self.definition})"
        )
        if self.missing:
            text += f"; {self.missing} left out: {describe_left_out(self.missing_reasons)}"
        return "; ".join([text, *self.notes])

    @property
    def is_success(self) -> bool:
        """Whether every sample was scored."""
        return self.missing == 0


def describe_left_out(rows: tuple[LeftOut, ...]) -> str:
    """The commonest reasons with their counts, or the first few by name.

    Examples
    --------
    >>> describe_left_out((LeftOut(sample_id="1", image="/a.jpg", reason="no prediction"),))
    '/a.jpg (no prediction)'
    """
    if len(rows) <= NAMED:
        return ", ".join(f"{row.image} ({row.reason})" for row in rows)
    counts = Counter(row.reason for row in rows).most_common(NAMED)
    text = ", ".join(f"{count} x {reason}" for reason, count in counts)
    return f"{text}, such as {rows[0].image}"
