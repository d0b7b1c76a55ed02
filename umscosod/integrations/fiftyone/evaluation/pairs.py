"""Measures predictions against ground truth, one sample at a time, with the code of the command line."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from umscosod.data.files import open_atomic
from umscosod.data.images import read_upright_size
from umscosod.data.mask_rules import MaskValue
from umscosod.data.mask_values import RawMask, open_mask, read_array
from umscosod.errors import DataError, count_of
from umscosod.evaluation.reading import Readers, decide_truth_rule, open_readers
from umscosod.evaluation.scores import Definition
from umscosod.evaluation.scoring import Pictures, Tally, fit_to_truth, open_prediction
from umscosod.integrations.fiftyone.runs.fields import FOREGROUND, TARGETS, WRITE_BATCH, dataset_folder, store_values
from umscosod.integrations.fiftyone.runs.jobs import read_rows
from umscosod.progress import ProgressFn
from umscosod.types import BoolArray, ByteArray

logger = logging.getLogger(__name__)

ORIGIN = "made_from"
"""Attribute of a mask made here: a hash of the instances whose union it is."""
"""EXIF orientations from this value on swap width and height."""


def mask_field_of(gt_field: str) -> str:
    """Return the name of the mask field for a field of instances.

    >>> mask_field_of("truth")
    'truth_mask'
    """
    return f"{gt_field}_mask"


def make_mask_field(view: Any, gt_field: str, progress: ProgressFn) -> tuple[str, dict[str, str]]:
    """Make a Segmentation field from a Detections field whose instances have masks.

    The files are below the data set's folder. A mask is made again only if its instances have changed. An image with an
    empty list of instances gets an empty mask.

    Parameters
    ----------
    view : fiftyone.core.view.DatasetView
        Flat view of images.
    gt_field : str
        A Detections field.
    progress : callable
        Called as ``(done, total, "ground truth")``.

    Returns
    -------
    (str, dict of str to str)
        Name of the mask field, and by sample id the reason why an image got no mask.

    Raises
    ------
    DataError
        No instance has a mask, or something else uses the mask field.
    """
    dataset = view._dataset
    field = mask_field_of(gt_field)
    folder = dataset_folder(dataset) / "ground_truth" / gt_field
    present = _present_masks(view, field)
    made: dict[str, Any] = {}
    problems: dict[str, str] = {}
    has_masks, written, total = False, 0, len(view)
    for done, sample in enumerate(view.select_fields(gt_field).iter_samples(), start=1):
        instances = sample[gt_field]
        if instances is not None:
            has_masks |= not instances.detections or any(one.has_mask for one in instances.detections)
            try:
                label = _mask_label(sample, instances, folder / f"{sample.id}.png", present.get(sample.id))
            except DataError as error:
                problems[sample.id] = str(error)
            else:
                if label is not None:
                    made[sample.id] = label
        if len(made) >= WRITE_BATCH:
            written += _write(dataset, field, made)
        progress(done, total, "ground truth")
    if not has_masks:
        raise DataError(
            f"no instance in {gt_field!r} has a mask, only boxes; give a field with masks, or add instance masks first"
        )
    written += _write(dataset, field, made)
    if written:
        logger.info("%s: %s made of the instances in %s, in %s", field, count_of(written, "mask"), gt_field, folder)
    return field, problems


def _present_masks(view: Any, field: str) -> dict[str, tuple[str, str]]:
    """Return hash and file of the masks made earlier, by sample id."""
    import fiftyone as fo

    if view.get_field(field) is None:
        return {}
    if getattr(view.get_field(field), "document_type", None) is not fo.Segmentation:
        raise DataError(f"field {field!r}, where the masks of the instances would go, holds something else; rename it")
    ids, labels, origins, paths = view.values(["id", f"{field}.id", f"{field}.{ORIGIN}", f"{field}.mask_path"])
    if any(label is not None and not origin for label, origin in zip(labels, origins, strict=True)):
        raise DataError(
            f"field {field!r}, where the masks of the instances would go, holds masks that were not made of them; "
            f"evaluate against {field!r} itself, or rename it"
        )
    rows = zip(ids, origins, paths, strict=True)
    return {sample: (origin, path) for sample, origin, path in rows if origin and path}


def _mask_label(sample: Any, instances: Any, path: Path, present: tuple[str, str] | None) -> Any | None:
    """Write the mask of one image; return None if the present mask is up to date.

    Raises
    ------
    DataError
        An instance has no mask, or image or mask cannot be read.
    """
    import fiftyone as fo

    without = sum(not one.has_mask for one in instances.detections)
    if without:
        raise DataError(f"{without} of {len(instances.detections)} instances have no mask, only a box")
    try:
        origin = _fingerprint(instances)
        if present == (origin, str(path)) and path.is_file():
            return None
        mask_HW = _union(instances, read_upright_size(Path(sample.filepath))[0])
    except Exception as error:  # boxes and masks come from any source; a bad image is omitted and does not end the job
        raise DataError(f"cannot draw the instances of {sample.filepath}: {error}") from error
    with open_atomic(path) as stream:
        Image.fromarray(mask_HW).save(stream, "PNG")
    return fo.Segmentation(mask_path=str(path), **{ORIGIN: origin})


def _union(instances: Any, size_hw: tuple[int, int]) -> ByteArray:
    """Draw all instances into one 0/255 mask."""
    mask_HW = np.zeros(size_hw, np.uint8)
    for one in instances.detections:
        one.to_segmentation(mask=mask_HW, target=FOREGROUND)  # draws into the given mask
    return mask_HW


def _fingerprint(instances: Any) -> str:
    """Return a hash of boxes and masks."""
    digest = hashlib.sha256()
    for one in instances.detections:
        mask = np.ascontiguousarray(one.get_mask())
        digest.update(np.asarray(one.bounding_box, dtype=np.float64).tobytes())
        digest.update(f"{mask.shape}{mask.dtype}".encode())
        digest.update(mask.tobytes())
    return digest.hexdigest()[:16]


def _write(dataset: Any, field: str, made: dict[str, Any]) -> int:
    """Store the masks made so far and clear the batch; declare the field if there is something to store."""
    import fiftyone as fo

    if not made:
        return 0
    if not dataset.has_sample_field(field):
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
        dataset.add_sample_field(f"{field}.{ORIGIN}", fo.StringField)
        dataset.mask_targets[field] = dict(TARGETS)
        dataset.save()
    store_values(dataset, field, made)
    count = len(made)
    made.clear()
    return count


NO_GROUP = "(no group)"
"""Group of the samples with an empty group field: they are scored too."""
OBJECT_LEVEL = 128
"""Grey level from which a pixel counts as object in the pixel confusion matrix (irrelevant for 0/255 masks)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRow:
    """The places of prediction and ground truth of one sample.

    Attributes
    ----------
    sample_id, image, group : str
        `image` is the sample's file.
    pred_id, gt_id : str or None
        Ids of the labels; None: the sample has none.
    pred_path, gt_path : str or None
        Files of the labels; None if the picture is in the database.
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
    """A sample that was not scored, and the reason."""

    sample_id: str
    image: str
    reason: str


@dataclass(kw_only=True, slots=True)
class Measured(Tally):
    """All measurements of one pass over the pairs.

    Attributes
    ----------
    images : list of ImageScores
        One a pair; `ImageScores.name` is the sample's id.
    labels : list of (str, str)
        Ids of ground truth and prediction of each pair.
    counts : list of (int, int, int, int)
        Pixels of each pair: background right, false object, missed object, object right.
    left_out : list of LeftOut
    readers : Readers
    """

    readers: Readers
    labels: list[tuple[str, str]] = field(default_factory=list)
    counts: list[tuple[int, int, int, int]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return what the user should know of the pictures, a line each."""
        notes = [f"ground truths: {self.readers.sentence}"] if self.readers.sentence else []
        if ignored := self.readers.truth.n_ignored:
            notes.append(f"{ignored / self.n_pixels:.2%} of the pixels are ignored, in no measure")
        return [*notes, *self.suspicious.notes(), *self.readers.notes()]


