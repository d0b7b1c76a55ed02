"""Predictions and ground truths of samples, measured one pair at a time with the command line's own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from umscosod.errors import DataError
from umscosod.evaluation.accumulate import MeanOfGroups
from umscosod.evaluation.measures import compute_measures
from umscosod.evaluation.pictures import fit_to_truth, open_grey, read_pair
from umscosod.evaluation.scores import Definition, ImageScores
from umscosod.evaluation.suspicious import Suspicious
from umscosod.integrations.fiftyone.runs.rows import read_rows
from umscosod.types import ByteArray

NO_GROUP = "(no group)"
"""Group of the samples whose group field is empty: they are scored too."""
OBJECT_LEVEL = 128
"""From this grey level on a pixel counts as object in the pixel confusion matrix (0/255 masks: no choice to make)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRow:
    """Where prediction and ground truth of one sample are.

    Attributes
    ----------
    sample_id, image, group : str
        `image` is the sample's file.
    pred_id, gt_id : str or None
        Of the labels; None: the sample has none.
    pred_path, gt_path : str or None
        Files of the labels; None where the picture is in the database.
    """

    sample_id: str
    image: str
    group: str
    pred_id: str | None
    pred_path: str | None
    gt_id: str | None
    gt_path: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A sample that was not scored, and why."""

    sample_id: str
    image: str
    reason: str


@dataclass(kw_only=True, slots=True)
class Measured:
    """Everything measured in one pass over the pairs.

    Attributes
    ----------
    definition : {"cosod", "sod"}
    images : list of ImageScores
        One a pair; `ImageScores.name` is the sample's id.
    labels : list of (str, str)
        Ids of ground truth and prediction of each pair.
    counts : list of (int, int, int, int)
        Pixels of each pair: background right, false object, missed object, object right.
    means : MeanOfGroups
    left_out : list of LeftOut
    suspicious : Suspicious
        Ground truths that are probably not what the user meant.
    """

    definition: Definition
    images: list[ImageScores] = field(default_factory=list)
    labels: list[tuple[str, str]] = field(default_factory=list)
    counts: list[tuple[int, int, int, int]] = field(default_factory=list)
    means: MeanOfGroups = field(default_factory=MeanOfGroups)
    left_out: list[LeftOut] = field(default_factory=list)
    suspicious: Suspicious = field(default_factory=Suspicious)


def read_pair_rows(view: Any, pred_field: str, gt_field: str, group_field: str | None) -> list[PairRow]:
    """Read where the pictures of each sample of a flat view are, in a few queries.

    Parameters
    ----------
    view : fiftyone.core.view.DatasetView
    pred_field : str
        A Segmentation field, or a Heatmap field to score soft maps.
    gt_field : str
        A Segmentation field.
    group_field : str, optional
        None: the image's folder.
    """
    path = f"{pred_field}.{path_attribute(view, pred_field)}"
    names = [f"{pred_field}.id", path, f"{gt_field}.id", f"{gt_field}.mask_path"]
    groups = [row.group or NO_GROUP for row in read_rows(view, group_field, gt_field)]
    columns = view.values(["id", "filepath", *names])
    return [
        PairRow(
            sample_id=sample,
            image=image,
            group=group,
            pred_id=pred_id,
            pred_path=pred_path,
            gt_id=gt_id,
            gt_path=gt_path,
        )
        for group, sample, image, pred_id, pred_path, gt_id, gt_path in zip(groups, *columns, strict=True)
    ]


def path_attribute(view: Any, name: str) -> str:
    """Name of the attribute that holds the file of a dense label: ``mask_path`` or ``map_path``."""
    import fiftyone as fo

    return "map_path" if issubclass(view.get_field(name).document_type, fo.Heatmap) else "mask_path"


def measure_pairs(
    view: Any,
    pred_field: str,
    gt_field: str,
    *,
    definition: Definition,
    group_field: str | None,
    report: Callable[[int, int], None],
) -> Measured:
    """Measure each pair of a flat view; one pair is in memory at a time.

    Parameters
    ----------
    view : fiftyone.core.view.DatasetView
    pred_field, gt_field, group_field
        See `read_pair_rows`.
    definition : {"cosod", "sod"}
    report : callable
        Called as ``(done, total)`` after each pair.

    Returns
    -------
    Measured
        Samples without a prediction or a ground truth, or with one that cannot be read, are left out of the figures
        and named.
    """
    measured = Measured(definition=definition)
    rows = read_pair_rows(view, pred_field, gt_field, group_field)
    for done, row in enumerate(rows, start=1):
        try:
            pred_HW, gt_HW = _load(view, row, pred_field, gt_field, measured.suspicious)
        except DataError as error:
            measured.left_out.append(LeftOut(sample_id=row.sample_id, image=row.image, reason=str(error)))
        else:
            _add(measured, row, pred_HW, gt_HW)
        report(done, len(rows))
    measured.suspicious.warn()
    return measured


def _add(measured: Measured, row: PairRow, pred_HW: ByteArray, gt_HW: ByteArray) -> None:
    measures = compute_measures(pred_HW, gt_HW, measured.definition)
    measured.suspicious.look_at(gt_HW, Path(row.gt_path or row.image))
    measured.suspicious.look_at_prediction(pred_HW, Path(row.pred_path or row.image))
    measured.means.add(row.group, measures)
    measured.images.append(ImageScores.from_measures(row.sample_id, row.group, measures))
    measured.labels.append((str(row.gt_id), str(row.pred_id)))
    measured.counts.append(count_pixels(pred_HW, gt_HW))


def count_pixels(pred_HW: ByteArray, gt_HW: ByteArray) -> tuple[int, int, int, int]:
    """Pixels that are background right, false object, missed object, object right.

    Examples
    --------
    >>> count_pixels(np.array([[255, 255, 0, 0]], np.uint8), np.array([[255, 0, 0, 0]], np.uint8))
    (2, 1, 0, 1)
    """
    code_HW = 2 * (gt_HW >= OBJECT_LEVEL).astype(np.uint8) + (pred_HW >= OBJECT_LEVEL)
    background, false_object, missed, right = np.bincount(code_HW.ravel(), minlength=4).tolist()
    return background, false_object, missed, right


def _load(
    view: Any, row: PairRow, pred_field: str, gt_field: str, suspicious: Suspicious
) -> tuple[ByteArray, ByteArray]:
    """Read both pictures of a sample, at the size of the ground truth.

    Raises
    ------
    DataError
        One is missing or cannot be read.
    """
    for what, name, label in (("prediction", pred_field, row.pred_id), ("ground truth", gt_field, row.gt_id)):
        if label is None:
            raise DataError(f"no {what}: the field {name!r} is empty")
    if row.pred_path and row.gt_path:
        return read_pair(Path(row.pred_path), Path(row.gt_path), suspicious)
    prediction = open_grey(Path(row.pred_path), suspicious) if row.pred_path else _from_database(view, row, pred_field)
    truth = open_grey(Path(row.gt_path), suspicious) if row.gt_path else _from_database(view, row, gt_field)
    return fit_to_truth(prediction, truth)


def _from_database(view: Any, row: PairRow, name: str) -> Image.Image:
    """Picture stored in the sample itself, as grey of 8 bits."""
    label = view.select(row.sample_id).first()[name]
    values = label.get_map() if hasattr(label, "get_map") else label.get_mask()
    if values is None:
        raise DataError(f"the label in {name!r} has neither a file nor a picture of its own; make it again")
    return Image.fromarray(to_bytes(np.asarray(values), name)).convert("L")


def to_bytes(values: np.ndarray[Any, Any], name: str) -> ByteArray:
    """Values of a mask or map kept in the database as 8 bits, 0 to 255.

    Masks of two values 0 and 1 (or False and True), and maps of floating point in [0, 1], are stretched to 0..255;
    all else must be whole numbers in 0..255.

    Raises
    ------
    DataError
        Neither; or an array that is not a picture.

    Examples
    --------
    >>> to_bytes(np.array([[0, 1]]), "truth").tolist()
    [[0, 255]]
    >>> to_bytes(np.array([[0.0, 0.5, 1.0]]), "map").tolist()
    [[0, 128, 255]]
    """
    if values.ndim not in (2, 3) or values.size == 0:
        raise DataError(f"the picture in {name!r} has shape {values.shape}; (H, W) is needed")
    low, high = float(values.min()), float(values.max())
    if high <= 1.0 and low >= 0.0:
        return np.asarray(np.floor(values.astype(np.float64) * 255.0 + 0.5), dtype=np.uint8)
    if values.dtype.kind not in "ui" or low < 0 or high > 255:
        raise DataError(f"the picture in {name!r} holds {values.dtype} from {low:g} to {high:g}; 0 to 255 is needed")
    return values.astype(np.uint8)
