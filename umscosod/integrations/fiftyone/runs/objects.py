"""Writes the objects of a run: a sibling ``Detections`` field whose masks a person can edit in the App.

``<field>_objects`` has one detection for each island of the sample's mask. FiftyOne 1.22 edits only such fields
(docs/editing.md). Each mask is a file of its own; its name is made of its content, since a browser keeps what it loaded
under a name. The label notes what was written, so that any later change by a person is noticed
(`umscosod.integrations.fiftyone.runs.edits`). A label that a person has changed is never overwritten here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId
from pymongo import UpdateOne

from umscosod.data.files import open_atomic
from umscosod.data.masks import encode_png, read_mask
from umscosod.errors import DataError, reason_of
from umscosod.integrations.fiftyone.runs.fields import (
    FOREGROUND,
    HUMAN,
    MODEL,
    OBJECTS,
    TARGETS,
    WRITE_BATCH,
    every_sample,
    run_folder,
    show_objects,
)
from umscosod.integrations.fiftyone.runs.strokes import split_islands
from umscosod.types import BoolArray

FOLDER = "objects"
"""Folder of their files, in the folder of the run: ``objects/<sample id>/<hash>.png``."""
_HASH_LENGTH = 20
_NAME = re.compile(rf"[0-9a-f]{{{_HASH_LENGTH}}}\.png")
_PLACES = 6  # decimals of a box that count: FiftyOne's exports keep more, a screen has fewer pixels
_COMPARED = ("mask_path", "mask_hash", "mask_bytes", "bounding_box")
OTHER_NAME = TARGETS[FOREGROUND]
"""Label of an object whose group has no name."""


def objects_field(field: str) -> str:
    """Return the name of the field with the objects of a run.

    Examples
    --------
    >>> objects_field("cosal")
    'cosal_objects'
    """
    return f"{field}{OBJECTS}"


def has_objects(dataset: Any, field: str) -> bool:
    """Whether the masks of a run can be edited in the App."""
    found = dataset.get_field(objects_field(field))
    return found is not None and getattr(found, "document_type", None) is fo.Detections


def check_objects(dataset: Any, field: str) -> None:
    """Refuse to write objects into a field that holds something else.

    Raises
    ------
    DataError
    """
    name = objects_field(field)
    if dataset.get_field(name) is not None and not has_objects(dataset, field):
        raise DataError(
            f"the objects that can be edited would go into {name!r}, which holds something else: rename that field, "
            "choose another output field, or label with editable=False"
        )


def declare_objects(dataset: Any, field: str, classes: Iterable[str] = ()) -> None:
    """Add the field of the objects, and let people edit it in the App.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    field : str
        Mask field of the run.
    classes : iterable of str
        Names of groups: the labels that a new object can have.

    Raises
    ------
    DataError
        Something else uses the name of the field.
    """
    check_objects(dataset, field)
    name = objects_field(field)
    if not has_objects(dataset, field):
        dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        for attribute in ("provenance", "run"):
            dataset.add_sample_field(f"{name}.detections.{attribute}", fo.StringField)
        show_objects(dataset, field, name)
    _activate_schema(dataset, name, classes)


def _activate_schema(dataset: Any, name: str, classes: Iterable[str]) -> None:
    """Give the field an active label schema, without which the App's tab *Annotate* shows nothing.

    Other fields' schemas, and what a person changed in this one, stay.
    """
    if not hasattr(dataset, "activate_label_schemas"):  # before FiftyOne 1.11 the App edits no masks
        return
    schemas = dataset.label_schemas
    schema = schemas.get(name) or {"type": "detections", "component": "dropdown", "classes": [], "attributes": []}
    known = list(schema.get("classes") or [])
    wanted = [*known, *sorted({one or OTHER_NAME for one in classes} - set(known))] or [OTHER_NAME]
    if name not in schemas or wanted != known:
        schemas[name] = {**schema, "classes": wanted}
        dataset.set_label_schemas(schemas)
    dataset.activate_label_schemas(name)


def remove_schema(dataset: Any, name: str) -> None:
    """Remove the label schema of a field before the field is deleted; one without a schema is no error."""
    if hasattr(dataset, "delete_label_schemas") and name in dataset.label_schemas:
        dataset.delete_label_schemas(name)


@dataclass(frozen=True, slots=True)
class ObjectSource:
    """The mask of one sample, to be written as objects.

    Attributes
    ----------
    mask_path : Path
    group : str
        Label of the objects; ``""``: that of the present ones.
    confidence : float or None
    provenance : str
    """

    mask_path: Path
    group: str
    confidence: float | None
    provenance: str = MODEL


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """The objects of one sample in the database.

    Attributes
    ----------
    sample_id : str
    label : dict or None
        The document of the label; without chosen ids only what is compared.
    is_changed : bool
        A person changed an object: its mask, its box, or their number.
    """

    sample_id: str
    label: dict[str, Any] | None
    is_changed: bool


def read_objects(dataset: Any, field: str, ids: Sequence[str] | None = None) -> list[StoredObjects]:
    """Read the objects of samples, and find out which of them a person changed; two queries, and a look at each file.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    field : str
        Mask field of a run with objects.
    ids : sequence of str, optional
        Only these samples.
    """
    name, collection = objects_field(field), dataset._sample_collection
    wanted: dict[str, Any] = {} if ids is None else {"_id": {"$in": [ObjectId(one) for one in ids]}}
    drawn = {"$elemMatch": {"mask": {"$ne": None}, "mask_path": None}}
    edited = {row["_id"] for row in collection.find({**wanted, f"{name}.detections": drawn}, {"_id": True})}
    small = [f"{name}.mark", *(f"{name}.detections.{key}" for key in _COMPARED)]
    rows = collection.find(wanted, [name] if ids is not None else small)
    found = []
    for row in rows:
        label = row.get(name)
        is_changed = row["_id"] in edited or (label is not None and _is_changed(label))
        found.append(StoredObjects(str(row["_id"]), label, is_changed))
    return found


def _is_changed(label: Mapping[str, Any]) -> bool:
    """Whether a label without masks in the database differs from what was written."""
    with_file = [one for one in label.get("detections") or [] if one.get("mask_path")]
    return _mark(with_file) != label.get("mark") or any(map(is_rewritten, with_file))


def is_rewritten(detection: Mapping[str, Any]) -> bool:
    """Whether the file of an object has another size than when it was written; a missing file is no edit."""
    try:
        size = Path(detection["mask_path"]).stat().st_size
    except OSError:
        return False
    return bool(size != detection.get("mask_bytes", size))


def _mark(detections: Iterable[Mapping[str, Any]]) -> str:
    """Return a hash of masks and boxes, whatever their order, ids and folder."""
    rows = sorted(
        [str(one.get("mask_hash")), [round(float(side), _PLACES) for side in one.get("bounding_box") or []]]
        for one in detections
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:_HASH_LENGTH]


def island_hash(mask_HW: BoolArray) -> str:
    """Return the name of an object's mask: a hash of its pixels, whatever library encodes the file."""
    return hashlib.sha256(repr(mask_HW.shape).encode() + np.packbits(mask_HW).tobytes()).hexdigest()[:_HASH_LENGTH]


