"""Stage 4: measures maps and masks against ground truth (MAE, F, E, S, IoU), without torch."""

from umscosod.evaluation.scoring import (
    Evaluation,
    compute_measures,
    evaluate,
    format_table,
    list_worst_first,
    scores_to_json,
)

__all__ = ["Evaluation", "compute_measures", "evaluate", "format_table", "list_worst_first", "scores_to_json"]
