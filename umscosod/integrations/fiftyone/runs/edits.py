"""Reads back what people drew on the objects of a run: each edit becomes the mask of its sample, a person's.

The mask is written to a file of a person's, which no run writes or deletes. Labels point to it before the objects are
made anew from it. So an interrupted call is repeated by the next one, and no edit is lost on the way.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np

from umscosod.data.files import open_atomic
from umscosod.data.images import read_upright_size
from umscosod.data.masks import encode_png, read_mask
from umscosod.errors import DataError, count_of, reason_of
from umscosod.integrations.fiftyone.runs.fields import (
    FOREGROUND,
    HUMAN,
    MODEL,
    REVIEWED,
    WRITE_BATCH,
    LabelItem,
    ReviewState,
    every_sample,
    review_folder,
    show_masks,
    store_values,
)
from umscosod.integrations.fiftyone.runs.objects import (
    ObjectSource,
    StoredObjects,
    has_objects,
    is_rewritten,
    island_hash,
    read_objects,
    replace_objects,
    write_objects,
)
from umscosod.integrations.fiftyone.runs.strokes import Island, move_island, paint, split_islands, take_over
from umscosod.types import BoolArray, Status

logger = logging.getLogger(__name__)

FOLDER = "edited"
"""Folder of edited masks, in that of accepted masks: ``edited/<field>/<sample id>-<hash>.png``."""
ATTRIBUTE = "edited"
"""Attribute of a mask that a person edited in the App."""
REASON = "a person edited it"
_SAME_BOX = 1e-6  # in shares of the image: a box that nobody moved


def read_edits(dataset: Any, field: str) -> list[str]:
    """Turn what people drew in the App into their masks; return the samples whose masks a person edited.

    Runs of the field, refinement, scores, export and training call this first.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    field : str
        Mask field of a run, which need not exist or have objects.

    Returns
    -------
    list of str
        Ids of all samples with an edited mask, also of those read earlier. Their label in `field` points to a file
        with the whole mask at the image's size, ``provenance`` is ``"human"``, the confidence 1, and the review state
        ``accepted``, with the mask in the field ``reviewed``.

    Raises
    ------
    DataError
        A file cannot be written. An image or mask that cannot be read is left for the next call, with a warning.
    """
    read_new_edits(dataset, field)
    return edited_ids(dataset, field)


def edited_ids(dataset: Any, field: str) -> list[str]:
    """Return the samples with an edited mask, as far as edits were read."""
    if not dataset.has_field(f"{field}.{ATTRIBUTE}"):
        return []
    return [str(one) for one in every_sample(dataset).match(fo.ViewField(f"{field}.{ATTRIBUTE}") == True).values("id")]  # noqa: E712


def read_new_edits(dataset: Any, field: str, ids: Sequence[str] | None = None) -> list[str]:
    """Read what was drawn since the last call; return the samples whose masks have changed by it."""
    if not has_objects(dataset, field):
        return []
    changed = [one.sample_id for one in read_objects(dataset, field, ids) if one.is_changed]
    read: list[str] = []
    for start in range(0, len(changed), WRITE_BATCH):
        stored = read_objects(dataset, field, changed[start : start + WRITE_BATCH])
        read += _read_batch(dataset, field, [one for one in stored if one.is_changed])
    if read:
        _note_change(dataset, field)
        logger.info("%s: %s edited by a person", field, count_of(len(read), "mask"))
    return read


def follow_labels(dataset: Any, field: str, items: Iterable[LabelItem], *, clear_missing: bool) -> None:
    """Make the objects follow labels that were just written; nothing to do in a run without objects."""
    groups = {item.row.image_id: item.row.group for item in items}
    refresh_objects(dataset, field, groups, clear_missing=clear_missing)


def refresh_objects(dataset: Any, field: str, groups: Mapping[str, str], *, clear_missing: bool = True) -> None:
    """Make the objects of some samples those of their present masks, after masks were changed or restored.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    field : str
        Mask field of a run; nothing happens without objects.
    groups : mapping of str to str
        By sample id the label of its objects; ``""``: the present one.
    clear_missing : bool
        Remove the objects of samples without a mask.
    """
    if not has_objects(dataset, field):
        return
    paths = ["id", f"{field}.mask_path", f"{field}.provenance", f"{field}_confidence"]
    columns = every_sample(dataset).select(list(groups)).values(paths)
    sources: dict[str, ObjectSource | None] = {}
    for id_, path, provenance, confidence in zip(*columns, strict=True):
        if path:
            by = HUMAN if provenance == HUMAN else MODEL
            sources[id_] = ObjectSource(Path(path), groups[id_], confidence, by)
        elif clear_missing:
            sources[id_] = None
    write_objects(dataset, field, sources)


@dataclass(frozen=True, slots=True)
class _Edit:
    """The mask of a sample after an edit; `path` is its present file where the pixels are the same."""

    path: Path
    is_new: bool
    is_empty: bool
    confidence: float | None
    provenance: str


def _read_batch(dataset: Any, field: str, stored: Sequence[StoredObjects]) -> list[str]:
    """Read the edits of some samples, write their labels, and make their objects anew."""
    view = every_sample(dataset).select([one.sample_id for one in stored])
    paths = ["id", "filepath", f"{field}.mask_path", f"{field}.provenance", f"{field}_confidence"]
    rows = {id_: rest for id_, *rest in zip(*view.values(paths), strict=True)}
    edits: dict[str, _Edit] = {}
    for one in stored:
        try:
            edits[one.sample_id] = _read_edit(dataset, field, one, *rows[one.sample_id])
        except DataError as error:
            logger.warning("what a person drew on sample %s in %s cannot be read yet: %s", one.sample_id, field, error)
    new = {id_: edit for id_, edit in edits.items() if edit.is_new}
    if new:
        _store(dataset, field, new)
    sources = {id_: ObjectSource(edit.path, "", edit.confidence, edit.provenance) for id_, edit in edits.items()}
    present = {one.sample_id: one.label for one in stored if one.sample_id in edits}
    replace_objects(dataset, field, present, sources)
    return list(new)


def _read_edit(
    dataset: Any, field: str, stored: StoredObjects, image: str, mask: str | None, provenance: str, confidence: Any
) -> _Edit:
    """Return the mask that a person made of a sample's mask, written to its file."""
    before_HW = read_mask(Path(mask)) if mask else np.zeros(read_upright_size(Path(image))[0], bool)
    after_HW = unite_objects(before_HW, (stored.label or {}).get("detections") or [])
    if mask and np.array_equal(before_HW, after_HW):  # such as an edit that was taken back
        return _Edit(Path(mask), False, not after_HW.any(), confidence, HUMAN if provenance == HUMAN else MODEL)
    content = encode_png(after_HW.astype(np.uint8) * np.uint8(FOREGROUND))
    path = edits_folder(dataset, field) / f"{stored.sample_id}-{hashlib.sha256(content).hexdigest()[:12]}.png"
    with open_atomic(path) as stream:
        stream.write(content)
    return _Edit(path, True, not after_HW.any(), 1.0, HUMAN)