def write_objects(dataset: Any, field: str, sources: Mapping[str, ObjectSource | None]) -> list[str]:
    """Write the islands of masks as objects; a sample whose objects a person has changed meanwhile is left alone.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
        With the field that `declare_objects` adds.
    field : str
        Mask field of the run.
    sources : mapping of str to ObjectSource or None
        By sample id; None removes the objects.

    Returns
    -------
    list of str
        Ids of the samples left alone: `umscosod.integrations.fiftyone.runs.edits.read_edits` reads them.

    Raises
    ------
    DataError
        A mask cannot be read, or a file cannot be written.
    """
    left: list[str] = []
    ids = list(sources)
    for start in range(0, len(ids), WRITE_BATCH):
        stored = read_objects(dataset, field, ids[start : start + WRITE_BATCH])
        left += [one.sample_id for one in stored if one.is_changed]
        replace_objects(dataset, field, {one.sample_id: one.label for one in stored if not one.is_changed}, sources)
    return left


def replace_objects(
    dataset: Any, field: str, present: Mapping[str, Any], sources: Mapping[str, ObjectSource | None]
) -> None:
    """Write objects where the database still has the label that was read: a stroke drawn meanwhile is not lost."""
    name, folder = objects_field(field), objects_folder(dataset, field)
    updates, ids = [], []
    for sample_id, before in present.items():
        label = _make_label(field, sources[sample_id], before, folder / sample_id)
        if label is not None and before is not None and _is_same(label, before):
            continue
        unchanged = {name: None} if before is None else {f"{name}.detections": before.get("detections")}
        change = {name: label, "last_modified_at": datetime.now(UTC)}
        updates.append(UpdateOne({"_id": ObjectId(sample_id), **unchanged}, {"$set": change}))
        ids.append(sample_id)
    if updates:
        dataset._bulk_write(updates, ids=ids)


