"""Lists a run's masks for review, lowest confidence first, and counts the decisions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fiftyone import ViewField

from umscosod.integrations.fiftyone.runs.fields import (
    REVIEWED,
    ReviewState,
    check_mask_field,
    group_field_of,
    mask_fields,
)
from umscosod.integrations.fiftyone.runs.jobs import flat_images, read_column, value_path
from umscosod.types import Status


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewItem:
    """A mask in the list, as text.

    Attributes
    ----------
    sample_id, name : str
        `name` is the name of the image file.
    group : str
        The run's group, else the image's folder; ``""`` if that field is empty.
    confidence : float or None
    status, reason, state : str
        ``""`` if there is none.
    """

    sample_id: str
    name: str
    group: str
    confidence: float | None
    status: str
    reason: str
    state: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewGroup:
    """A group of a run's masks.

    Attributes
    ----------
    name : str
        The run's group, else the folder.
    n, n_open : int
        Number of masks, and of those without a decision.
    confidence : float or None
        Mean over the masks that have one.
    """

    name: str
    n: int
    n_open: int
    confidence: float | None


def list_for_review(
    sample_collection: Any, field: str, *, max_confidence: float | None = None, include_reviewed: bool = False
) -> Any:
    """List a run's masks for review, lowest confidence first.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
        A ``group_by()`` view is flattened. Samples outside the run are omitted. Empty and failed samples are listed,
        since they need a person too (their confidence is 0, so they come first).
    field : str
        Mask field of the run.
    max_confidence : float, optional
        Omit masks of a higher confidence.
    include_reviewed : bool
        Also list masks that were accepted, rejected or sent back.

    Returns
    -------
    fiftyone.core.view.DatasetView
        Sorted by confidence, then by id. The view is evaluated at each use: it omits a mask after a decision on it.

    Raises
    ------
    DataError
        There is no such mask field.
    """
    view = _masks_of_run(sample_collection, field)
    confidence, state = f"{field}_confidence", f"{field}_review"
    if not include_reviewed:
        view = view.match(~ViewField(state).is_in([str(each) for each in ReviewState]))
    if not view.has_sample_field(confidence):  # imported masks: all are equally uncertain
        return view.sort_by("id")
    if max_confidence is not None:
        view = view.match((ViewField(confidence) == None) | (ViewField(confidence) <= max_confidence))  # noqa: E711
    return view.sort_by([(confidence, 1), ("id", 1)])


def next_for_review(sample_collection: Any, field: str, sample_id: str) -> str | None:
    """Return the id of the next undecided mask in the order of `list_for_review`; the first follows the last.

    Returns
    -------
    str or None
        The first one if `sample_id` is not in the list; None if no other is left.

    Raises
    ------
    DataError
        There is no such mask field.
    """
    ids = list_for_review(sample_collection, field).values("id")
    place = ids.index(sample_id) if sample_id in ids else -1
    others = [*ids[place + 1 :], *ids[: max(place, 0)]]
    return others[0] if others else None


def list_certain(view: Any, field: str, least: float) -> Any:
    """Keep the masks of a list with a confidence of at least `least`; masks without a confidence are dropped."""
    return view.match(ViewField(f"{field}_confidence") >= least)


def undecided_quantile(sample_collection: Any, field: str, share: float) -> float:
    """Return the quantile `share` of the confidences of the undecided masks; 1 if no mask has one.

    Raises
    ------
    DataError
        There is no such mask field.
    """
    view = list_for_review(sample_collection, field)
    found = [value for value in read_column(view, f"{field}_confidence", 0) if value is not None]
    return float(np.quantile(found, share)) if found else 1.0


def review_groups(sample_collection: Any, field: str) -> list[ReviewGroup]:
    """Summarise a run's masks by group, lowest confidence first; groups without undecided masks come last.

    Raises
    ------
    DataError
        There is no such mask field.
    """
    view = list_for_review(sample_collection, field, include_reviewed=True)
    groups: dict[str, list[tuple[float | None, str]]] = {}
    for item in read_review_items(view, field):
        groups.setdefault(item.group, []).append((item.confidence, item.state))
    rows = []
    for name, members in groups.items():
        known = [confidence for confidence, _ in members if confidence is not None]
        n_open = sum(not state for _, state in members)
        mean = float(np.mean(known)) if known else None
        rows.append(ReviewGroup(name=name, n=len(members), n_open=n_open, confidence=mean))
    return sorted(rows, key=lambda row: (not row.n_open, row.confidence is None, row.confidence or 0.0, row.name))


def list_group(sample_collection: Any, field: str, name: str) -> Any:
    """List all masks of one group of a run, decided or not, lowest confidence first.

    Raises
    ------
    DataError
        There is no such mask field.
    """
    view = list_for_review(sample_collection, field, include_reviewed=True)
    return view.select([item.sample_id for item in read_review_items(view, field) if item.group == name], ordered=True)


def review_counts(sample_collection: Any, field: str) -> dict[str, int]:
    """Count a run's masks by decision.

    Returns
    -------
    dict
        Keys ``open``, ``accepted``, ``rejected``, ``sent back``, in this order, each with its number of samples.

    Raises
    ------
    DataError
        There is no such mask field.
    """
    view = _masks_of_run(sample_collection, field)
    state = f"{field}_review"
    found = view.count_values(state) if view.has_sample_field(state) else {}
    decided = {str(each): int(found.get(str(each), 0)) for each in ReviewState}
    return {"open": len(view) - sum(decided.values()), **decided}


def list_review_fields(dataset: Any) -> list[str]:
    """Name the mask fields that runs wrote; if there are none, all mask fields except `REVIEWED` (schema only)."""
    masks = [field for field in mask_fields(dataset) if field != REVIEWED]
    of_runs = [field for field in masks if dataset.get_field(f"{field}_status") is not None]
    return of_runs or masks


def read_review_items(view: Any, field: str, *, limit: int | None = None) -> list[ReviewItem]:
    """Read the first masks of a list, or all, as text, in the order of the list.

    Parameters
    ----------
    view : fiftyone.core.view.DatasetView
        From `list_for_review`.
    field : str
    limit : int, optional
    """
    dataset = view._dataset  # a view has no public access to its data set
    group_field = group_field_of(dataset, field)
    optional = {
        "group": value_path(dataset, group_field) if group_field else "",
        "confidence": f"{field}_confidence",
        "status": f"{field}_status",
        "reason": f"{field}_reason",
        "state": f"{field}_review",
    }
    optional = {name: path for name, path in optional.items() if path and view.has_field(path)}
    columns = (view if limit is None else view.limit(limit)).values(["id", "filepath", *optional.values()])
    items = []
    for sample_id, filepath, *values in zip(*columns, strict=True):
        found = dict(zip(optional, values, strict=True))
        group = found.get("group", Path(filepath).parent.name)
        items.append(
            ReviewItem(
                sample_id=sample_id,
                name=Path(filepath).name,
                group="" if group is None else str(group),
                confidence=found.get("confidence"),
                status=found.get("status") or "",
                reason=found.get("reason") or "",
                state=found.get("state") or "",
            )
        )
    return items


def _masks_of_run(sample_collection: Any, field: str) -> Any:
    """Return the samples of the run: they have a mask, or a status that says why not."""
    view = flat_images(sample_collection)
    check_mask_field(view, field, "review")
    wanted = [str(Status.LABELLED), str(Status.EMPTY), str(Status.FAILED)]
    return view.match(ViewField(field).exists() | ViewField(f"{field}_status").is_in(wanted))
