"""Scores as a table, as JSON, and the images to look at first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from umscosod.errors import ConfigError, count_of
from umscosod.evaluation.scores import ImageScores, Scores
from umscosod.evaluation.scoring import Evaluation

Measure = Literal["mae", "f_max", "f_mean", "f_adaptive", "e_max", "e_mean", "e_adaptive", "s", "iou"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
TITLES = ("MAE", "maxF", "meanF", "adpF", "maxE", "meanE", "adpE", "S", "IoU")
TOOLS = {
    "cosod": "cosod (eval-co-sod: 255 thresholds, MAE on the raw map)",
    "sod": "sod (PySODMetrics: 256 thresholds, all on the min-maxed map)",
}
DIGITS = 4


def format_table(evaluation: Evaluation) -> str:
    """Table of the data set and its groups, the definition at the head.

    Returns
    -------
    str
        Lines of text without a final newline. Figures have four digits.
    """
    rows = [("group", "n", *TITLES), format_row("all images", evaluation.dataset)]
    rows += [format_row(name, scores) for name, scores in evaluation.groups.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"definition: {TOOLS[evaluation.definition]}", f"prediction: {evaluation.pred_root}"]
    lines += [f"ground truth: {evaluation.gt_root}", ""]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    if evaluation.dataset.undefined_s:
        lines += [
            "",
            f"S: {count_of(evaluation.dataset.undefined_s, 'image')} where the tool gives NaN, scored NaN-safe",
        ]
    if evaluation.extra_predictions:
        lines += ["", f"not scored: {count_of(evaluation.extra_predictions, 'prediction')} without a ground truth"]
    return "\n".join(lines)


def format_row(name: str, scores: Scores) -> tuple[str, ...]:
    """One row of the table as text."""
    return (name, str(scores.n), *(f"{getattr(scores, measure):.{DIGITS}f}" for measure in MEASURES))


def scores_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Scores as a dictionary that JSON can hold.

    Returns
    -------
    dict
        ``definition``, ``undefined_s``, ``dataset`` and ``groups``; the last two with ``n`` and the nine measures.
    """
    return {
        "definition": evaluation.definition,
        "undefined_s": evaluation.dataset.undefined_s,
        "dataset": figures_of(evaluation.dataset),
        "groups": {name: figures_of(scores) for name, scores in evaluation.groups.items()},
    }


def figures_of(scores: Scores) -> dict[str, float]:
    """``n`` and the nine measures."""
    return {"n": scores.n, **{measure: getattr(scores, measure) for measure in MEASURES}}


def list_worst_first(evaluation: Evaluation, by: Measure = "iou") -> list[ImageScores]:
    """Images from the worst to the best.

    Parameters
    ----------
    by : str
        A measure; high is bad for ``mae``, low for the others. Ties go by MAE, then by name.

    Raises
    ------
    ConfigError
        Unknown measure.
    """
    if by not in MEASURES:
        raise ConfigError(f"unknown measure {by!r}; choose one of {', '.join(MEASURES)}")
    sign = -1.0 if by == "mae" else 1.0
    return sorted(evaluation.images, key=lambda image: (sign * getattr(image, by), -image.mae, image.name))


def make_finite(value: Any) -> Any:
    """Replace NaN, which JSON does not know, by null."""
    if isinstance(value, Mapping):
        return {key: make_finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [make_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
