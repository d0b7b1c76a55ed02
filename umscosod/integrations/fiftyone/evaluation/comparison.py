"""Compares two evaluations: scores, groups, images and curves.

A *gain* is how much better A is than B: ``A - B``, or ``B - A`` for MAE. For every measure, A is better if the gain is
above 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from umscosod.errors import ConfigError, DataError, count_of
from umscosod.evaluation.scores import Curves, Definition, Scores
from umscosod.evaluation.scoring import MEASURES, Measure
from umscosod.integrations.fiftyone.evaluation.dataset import stale_evaluations
from umscosod.integrations.fiftyone.evaluation.method import LOWER_IS_BETTER, METHOD, WORDS
from umscosod.integrations.fiftyone.runs.fields import every_sample

KEPT_RESULTS = 8
"""Number of evaluations kept in memory: two a panel, and some earlier ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """What one evaluation holds, apart from its columns."""

    key: str
    pred_field: str
    gt_field: str
    map_field: str | None
    definition: Definition
    dataset: Scores
    groups: Mapping[str, Scores]
    curves: Curves
    images: Mapping[str, list[Any]]
    """``sample_id`` and the measures of each image; empty if an earlier version made it: then fields hold them."""
    made: float
    """Time of the evaluation, in seconds since the epoch."""


def gain_of(measure: str, a: float, b: float) -> float:
    """Return how much better A is than B.

    Examples
    --------
    >>> gain_of("iou", 0.75, 0.5), gain_of("mae", 0.75, 0.5)
    (0.25, -0.25)
    """
    return b - a if measure in LOWER_IS_BETTER else a - b


def comparable_evaluations(dataset: Any) -> tuple[list[str], list[str]]:
    """Return the keys of the evaluations with our measures, the newest last, and of those without."""
    ours, others = [], []
    for key in dataset.list_evaluations():
        info = dataset.get_evaluation_info(key)
        has_results = bool(dataset._doc.evaluations[key].results)  # none: it is running, or was stopped
        if getattr(info.config, "method", None) == METHOD and has_results:
            ours.append((str(info.timestamp), key))
        elif getattr(info.config, "type", None) == "segmentation":
            others.append(key)
    return [key for _, key in sorted(ours)], others


def find_evaluation(dataset: Any, name: str) -> str:
    """Return the key of an evaluation, from the key itself or from a run or field: then its newest evaluation.

    Raises
    ------
    DataError
        There is no such evaluation.
    """
    keys, _ = comparable_evaluations(dataset)
    if name in dataset.list_evaluations():
        return name
    of_field = [key for key in keys if dataset.get_evaluation_info(key).config.pred_field == name]
    if not of_field:
        there = ", ".join(keys) or "none"
        raise DataError(f"there is no evaluation {name!r}, and none of a field of that name; evaluations here: {there}")
    return of_field[-1]


