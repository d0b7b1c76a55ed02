"""Ground truths that are instances: the union of their masks, written once as a mask file per image."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from umscosod.data.files import open_atomic
from umscosod.data.images import read_upright_size
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.fields import FOREGROUND, TARGETS, WRITE_BATCH
from umscosod.integrations.fiftyone.runs.places import dataset_folder
from umscosod.integrations.fiftyone.runs.store import store_values
from umscosod.progress import ProgressFn
from umscosod.types import ByteArray
from umscosod.words import count_of

logger = logging.getLogger(__name__)

ORIGIN = "made_from"
"""Attribute of a mask made here: a hash of the instances that it is the union of."""
"""EXIF orientations from here on swap width and height."""


def mask_field_of(gt_field: str) -> str:
    """Name of the mask field made of a field of instances.

    >>> mask_field_of("truth")
    'truth_mask'
    """
    return f"{gt_field}_mask"


def make_mask_field(view: Any, gt_field: str, progress: ProgressFn) -> tuple[str, dict[str, str]]:
    """Make a Segmentation field of a Detections field whose instances have masks.

    The files lie below the data set's folder; a mask is made anew only where the instances have changed since. An
    image whose list of instances is empty gets an empty mask.

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
        Name of the mask field, and by sample id why an image got none.

    Raises
    ------
    DataError
        No instance has a mask, or the mask field belongs to somebody else.
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
    """Hash and file of the masks made earlier, by sample id."""
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
    """Write the mask of one image; None where the one that is there is good.

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
    except Exception as error:  # boxes and masks come from anywhere; one bad image is left out, not the job ended
        raise DataError(f"cannot draw the instances of {sample.filepath}: {error}") from error
    with open_atomic(path) as stream:
        Image.fromarray(mask_HW).save(stream, "PNG")
    return fo.Segmentation(mask_path=str(path), **{ORIGIN: origin})


def _union(instances: Any, size_hw: tuple[int, int]) -> ByteArray:
    """All instances as one 0/255 mask."""
    mask_HW = np.zeros(size_hw, np.uint8)
    for one in instances.detections:
        one.to_segmentation(mask=mask_HW, target=FOREGROUND)  # draws into the mask it is given
    return mask_HW


def _fingerprint(instances: Any) -> str:
    """Hash of boxes and masks."""
    digest = hashlib.sha256()
    for one in instances.detections:
        mask = np.ascontiguousarray(one.get_mask())
        digest.update(np.asarray(one.bounding_box, dtype=np.float64).tobytes())
        digest.update(f"{mask.shape}{mask.dtype}".encode())
        digest.update(mask.tobytes())
    return digest.hexdigest()[:16]


def _write(dataset: Any, field: str, made: dict[str, Any]) -> int:
    """Store what was made so far and empty the basket; the field is declared when there is something to store."""
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