def read_pair_rows(view: Any, pred_field: str, gt_field: str, group_field: str | None) -> list[PairRow]:
    """Read the places of the pictures of each sample of a flat view, in a few queries.

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
    """Return the attribute that holds the file of a dense label: ``mask_path`` or ``map_path``."""
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
    mask_value: MaskValue | None = None,
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
    mask_value : int, str or sequence, optional
        Ids in the ground truths that are foreground.

    Returns
    -------
    Measured
        It omits and names samples without a prediction or a ground truth, or with an unreadable one.

    Raises
    ------
    DataError
        The ground truths hold several ids and no `mask_value` is given, or every ground truth is empty.
    ConfigError
        The mask value is none.
    """
    rows = read_pair_rows(view, pred_field, gt_field, group_field)
    truths = [row for row in rows if row.gt_id is not None]
    where = f"field {gt_field!r}"
    rule = decide_truth_rule(truths, where, mask_value, look=lambda row: _open_truth(view, row, gt_field).look)
    readers = open_readers(rule, [Path(row.pred_path) for row in rows if row.pred_path])
    measured = Measured(definition=definition, readers=readers)
    for done, row in enumerate(rows, start=1):
        try:
            _add(measured, row, _load(view, row, pred_field, gt_field, measured))
        except DataError as error:
            measured.left_out.append(LeftOut(sample_id=row.sample_id, image=row.image, reason=str(error)))
        report(done, len(rows))
    if measured.images:
        readers.truth.check_any(where)
    measured.suspicious.warn()
    readers.warn()
    return measured


