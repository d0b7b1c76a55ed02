"""Stage 4: measures maps and masks against ground truth (MAE, F, E, S, IoU), without torch."""

from umscosod.evaluation.scores import Curves, Definition, ImageMeasures, ImageScores, Scores
from umscosod.evaluation.scoring import (
    Evaluation,
    compute_measures,
    evaluate,
    format_table,
    list_worst_first,
    scores_to_json,
)

__all__ = [
    "Curves",
    "Definition",
    "Evaluation",
    "ImageMeasures",
    "ImageScores",
    "Scores",
    "compute_measures",
    "evaluate",
    "format_table",
    "list_worst_first",
    "scores_to_json",
]