def unite_objects(before_HW: BoolArray, detections: Iterable[Mapping[str, Any]]) -> BoolArray:
    """Return the union of a sample's objects after an edit.

    Parameters
    ----------
    before_HW : ndarray, bool, (H, W)
        The mask of which the objects were made.
    detections : iterable of dict
        The objects' documents in the database; boxes without a mask are left out.

    Returns
    -------
    ndarray, bool, (H, W)
        Objects that nobody changed are exact; for the others see `strokes.take_over`.

    Raises
    ------
    DataError
        A mask cannot be read.
    """
    islands: dict[str, list[Island]] = {}
    for island in split_islands(before_HW):
        islands.setdefault(island_hash(island.mask_HW), []).append(island)
    size_hw = (before_HW.shape[0], before_HW.shape[1])
    united_HW = np.zeros(size_hw, bool)
    for detection in detections:
        path, inside = detection.get("mask_path"), detection.get("mask")
        if not path and inside is None:
            continue
        box = [float(side) for side in detection["bounding_box"]]
        own = _find_own(islands.get(str(detection.get("mask_hash")), []), box, size_hw)
        if own is not None and path and not is_rewritten(detection):
            is_moved = np.abs(np.subtract(own.box(size_hw), box)).max() > _SAME_BOX
            paint(united_HW, move_island(own, box, size_hw) if is_moved else own)
            continue
        edited_hw = _read_file(Path(path)) if path else np.asarray(fou.deserialize_numpy_array(inside)) > 0
        own = own or _cut(before_HW, box)
        if own is not None and edited_hw.ndim == 2 and edited_hw.size:
            united_HW |= take_over(own, edited_hw, box, size_hw)
    return united_HW


