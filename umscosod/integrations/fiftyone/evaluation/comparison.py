"""Two evaluations side by side: figures, groups, images and curves."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np

from umscosod.errors import ConfigError, DataError
from umscosod.evaluation.report import MEASURES, Measure
from umscosod.evaluation.scores import Curves, Definition, Scores
from umscosod.integrations.fiftyone.evaluation.comparison_report import TOLERANCE, Comparison, GroupRow, MeasureRow
from umscosod.integrations.fiftyone.evaluation.method import METHOD
from umscosod.integrations.fiftyone.evaluation.report import LOWER_IS_BETTER, WORDS
from umscosod.integrations.fiftyone.evaluation.stale import stale_evaluations
from umscosod.integrations.fiftyone.runs.store import every_sample
from umscosod.words import count_of

KEPT_RESULTS = 8
"""So many evaluations are kept in memory: two a panel, and some to go back to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """What one evaluation holds besides its columns."""

    key: str
    pred_field: str
    gt_field: str
    map_field: str | None
    definition: Definition
    dataset: Scores
    groups: Mapping[str, Scores]
    curves: Curves
    images: Mapping[str, list[Any]]
    """``sample_id`` and the measures, image by image; empty if an earlier version made it: then fields have them."""
    made: float
    """When it was made, in seconds since the epoch."""


def gain_of(measure: str, a: float, b: float) -> float:
    """How much better A is than B.

    Examples
    --------
    >>> gain_of("iou", 0.75, 0.5), gain_of("mae", 0.75, 0.5)
    (0.25, -0.25)
    """
    return b - a if measure in LOWER_IS_BETTER else a - b


def comparable_evaluations(dataset: Any) -> tuple[list[str], list[str]]:
    """Keys of the evaluations of a data set that have our measures, the newest last, and of those that have not."""
    ours, others = [], []
    for key in dataset.list_evaluations():
        info = dataset.get_evaluation_info(key)
        has_results = bool(dataset._doc.evaluations[key].results)  # without: it is running, or was stopped
        if getattr(info.config, "method", None) == METHOD and has_results:
            ours.append((str(info.timestamp), key))
        elif getattr(info.config, "type", None) == "segmentation":
            others.append(key)
    return [key for _, key in sorted(ours)], others


def find_evaluation(dataset: Any, name: str) -> str:
    """Key of an evaluation, given that key or the name of a run or field: then its newest evaluation.

    Raises
    ------
    DataError
        There is none.
    """
    keys, _ = comparable_evaluations(dataset)
    if name in dataset.list_evaluations():
        return name
    of_field = [key for key in keys if dataset.get_evaluation_info(key).config.pred_field == name]
    if not of_field:
        there = ", ".join(keys) or "none"
        raise DataError(f"there is no evaluation {name!r}, and none of a field of that name; evaluations here: {there}")
    return of_field[-1]


def compare_dataset(
    dataset: Any, eval_a: str, eval_b: str, *, measure: Measure = "iou", view: Any = None, tolerance: float = TOLERANCE
) -> Comparison:
    """Compare two evaluations of a data set.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    eval_a, eval_b : str
        Keys of evaluations made by `evaluate_dataset`; of one field or of two.
    measure : str
        One of the nine, for groups and images.
    view : fiftyone.core.collections.SampleCollection, optional
        Look at these images only; figures of groups and data set stay those of the whole evaluations.
    tolerance : float
        Differences up to this count as none.

    Returns
    -------
    Comparison
        Costs one query over a few numbers an image, however large the pictures are.

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
    values_a_N = np.array([row[1] for row in both], dtype=np.float64)
    values_b_N = np.array([row[2] for row in both], dtype=np.float64)
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


_kept: OrderedDict[str, Evaluated] = OrderedDict()


def load_evaluated(dataset: Any, key: str) -> Evaluated:
    """Figures and curves of an evaluation of ours.

    FiftyOne reads results anew for each click in the App; the last few are kept here, by the id that an evaluation
    gets when it is made.

    Raises
    ------
    DataError
        There is none of that key, it has no results, or was made by another method.
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
        return dataclasses.replace(kept, key=key)  # it may have been renamed
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
        _kept.popitem(last=False)
    return evaluated


def _image_values(collection: Any, sample_ids: list[str], evaluated: Evaluated, measure: str) -> list[float | None]:
    """Figure of each image of a collection, None where it was not scored."""
    if not evaluated.images:
        return list(collection.values(f"{evaluated.key}_{measure}"))
    by_sample = dict(zip(evaluated.images["sample_id"], evaluated.images[measure], strict=True))
    return [by_sample.get(sample_id) for sample_id in sample_ids]


def _notes_on_age(dataset: Any, pair: tuple[Evaluated, ...]) -> tuple[str, ...]:
    """Say which of two evaluations are not of what is in their fields now, as far as runs and files tell."""
    notes = []
    for one in pair:
        told = stale_evaluations(dataset, one.pred_field).get(one.key, "")
        if not told and dataset.has_field(one.pred_field) and _newest_mask(dataset, one.pred_field) > one.made:
            told = f"{one.key} was made before masks of {one.pred_field} were replaced; evaluate again"
        notes += [told] if told else []
    return tuple(notes)


def _newest_mask(dataset: Any, field: str) -> float:
    """When a mask file of a field was written last, in seconds since the epoch."""
    paths = every_sample(dataset).exists(field).values(f"{field}.mask_path")
    times = [Path(path).stat().st_mtime for path in paths if path and Path(path).is_file()]
    return max(times, default=0.0)


def _measure_rows(a: Scores, b: Scores) -> tuple[MeasureRow, ...]:
    rows = []
    for measure, label in WORDS.items():
        value_a, value_b = getattr(a, measure), getattr(b, measure)
        gain = gain_of(measure, value_a, value_b)
        rows.append(MeasureRow(measure=measure, label=label, a=value_a, b=value_b, gain=gain))
    return tuple(rows)


def _group_rows(a: Mapping[str, Scores], b: Mapping[str, Scores], measure: str) -> tuple[GroupRow, ...]:
    rows = []
    for group in sorted({*a, *b}):
        value_a = getattr(a[group], measure) if group in a else None
        value_b = getattr(b[group], measure) if group in b else None
        rows.append(
            GroupRow(
                group=group,
                n_a=a[group].n if group in a else 0,
                n_b=b[group].n if group in b else 0,
                a=value_a,
                b=value_b,
                gain=None if value_a is None or value_b is None else gain_of(measure, value_a, value_b),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.gain is None, -(row.gain or 0.0))))


def _notes(a: Evaluated, b: Evaluated, n_both: int, *, whole: bool) -> tuple[str, ...]:
    """What keeps the figures of two evaluations from being comparable."""
    notes = []
    if not whole:
        notes.append(f"the figures of data set and groups are over all images evaluated, those of images over {n_both}")
    elif not (a.dataset.n == b.dataset.n == n_both):
        notes.append(
            f"A has {count_of(a.dataset.n, 'image')}, B {b.dataset.n}, both {n_both}: "
            f"figures of data set and groups are over "
            "different images"
        )
    if a.gt_field != b.gt_field:
        notes.append(f"the ground truths differ: {a.gt_field!r} and {b.gt_field!r}")
    if bool(a.map_field) != bool(b.map_field):
        maps, masks = ("A", "B") if a.map_field else ("B", "A")
        notes.append(f"{maps} was scored on soft maps, {masks} on masks")
    return tuple(notes)
