"""Reads what a person shows of the samples of a run: marks, masks, points and boxes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

from umscosod.data.images import read_upright_size
from umscosod.data.masks import read_mask
from umscosod.errors import DataError, count_of
from umscosod.integrations.fiftyone.review.steering import (
    EXAMPLE,
    NOT,
    example_field,
    find_not,
    ids_of_group,
    mask_of_person,
)
from umscosod.integrations.fiftyone.runs.fields import ReviewState, every_sample
from umscosod.integrations.fiftyone.runs.parts import Part
from umscosod.steering.examples import Box, Example, Point
from umscosod.types import BoolArray

NOT_WORDS = frozenset({"not", "no", "negative", "background"})
"""Labels by which a point or a box says that its place is not the object; any other label, or none, says that it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompts:
    """Where a person's points and boxes lie.

    Attributes
    ----------
    points_field, boxes_field : str or None
        A field of Keypoints, and one of Detections.
    """

    points_field: str | None = None
    boxes_field: str | None = None

    def check(self, dataset: Any) -> None:
        """Refuse fields that hold something else.

        Raises
        ------
        DataError
        """
        for name, kind in ((self.points_field, fo.Keypoints), (self.boxes_field, fo.Detections)):
            if name is None:
                continue
            there = sorted(dataset.get_field_schema(embedded_doc_type=kind))
            if name not in there:
                raise DataError(f"{name!r} holds no {kind.__name__}; fields that do: {', '.join(there) or 'none'}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """What is shown of which samples, before any mask is read.

    Attributes
    ----------
    by_sample : dict of str to str
        Values of the field of examples.
    points, boxes : dict of str to list
        Keypoints and detections of the samples that have any.
    """

    by_sample: Mapping[str, str] = dataclass_field(default_factory=dict)
    points: Mapping[str, list[Any]] = dataclass_field(default_factory=dict)
    boxes: Mapping[str, list[Any]] = dataclass_field(default_factory=dict)

    @property
    def ids(self) -> set[str]:
        """Samples of which anything is shown."""
        return {*self.by_sample, *self.points, *self.boxes}


def read_marks(dataset: Any, field: str, prompts: Prompts) -> Marks:
    """Read marks, points and boxes of all samples, in one query."""
    prompts.check(dataset)
    name = example_field(field)
    paths = {"marks": name if dataset.has_sample_field(name) else "", "points": "", "boxes": ""}
    if prompts.points_field:
        paths["points"] = f"{prompts.points_field}.keypoints"
    if prompts.boxes_field:
        paths["boxes"] = f"{prompts.boxes_field}.detections"
    paths = {what: path for what, path in paths.items() if path}
    ids, *columns = every_sample(dataset).values(["id", *paths.values()])
    found = {
        what: {id_: value for id_, value in zip(ids, column, strict=True) if value}
        for what, column in zip(paths, columns, strict=True)
    }
    return Marks(by_sample=found.get("marks", {}), points=found.get("points", {}), boxes=found.get("boxes", {}))


def read_dataset_examples(
    dataset: Any, field: str, parts: Sequence[Part], marks: Marks, ids: Collection[str]
) -> tuple[dict[str, Example], list[str]]:
    """Read the examples of some samples.

    Returns
    -------
    examples : dict of str to Example
        By sample id.
    lost : list of str
        Samples with a mark whose mask is there no more.
    """
    examples: dict[str, Example] = {}
    lost: list[str] = []
    wanted = [id_ for id_ in ids if id_ in marks.ids]
    for sample in every_sample(dataset).select(wanted) if wanted else ():
        mark, mask_HW, not_HW = marks.by_sample.get(sample.id), None, None
        if mark == EXAMPLE:
            mask_HW = mask_of_person(sample, field)
        elif mark == NOT:
            file = find_not(parts, sample.id)
            not_HW = None if file is None else read_mask(file)
        if mark and mask_HW is None and not_HW is None:
            lost.append(sample.id)
        points = _points(marks.points.get(sample.id, []))
        boxes, not_boxes = _boxes(marks.boxes.get(sample.id, []))
        if not_boxes:
            not_HW = _draw(not_boxes, not_HW, Path(sample.filepath))
        example = Example(mask_HW=mask_HW, not_HW=not_HW, points=points, boxes=boxes)
        if example.says_anything:
            examples[sample.id] = example
    return examples, lost


def _points(keypoints: Iterable[Any]) -> tuple[Point, ...]:
    return tuple(
        Point(x=_share(x), y=_share(y), is_object=not _says_not(keypoint))
        for keypoint in keypoints
        for x, y in keypoint.points or []
        if not (math.isnan(x) or math.isnan(y))  # FiftyOne's sign of a point that is not there
    )


def _boxes(detections: Iterable[Any]) -> tuple[tuple[Box, ...], list[Box]]:
    """Return the boxes that hold the object, and those that are not it; a box without area says nothing."""
    boxes: list[Box] = []
    not_boxes: list[Box] = []
    for detection in detections:
        x, y, width, height = detection.bounding_box
        left, top, right, bottom = _share(x), _share(y), _share(x + width), _share(y + height)
        if left < right and top < bottom:
            box = Box(x=left, y=top, width=right - left, height=bottom - top)
            (not_boxes if _says_not(detection) else boxes).append(box)
    return tuple(boxes), not_boxes


def _share(value: float) -> float:
    return min(max(float(value), 0.0), 1.0)


def _says_not(label: Any) -> bool:
    return str(label.label or "").strip().lower() in NOT_WORDS


def _draw(boxes: Iterable[Box], not_HW: BoolArray | None, image: Path) -> BoolArray:
    (height, width), _ = read_upright_size(image)
    drawn_HW = np.zeros((height, width), bool) if not_HW is None else not_HW.copy()
    for box in boxes:
        rows = slice(round(box.y * height), round((box.y + box.height) * height))
        drawn_HW[rows, round(box.x * width) : round((box.x + box.width) * width)] = True
    return drawn_HW


def persons_samples(dataset: Any, field: str, ids: Sequence[str], marks: Marks) -> set[str]:
    """Return the samples among `ids` whose labels no relabelling writes: a person decided, made a mask or shows one."""
    kept = {id_ for id_ in ids if marks.by_sample.get(id_) == EXAMPLE}
    for sample in every_sample(dataset).select(list(ids)):
        decided = sample[f"{field}_review"] in (ReviewState.ACCEPTED, ReviewState.REJECTED)
        if decided or _has_mask_of_person(sample, field):
            kept.add(sample.id)
    return kept


def _has_mask_of_person(sample: Any, field: str) -> bool:
    try:
        return mask_of_person(sample, field) is not None
    except DataError:  # a damaged file is still a person's
        return True


def describe_marks(marks: Mapping[str, str], n_prompts: int = 0) -> str:
    """Say how many examples there are.

    Examples
    --------
    >>> describe_marks({"a": "example", "b": "not"})
    '1 example, 1 not the object'
    """
    n_examples, n_not = (sum(value == kind for value in marks.values()) for kind in (EXAMPLE, NOT))
    words = [count_of(n_examples, "example")] if n_examples else []
    words += [f"{n_not} not the object"] if n_not else []
    words += [f"{n_prompts} with points or boxes"] if n_prompts else []
    return ", ".join(words) or "no example"


def marks_of_group(dataset: Any, field: str, name: str) -> dict[str, str]:
    """Return the marks in a group by sample."""
    ids = ids_of_group(dataset, field, name)
    marks = read_marks(dataset, field, Prompts()).by_sample
    return {id_: mark for id_, mark in marks.items() if id_ in ids}