TOLERANCE = 1e-6
"""Scores that differ by less count as equal: the same masks with different rounding."""
BINS = 31
"""Bars of a histogram of gains."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureRow:
    """One measure of both evaluations, over all images of each.

    Attributes
    ----------
    measure, label : str
    a, b : float
    gain : float
        How much better A is: ``a - b``, or ``b - a`` for MAE.
    """

    measure: Measure
    label: str
    a: float
    b: float
    gain: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRow:
    """One group in one measure; a side that did not evaluate the group has 0 images and None.

    Attributes
    ----------
    group : str
    n_a, n_b : int
        Number of images.
    a, b, gain : float or None
    """

    group: str
    n_a: int
    n_b: int
    a: float | None
    b: float | None
    gain: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Evaluation A against evaluation B.

    Attributes
    ----------
    eval_a, eval_b : str
        Keys of the evaluations.
    measure : str
        The measure of the groups and the images.
    definition : {"cosod", "sod"}
        Definition of the scores; both evaluations have the same.
    rows : tuple of MeasureRow
        All nine measures over the data set.
    groups : tuple of GroupRow
        By gain, largest first; groups that only one side has come last.
    sample_ids : tuple of str
        The N images that both evaluations scored.
    values_a_N, values_b_N, gains_N : ndarray, float64, (N,)
    curves_a, curves_b : Curves
        Means over the data set.
    tolerance : float
    notes : tuple of str
        Reasons why the scores may not be comparable.
    """

    eval_a: str
    eval_b: str
    measure: Measure
    definition: Definition
    rows: tuple[MeasureRow, ...]
    groups: tuple[GroupRow, ...]
    sample_ids: tuple[str, ...]
    values_a_N: Float64Array
    values_b_N: Float64Array
    gains_N: Float64Array
    curves_a: Curves
    curves_b: Curves
    tolerance: float = TOLERANCE
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of images that both evaluations scored."""
        return len(self.sample_ids)

    @property
    def n_a_better(self) -> int:
        """Number of images where A is better."""
        return int((self.gains_N > self.tolerance).sum())

    @property
    def n_b_better(self) -> int:
        """Number of images where B is better."""
        return int((self.gains_N < -self.tolerance).sum())

    @property
    def n_equal(self) -> int:
        """Number of images where the gain is within the tolerance."""
        return self.n - self.n_a_better - self.n_b_better

    @property
    def summary(self) -> str:
        """One sentence for people."""
        row = next(row for row in self.rows if row.measure == self.measure)
        return "; ".join(
            [
                f"{row.label} ({self.definition}): A {self.eval_a} {row.a:.3f}, B {self.eval_b} {row.b:.3f}; of "
                f"{count_of(self.n, 'image')} A is better in {self.n_a_better}, "
                f"B in {self.n_b_better}, {self.n_equal} are equal",
                *self.notes,
            ]
        )

    @property
    def is_success(self) -> bool:
        """Whether there is no reason against the comparison."""
        return not self.notes

    def ids_where(self, better: Side) -> list[str]:
        """Return the images where one side is better, largest difference first (ties in the data set's order).

        Parameters
        ----------
        better : {"a", "b", "equal"}

        Raises
        ------
        ConfigError
            `better` is none of the three.
        """
        if better not in ("a", "b", "equal"):
            raise ConfigError(f"better={better!r} must be one of a, b, equal")
        if better == "equal":
            return [id_ for id_, gain in zip(self.sample_ids, self.gains_N, strict=True) if abs(gain) <= self.tolerance]
        lead_N = self.gains_N if better == "a" else -self.gains_N
        order = np.argsort(-lead_N, kind="stable")
        return [self.sample_ids[index] for index in order if lead_N[index] > self.tolerance]

    def ids_between(self, low: float, high: float) -> list[str]:
        """Return the images with ``low <= gain < high``, largest gain first."""
        inside_N = (self.gains_N >= low) & (self.gains_N < high)
        return [self.sample_ids[index] for index in np.argsort(-self.gains_N, kind="stable") if inside_N[index]]

    def histogram(self, bins: int = BINS) -> tuple[Float64Array, npt.NDArray[np.int64]]:
        """Count images by gain, in bins of one width around 0.

        Parameters
        ----------
        bins : int
            Odd, so that images without a difference have their own bin in the middle.

        Returns
        -------
        (ndarray, ndarray), float64 and int64, (bins + 1,) and (bins,)
            Edges and counts. Each bin holds ``ids_between(edges[i], edges[i + 1])``.
        """
        reach = float(np.abs(self.gains_N).max(initial=0.0)) or 1.0
        reach *= 1.0 + 1e-9  # the largest gain lies inside the last bin
        edges = np.linspace(-reach, reach, bins + 1)
        place_N = np.searchsorted(edges, self.gains_N, side="right") - 1
        return edges, np.bincount(place_N, minlength=bins).astype(np.int64)

    def table(self) -> list[dict[str, str]]:
        """Return all measures as rows of text: ``measure``, ``a``, ``b``, ``gain``."""
        return [
            {"measure": row.label, "a": f"{row.a:.4f}", "b": f"{row.b:.4f}", "gain": f"{row.gain:+.4f}"}
            for row in self.rows
        ]


def compare_dataset(
    dataset: Any, eval_a: str, eval_b: str, *, measure: Measure = "iou", view: Any = None, tolerance: float = TOLERANCE
) -> Comparison:
    """Compare two evaluations of a data set.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    eval_a, eval_b : str
        Keys of evaluations made by `evaluate_dataset`, of the same field or of two fields.
    measure : str
        One of the nine, for groups and images.
    view : fiftyone.core.collections.SampleCollection, optional
        Restrict the comparison to these images; scores of groups and data set stay those of the whole evaluations.
    tolerance : float
        Differences up to this count as equal.

    Returns
    -------
    Comparison
        It needs one query for a few numbers an image, for any size of the pictures.

    Raises
    ------
    DataError
        An evaluation is missing, lacks these measures, or the two were made under different definitions.
    ConfigError
        Unknown measure.
    """
    if measure not in MEASURES:
        raise ConfigError(f"unknown measure {measure!r}; choose one of {', '.join(MEASURES)}")
    if eval_a == eval_b:
        raise DataError(f"both evaluations are {eval_a!r}; choose two different ones")
    dataset = getattr(dataset, "_root_dataset", dataset)
    a, b = load_evaluated(dataset, eval_a), load_evaluated(dataset, eval_b)
    if a.definition != b.definition:
        raise DataError(
            f"{eval_a!r} was made under the definition {a.definition!r}, {eval_b!r} under {b.definition!r}; "
            "evaluate one of them again"
        )
    collection = every_sample(dataset) if view is None else view
    if getattr(collection, "_is_dynamic_groups", False):
        collection = collection.flatten()
    sample_ids = collection.values("id")
    columns = (_image_values(collection, sample_ids, one, measure) for one in (a, b))
    both = [row for row in zip(sample_ids, *columns, strict=True) if row[1] is not None and row[2] is not None]
    values_a_N, values_b_N = (np.array([row[side] for row in both], dtype=np.float64) for side in (1, 2))
    sign = -1.0 if measure in LOWER_IS_BETTER else 1.0
    return Comparison(
        eval_a=eval_a,
        eval_b=eval_b,
        measure=measure,
        definition=a.definition,
        rows=_measure_rows(a.dataset, b.dataset),
        groups=_group_rows(a.groups, b.groups, measure),
        sample_ids=tuple(row[0] for row in both),
        values_a_N=values_a_N,
        values_b_N=values_b_N,
        gains_N=sign * (values_a_N - values_b_N),
        curves_a=a.curves,
        curves_b=b.curves,
        tolerance=tolerance,
        notes=(*_notes_on_age(dataset, (a, b)), *_notes(a, b, len(both), whole=view is None)),
    )


_kept: dict[str, Evaluated] = {}


def load_evaluated(dataset: Any, key: str) -> Evaluated:
    """Load scores and curves of an evaluation of ours.

    FiftyOne reads results again for each click in the App. The last few are kept here, by the id of the evaluation.

    Raises
    ------
    DataError
        There is no evaluation with that key, it has no results, or another method made it.
    """
    if key not in dataset.list_evaluations():
        names = ", ".join(dataset.list_evaluations()) or "none"
        raise DataError(f"there is no evaluation {key!r}; evaluations of this data set: {names}")
    config = dataset.get_evaluation_info(key).config
    method = getattr(config, "method", None)
    if method != METHOD:
        raise DataError(
            f"the evaluation {key!r} was made by the method {method!r}, which has none of these measures; "
            "evaluate the field again with the operator 'evaluate' or with evaluate_dataset"
        )
    identity = str(dataset._doc.evaluations[key].id)
    if (kept := _kept.get(identity)) is not None:
        return dataclasses.replace(kept, key=key)  # the evaluation may have been renamed
    results = dataset.load_evaluation_results(key, cache=False)
    if results is None:
        raise DataError(f"the evaluation {key!r} has no results: it is running, or was stopped; evaluate again")
    evaluated = Evaluated(
        key=key,
        pred_field=config.pred_field,
        gt_field=config.gt_field,
        map_field=config.map_field,
        definition=results.definition,
        dataset=results.dataset_scores,
        groups=results.group_scores,
        curves=results.dataset_curves,
        images=results.images,
        made=dataset.get_evaluation_info(key).timestamp.replace(tzinfo=UTC).timestamp(),
    )
    _kept[identity] = evaluated
    while len(_kept) > KEPT_RESULTS:
        _kept.pop(next(iter(_kept)))  # the oldest
    return evaluated


def _image_values(collection: Any, sample_ids: list[str], evaluated: Evaluated, measure: str) -> list[float | None]:
    """Return the score of each image of a collection, None if it was not scored."""
    if not evaluated.images:
        return list(collection.values(f"{evaluated.key}_{measure}"))
    by_sample = dict(zip(evaluated.images["sample_id"], evaluated.images[measure], strict=True))
    return [by_sample.get(sample_id) for sample_id in sample_ids]


def _notes_on_age(dataset: Any, pair: tuple[Evaluated, ...]) -> tuple[str, ...]:
    """Name the evaluations that are older than their fields, as far as runs and mask files show it."""
    notes = []
    for one in pair:
        field = one.pred_field
        masks = every_sample(dataset).values(f"{field}.mask_path") if dataset.has_field(field) else []
        times = (Path(mask).stat().st_mtime for mask in masks if mask and Path(mask).is_file())
        if told := stale_evaluations(dataset, field).get(one.key):
            notes.append(told)
        elif max(times, default=0.0) > one.made:
            notes.append(f"{one.key} was made before masks of {field} were replaced; evaluate again")
    return tuple(notes)


def _measure_rows(a: Scores, b: Scores) -> tuple[MeasureRow, ...]:
    pairs = {measure: (getattr(a, measure), getattr(b, measure)) for measure in WORDS}
    return tuple(
        MeasureRow(measure=measure, label=WORDS[measure], a=score_a, b=score_b, gain=gain_of(measure, score_a, score_b))
        for measure, (score_a, score_b) in pairs.items()
    )


def _group_rows(a: Mapping[str, Scores], b: Mapping[str, Scores], measure: str) -> tuple[GroupRow, ...]:
    rows = []
    for group in sorted({*a, *b}):
        score_a, score_b = (getattr(side.get(group), measure, None) for side in (a, b))
        n_a, n_b = (side[group].n if group in side else 0 for side in (a, b))
        gain = None if score_a is None or score_b is None else gain_of(measure, score_a, score_b)
        rows.append(GroupRow(group=group, n_a=n_a, n_b=n_b, a=score_a, b=score_b, gain=gain))
    return tuple(sorted(rows, key=lambda row: (row.gain is None, -(row.gain or 0.0))))


def _notes(a: Evaluated, b: Evaluated, n_both: int, *, whole: bool) -> tuple[str, ...]:
    """Return the reasons why the scores of two evaluations are not comparable."""
    notes = []
    if not whole:
        notes.append(f"the figures of data set and groups are over all images evaluated, those of images over {n_both}")
    elif not (a.dataset.n == b.dataset.n == n_both):
        notes.append(
            f"A has {count_of(a.dataset.n, 'image')}, B {b.dataset.n}, both {n_both}: "
            "figures of data set and groups are over different images"
        )
    if a.gt_field != b.gt_field:
        notes.append(f"the ground truths differ: {a.gt_field!r} and {b.gt_field!r}")
    if bool(a.map_field) != bool(b.map_field):
        maps, masks = ("A", "B") if a.map_field else ("B", "A")
        notes.append(f"{maps} was scored on soft maps, {masks} on masks")
    return tuple(notes)


Float64Array = npt.NDArray[np.float64]
Side = Literal["a", "b", "equal"]