def _find_own(found: Sequence[Island], box: Sequence[float], size_hw: tuple[int, int]) -> Island | None:
    """Return the object before the edit: of objects of one form, the one that is nearest to the box."""
    height, width = size_hw
    return min(found, key=lambda one: abs(one.y / height - box[1]) + abs(one.x / width - box[0]), default=None)


def _cut(before_HW: BoolArray, box: Sequence[float]) -> Island | None:
    """Return what a box held before; None for a box outside of the image."""
    height, width = before_HW.shape
    y0, y1 = (min(max(round(edge * height), 0), height) for edge in (box[1], box[1] + box[3]))
    x0, x1 = (min(max(round(edge * width), 0), width) for edge in (box[0], box[0] + box[2]))
    return Island(y=y0, x=x0, mask_HW=before_HW[y0:y1, x0:x1]) if y1 > y0 and x1 > x0 else None


def _read_file(path: Path) -> BoolArray:
    try:
        return read_mask(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}; restore it") from error


def edits_folder(dataset: Any, field: str) -> Path:
    """Return the folder of a run's edited masks; it is not created."""
    return review_folder(dataset) / FOLDER / field


def _store(dataset: Any, field: str, edits: Mapping[str, _Edit]) -> None:
    """Point labels to the edited masks: the accepted mask first, then the run's own, the decision last."""
    _declare(dataset, field)
    ids, present, runs = every_sample(dataset).select(list(edits)).values(["id", f"{REVIEWED}.id", f"{REVIEWED}.run"])
    foreign = {id_ for id_, label, run in zip(ids, present, runs, strict=True) if label is not None and not run}
    accepted = {id_: edit for id_, edit in edits.items() if id_ not in foreign}  # a label that no review wrote stays
    store_values(dataset, REVIEWED, {id_: _label(field, edit) for id_, edit in accepted.items()})
    store_values(dataset, f"{field}_confidence", dict.fromkeys(edits, 1.0))
    store_values(dataset, f"{field}_reason", dict.fromkeys(edits, REASON))
    statuses = {id_: str(Status.EMPTY if edit.is_empty else Status.LABELLED) for id_, edit in edits.items()}
    store_values(dataset, f"{field}_status", statuses)
    store_values(dataset, field, {id_: _label(field, edit, edited=True) for id_, edit in edits.items()})
    store_values(dataset, f"{field}_review", dict.fromkeys(edits, str(ReviewState.ACCEPTED)))


def _label(field: str, edit: _Edit, **attributes: Any) -> Any:
    return fo.Segmentation(mask_path=str(edit.path), provenance=HUMAN, run=field, **attributes)


def _declare(dataset: Any, field: str) -> None:
    """Add the fields of reviewed masks, and the attribute of edited ones."""
    if not dataset.has_field(f"{REVIEWED}.run"):
        dataset.add_sample_field(REVIEWED, fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
        for attribute in ("provenance", "run"):
            dataset.add_sample_field(f"{REVIEWED}.{attribute}", fo.StringField)
        show_masks(dataset, REVIEWED)
    if not dataset.has_field(f"{field}.{ATTRIBUTE}"):
        dataset.add_sample_field(f"{field}.{ATTRIBUTE}", fo.BooleanField)


def _note_change(dataset: Any, field: str) -> None:
    """Let evaluations of the field count as old."""
    from umscosod.integrations.fiftyone.runs.record import find_run, update_run

    config = find_run(dataset, field)
    if config is not None:
        update_run(dataset, field, config, changed=uuid.uuid4().hex)


def forget_edits(dataset: Any, field: str) -> int:
    """Delete the edited masks of a run, with their labels in ``reviewed``; returns their number.

    Raises
    ------
    DataError
        A file cannot be removed.
    """
    ids = edited_ids(dataset, field)
    folder = edits_folder(dataset, field)
    if ids and dataset.has_field(f"{REVIEWED}.run"):
        rows = zip(*every_sample(dataset).select(ids).values(["id", f"{REVIEWED}.mask_path"]), strict=True)
        store_values(dataset, REVIEWED, {id_: None for id_, path in rows if path and Path(path).parent == folder})
    try:
        for path in sorted(folder.glob("*.png")) if folder.is_dir() else ():
            path.unlink()
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise DataError(f"cannot remove {error.filename or folder}: {reason_of(error)}; check its owner") from error
    return len(ids)
