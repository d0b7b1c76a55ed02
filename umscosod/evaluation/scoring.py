"""Score one folder tree against another, one pass, one pair at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from umscosod.evaluation.accumulate import MeanOfGroups
from umscosod.evaluation.measures import compute_measures
from umscosod.evaluation.pictures import read_pair
from umscosod.evaluation.scores import Curves, Definition, ImageScores, Scores, check_definition
from umscosod.evaluation.suspicious import Suspicious
from umscosod.evaluation.trees import Pairing, pair_trees
from umscosod.progress import ProgressFn, ignore_progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All scores of one comparison.

    Attributes
    ----------
    definition : {"cosod", "sod"}
        What the figures mean; never quote them without it.
    pred_root, gt_root : Path
        The folders really compared.
    dataset : Scores
    groups : dict of str to Scores
        By name of the folder, sorted.
    images : tuple of ImageScores
        Sorted by name.
    curves : Curves
        Mean precision, recall, F and E of the data set at each threshold.
    group_curves : dict of str to Curves
    extra_predictions : int
        Predictions without a ground truth; not scored.
    """

    definition: Definition
    pred_root: Path
    gt_root: Path
    dataset: Scores
    groups: dict[str, Scores]
    images: tuple[ImageScores, ...]
    curves: Curves
    group_curves: dict[str, Curves]
    extra_predictions: int


def evaluate(
    pred: str | os.PathLike[str],
    gt: str | os.PathLike[str],
    *,
    definition: Definition = "cosod",
    progress: ProgressFn = ignore_progress,
) -> Evaluation:
    """Score a tree of maps or masks against a tree of ground truths.

    Parameters
    ----------
    pred : path
        Folder of 8-bit maps or masks; an output folder of ``umscosod label`` stands for its ``masks``.
    gt : path
        Folder of ground truths, or a data set's root that holds one named ``gt``.
    definition : {"cosod", "sod"}
        ``cosod``: eval-co-sod's arithmetic, that of the papers' tables. ``sod``: PySODMetrics'.
    progress : callable
        Called as ``(done, total, "evaluate")`` after each pair.

    Returns
    -------
    Evaluation
        Memory: one row an image and five curves a group; no picture is kept.

    Raises
    ------
    DataError
        A prediction is missing, a file cannot be read, or a folder does not hold what it should.
    ConfigError
        Unknown definition.
    """
    check_definition(definition)  # before any file is read
    return score_pairs(pair_trees(pred, gt), definition=definition, progress=progress)


def score_pairs(
    pairing: Pairing, *, definition: Definition = "cosod", progress: ProgressFn = ignore_progress
) -> Evaluation:
    """Score pairs of files; see `evaluate`.

    Raises
    ------
    DataError
        A file cannot be read.
    ConfigError
        Unknown definition.
    """
    check_definition(definition)
    means = MeanOfGroups()
    images: list[ImageScores] = []
    suspicious = Suspicious()
    for done, pair in enumerate(pairing.pairs, start=1):
        pred_HW, gt_HW = read_pair(pair.pred, pair.gt, suspicious)
        suspicious.look_at(gt_HW, pair.gt)
        suspicious.look_at_prediction(pred_HW, pair.pred)
        measures = compute_measures(pred_HW, gt_HW, definition)
        means.add(pair.group, measures)
        images.append(ImageScores.from_measures(pair.name, pair.group, measures))
        progress(done, len(pairing.pairs), "evaluate")
    suspicious.warn()
    return Evaluation(
        definition=definition,
        pred_root=pairing.pred_root,
        gt_root=pairing.gt_root,
        dataset=means.dataset.scores(),
        groups={name: mean.scores() for name, mean in sorted(means.groups.items())},
        images=tuple(images),
        curves=means.dataset.curves(),
        group_curves={name: mean.curves() for name, mean in sorted(means.groups.items())},
        extra_predictions=len(pairing.extra),
    )