def _is_same(label: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a label says the same as the present one, but for the ids."""
    told = ("label", "mask_hash", "mask_path", "mask", "provenance", "confidence", "run", "bounding_box")
    rows = [[[one.get(key) for key in told] for one in each["detections"] or []] for each in (label, before)]
    return rows[0] == rows[1] and label["mark"] == before.get("mark")


def _make_label(field: str, source: ObjectSource | None, before: Any, folder: Path) -> dict[str, Any] | None:
    """Return the document of a label, once the files of its masks exist; boxes that a person drew stay in it."""
    if source is None:
        return None
    present = (before or {}).get("detections") or []
    boxes = [one for one in present if not one.get("mask_path") and one.get("mask") is None]
    group = source.group or next((one.get("label") for one in present if one.get("label")), None) or OTHER_NAME
    mask_HW = read_mask(source.mask_path)
    made = []
    for island in split_islands(mask_HW):
        content = encode_png(island.mask_HW.astype(np.uint8) * np.uint8(FOREGROUND))
        name = island_hash(island.mask_HW)
        path = folder / f"{name}.png"
        _write_once(path, content)
        detection = fo.Detection(
            label=group,
            bounding_box=island.box(mask_HW.shape),
            mask_path=str(path),
            confidence=None if source.confidence is None else float(source.confidence),
            run=field,
            provenance=source.provenance,
            mask_hash=name,
            mask_bytes=len(content),
        )
        made.append(detection.to_dict())
    label: dict[str, Any] = fo.Detections().to_dict()
    return {**label, "detections": [*made, *boxes], "mark": _mark(made)}


def _write_once(path: Path, content: bytes) -> None:
    if not path.is_file() or path.stat().st_size != len(content):  # its name says the content
        with open_atomic(path) as stream:
            stream.write(content)


def objects_folder(dataset: Any, field: str) -> Path:
    """Return the folder of the objects' files; it is not created."""
    from umscosod.integrations.fiftyone.runs.record import find_run

    run = find_run(dataset, field)
    return (run_folder(dataset, field) if run is None else Path(run.folder)) / FOLDER


def remove_objects(folder: Path) -> None:
    """Remove the objects' files of a run's folder, and the folders that are empty then; nothing through a link.

    Raises
    ------
    DataError
        A file cannot be removed.
    """
    root = folder / FOLDER
    if root.is_symlink() or not root.is_dir():
        return
    try:
        for inner in [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]:
            for path in [path for path in inner.iterdir() if _NAME.fullmatch(path.name)]:
                path.unlink()
            if not any(inner.iterdir()):
                inner.rmdir()
        if not any(root.iterdir()):
            root.rmdir()
    except OSError as error:
        raise DataError(f"cannot remove {error.filename or root}: {reason_of(error)}; check its owner") from error


def make_editable(dataset: Any, field: str) -> int:
    """Make the masks of a finished run editable in the App; what is written for `editable=True`.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    field : str
        Mask field of the run.

    Returns
    -------
    int
        Samples whose masks can be edited now.

    Raises
    ------
    DataError
        There is no such field, something else uses the name of the sibling field, or a mask cannot be read.
    """
    from umscosod.integrations.fiftyone.runs.fields import check_mask_field, group_field_of
    from umscosod.integrations.fiftyone.runs.jobs import read_column, read_samples

    check_mask_field(dataset, field, "edit")
    view = every_sample(dataset).exists(field)
    count = view.count()
    rows = read_samples(view, group_field_of(dataset, field)) if count else []
    paths = (f"{field}.mask_path", f"{field}.provenance", f"{field}_confidence")
    columns = [read_column(view, path, count) for path in paths]
    sources = {
        row.id: ObjectSource(
            mask_path=Path(path), group=row.group, confidence=confidence, provenance=HUMAN if by == HUMAN else MODEL
        )
        for row, path, by, confidence in zip(rows, *columns, strict=True)
        if path
    }
    declare_objects(dataset, field, {row.group for row in rows})
    write_objects(dataset, field, sources)
    return len(sources)