def _add(measured: Measured, row: PairRow, pictures: Pictures) -> None:
    pred, gt = Path(row.pred_path or row.image), Path(row.gt_path or row.image)
    measured.add(row.sample_id, row.group, pictures, pred=pred, gt=gt)
    measured.labels.append((str(row.gt_id), str(row.pred_id)))
    measured.counts.append(count_pixels(pictures.pred_HW, pictures.gt_HW, pictures.ignored_HW))


def count_pixels(
    pred_HW: ByteArray, gt_HW: ByteArray, ignored_HW: BoolArray | None = None
) -> tuple[int, int, int, int]:
    """Count the pixels that are background right, false object, missed object, object right; ignored ones are none.

    Examples
    --------
    >>> count_pixels(np.array([[255, 255, 0, 0]], np.uint8), np.array([[255, 0, 0, 0]], np.uint8))
    (2, 1, 0, 1)
    """
    code_HW = 2 * (gt_HW >= OBJECT_LEVEL).astype(np.uint8) + (pred_HW >= OBJECT_LEVEL)
    codes = code_HW.ravel() if ignored_HW is None else code_HW[~ignored_HW]
    background, false_object, missed, right = np.bincount(codes, minlength=4).tolist()
    return background, false_object, missed, right


def _load(view: Any, row: PairRow, pred_field: str, gt_field: str, measured: Measured) -> Pictures:
    """Read both pictures of a sample, at the size of the ground truth.

    Raises
    ------
    DataError
        A picture is missing or cannot be read.
    """
    for what, name, label in (("prediction", pred_field, row.pred_id), ("ground truth", gt_field, row.gt_id)):
        if label is None:
            raise DataError(f"no {what}: the field {name!r} is empty")
    suspicious = measured.suspicious
    raw = _open_truth(view, row, gt_field)
    truth = measured.readers.truth.apply(raw, row.gt_path or row.image)
    if row.pred_path:
        prediction = open_prediction(Path(row.pred_path), measured.readers, suspicious)
    else:
        prediction = Image.fromarray(to_bytes(_from_database(view, row, pred_field), pred_field)).convert("L")
    return fit_to_truth(prediction, truth, suspicious, Path(row.pred_path or row.image))


def _open_truth(view: Any, row: PairRow, gt_field: str) -> RawMask:
    if row.gt_path:
        return open_mask(Path(row.gt_path))
    return read_array(_from_database(view, row, gt_field), gt_field)


def _from_database(view: Any, row: PairRow, name: str) -> np.ndarray[Any, Any]:
    """Return a picture stored in the sample itself."""
    label = view.select(row.sample_id).first()[name]
    values = label.get_map() if hasattr(label, "get_map") else label.get_mask()
    if values is None:
        raise DataError(f"the label in {name!r} has neither a file nor a picture of its own; make it again")
    return np.asarray(values)


def to_bytes(values: np.ndarray[Any, Any], name: str) -> ByteArray:
    """Convert a mask or map stored in the database to 8 bits, 0 to 255.

    Masks with the values 0 and 1 (or False and True), and floating-point maps in [0, 1], are stretched to 0..255.
    All other arrays must hold whole numbers in 0..255.

    Raises
    ------
    DataError
        The array fits none of these, or is not a picture.

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
