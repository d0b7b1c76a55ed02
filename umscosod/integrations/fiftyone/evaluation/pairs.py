"""Measures predictions against ground truth, one sample at a time, with the code of the command line."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from PIL import Image

from umscosod.data.files import open_atomic
from umscosod.data.images import read_upright_size
from umscosod.data.mask_rules import MaskValue
from umscosod.data.mask_values import Look, RawMask, open_mask, read_array
from umscosod.errors import DataError, count_of
from umscosod.evaluation.reading import Readers, decide_truth_rule, open_readers
from umscosod.evaluation.scores import Definition
from umscosod.evaluation.scoring import Pictures, Tally, fit_to_truth, open_prediction
from umscosod.integrations.fiftyone.runs.fields import (
    TARGETS,
    WRITE_BATCH,
    dataset_folder,
    draw_instances,
    store_values,
)
from umscosod.integrations.fiftyone.runs.jobs import SampleRow, read_samples
from umscosod.progress import ProgressFn
from umscosod.types import BoolArray, ByteArray

logger = logging.getLogger(__name__)

ORIGIN = "made_from"
"""Attribute of a mask made here: a hash of the instances whose union it is."""


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
    field = f"{gt_field}_mask"
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
                if label := _mask_label(sample, instances, folder / f"{sample.id}.png", present.get(sample.id)):
                    made[sample.id] = label
            except DataError as error:
                problems[sample.id] = str(error)
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
    found = view.get_field(field)
    if found is None:
        return {}
    if getattr(found, "document_type", None) is not fo.Segmentation:
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
    without = sum(not one.has_mask for one in instances.detections)
    if without:
        raise DataError(f"{without} of {len(instances.detections)} instances have no mask, only a box")
    try:
        origin = _fingerprint(instances)
        if present == (origin, str(path)) and path.is_file():
            return None
        mask_HW = draw_instances(instances.detections, read_upright_size(Path(sample.filepath))[0])
    except Exception as error:  # boxes and masks come from any source; a bad image is omitted and does not end the job
        raise DataError(f"cannot draw the instances of {sample.filepath}: {error}") from error
    with open_atomic(path) as stream:
        Image.fromarray(mask_HW).save(stream, "PNG")
    return fo.Segmentation(mask_path=str(path), **{ORIGIN: origin})


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
class Label:
    """A prediction or ground truth of one sample; `id` is None without a label, `path` without a file."""

    what: str
    field: str
    id: str | None
    path: Path | None


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
    pred_field : str
        A Segmentation field, or a Heatmap field to score soft maps.
    gt_field : str
        A Segmentation field.
    definition : {"cosod", "sod"}
    group_field : str, optional
        None: the image's folder.
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
    samples = read_samples(view, group_field)
    attribute = "map_path" if issubclass(view.get_field(pred_field).document_type, fo.Heatmap) else "mask_path"
    paths = (f"{pred_field}.id", f"{gt_field}.id", f"{pred_field}.{attribute}", f"{gt_field}.mask_path")
    pairs = [
        (
            sample,
            Label(what="prediction", field=pred_field, id=pred_id, path=Path(pred_path) if pred_path else None),
            Label(what="ground truth", field=gt_field, id=gt_id, path=Path(gt_path) if gt_path else None),
        )
        for sample, pred_id, gt_id, pred_path, gt_path in zip(samples, *view.values(paths), strict=True)
    ]
    measured = Measured(definition=definition, readers=_open_readers(view, pairs, gt_field, mask_value))
    for done, (sample, pred, gt) in enumerate(pairs, start=1):
        try:
            pictures = _load(view, sample, pred, gt, measured)
            files = {"pred": pred.path or sample.path, "gt": gt.path or sample.path}
            measured.add(sample.id, sample.group or NO_GROUP, pictures, **files)
        except DataError as error:
            measured.left_out.append(LeftOut(sample_id=sample.id, image=str(sample.path), reason=str(error)))
        else:
            measured.labels.append((str(gt.id), str(pred.id)))
            measured.counts.append(count_pixels(pictures.pred_HW, pictures.gt_HW, pictures.ignored_HW))
        report(done, len(samples))
    if measured.images:
        measured.readers.truth.check_any(f"field {gt_field!r}")
    measured.suspicious.warn()
    measured.readers.warn()
    return measured


def _open_readers(
    view: Any, pairs: list[tuple[SampleRow, Label, Label]], gt_field: str, mask_value: MaskValue | None
) -> Readers:
    def look(pair: tuple[SampleRow, Label, Label]) -> Look:
        sample, _, gt = pair
        return _open_truth(view, sample, gt).look

    truths = [pair for pair in pairs if pair[2].id is not None]
    rule = decide_truth_rule(truths, f"field {gt_field!r}", mask_value, look=look)
    return open_readers(rule, [pred.path for _, pred, _ in pairs if pred.path])


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


def _load(view: Any, sample: SampleRow, pred: Label, gt: Label, measured: Measured) -> Pictures:
    """Read both pictures of a sample, at the size of the ground truth.

    Raises
    ------
    DataError
        A picture is missing or cannot be read.
    """
    for label in (pred, gt):
        if label.id is None:
            raise DataError(f"no {label.what}: the field {label.field!r} is empty")
    truth = measured.readers.truth.apply(_open_truth(view, sample, gt), gt.path or sample.path)
    if pred.path:
        prediction = open_prediction(pred.path, measured.readers, measured.suspicious)
    else:
        prediction = Image.fromarray(to_bytes(_from_database(view, sample.id, pred.field), pred.field)).convert("L")
    return fit_to_truth(prediction, truth, measured.suspicious, pred.path or sample.path)


def _open_truth(view: Any, sample: SampleRow, gt: Label) -> RawMask:
    if gt.path:
        return open_mask(gt.path)
    return read_array(_from_database(view, sample.id, gt.field), gt.field)


def _from_database(view: Any, sample_id: str, name: str) -> np.ndarray[Any, Any]:
    """Return a picture stored in the sample itself."""
    label = view.select(sample_id).first()[name]
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
