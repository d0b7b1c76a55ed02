"""Label fields: what a run writes on samples, and how.

Masks and maps stay files (``mask_path``, ``map_path``): MongoDB documents end at 16 MB, and files are faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.store import every_sample, store_values
from umscosod.types import Status

FOREGROUND = 255
"""Pixel value of the object in a mask file; FiftyOne never draws 0."""
TARGETS = {FOREGROUND: "co-salient"}
WRITE_BATCH = 256
"""Samples per database write: an interrupted write keeps all earlier ones."""
MODEL, HUMAN = "model", "human"
"""Provenance of a label."""
REVIEWED = "reviewed"
"""Field of the masks that a person accepted; no run writes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelItem:
    """What one sample gets.

    Attributes
    ----------
    sample_id : str
    mask_path, map_path : Path or None
        Absolute; None leaves the label as it is (or clears it, see `write_labels`).
    confidence : float
    status : Status
    reason : str
    provenance : {"model", "human"}
    """

    sample_id: str
    mask_path: Path | None
    map_path: Path | None
    confidence: float
    status: Status
    reason: str
    provenance: str = MODEL


def field_names(field: str, *, has_maps: bool = True) -> list[str]:
    """Names of all fields of a run.

    Examples
    --------
    >>> field_names("cosal")
    ['cosal', 'cosal_map', 'cosal_confidence', 'cosal_status', 'cosal_reason', 'cosal_review']
    """
    suffixes = ("", "_map", "_confidence", "_status", "_reason", "_review")
    return [field + suffix for suffix in suffixes if has_maps or suffix != "_map"]


def check_field(dataset: Any, field: str, *, has_maps: bool = True) -> None:
    """Refuse a name that FiftyOne would refuse, or that belongs to something else, before hours of work.

    Raises
    ------
    DataError
    """
    if not field.isidentifier() or field.startswith("_"):
        raise DataError(f"field name {field!r} must be letters, digits and '_', starting with a letter")
    if field == REVIEWED:
        raise DataError(
            f"the field {REVIEWED!r} is for masks that a person accepted, no run writes it; choose another name"
        )
    for name, (kind, document) in _field_types(field, has_maps).items():
        found = dataset.get_field(name)
        fits = found is None or (isinstance(found, kind) and (document is None or found.document_type is document))
        if not fits:
            raise DataError(f"field {name!r} exists and is a {type(found).__name__}; choose another field name")


def declare_fields(dataset: Any, field: str, *, has_maps: bool = True) -> None:
    """Add what is missing, name the mask's pixel value, and choose how the App draws a run that is new."""
    import fiftyone as fo

    from umscosod.integrations.fiftyone.runs.look import dress_run

    is_new = not dataset.has_sample_field(field)
    for name, (kind, document) in _field_types(field, has_maps).items():
        if not dataset.has_sample_field(name):
            dataset.add_sample_field(name, kind, **({"embedded_doc_type": document} if document else {}))
    for attribute in ("provenance", "run"):
        dataset.add_sample_field(f"{field}.{attribute}", fo.StringField)
    if is_new:
        name_pixels(dataset, field)
        dress_run(dataset, field)


def name_pixels(dataset: Any, field: str) -> None:
    """Name the pixel value of the object in a mask field."""
    if field not in dataset.mask_targets:
        dataset.mask_targets[field] = dict(TARGETS)
        dataset.save()


def show_masks(dataset: Any, field: str) -> None:
    """Name the pixel value of a mask field and make the field active in the App: dense labels start hidden."""
    import fiftyone as fo

    name_pixels(dataset, field)
    active = dataset.app_config.active_fields or fo.DatasetAppConfig.default_active_fields(dataset)
    if field not in active.paths:
        active.paths = [*active.paths, field]
        dataset.app_config.active_fields = active
    dataset.save()


def write_labels(
    dataset: Any,
    field: str,
    run_key: str,
    items: Iterable[LabelItem],
    *,
    has_maps: bool = True,
    clear_missing: bool = False,
) -> int:
    """Store labels, `WRITE_BATCH` samples a query; each batch is complete before the next begins.

    What is stored as it is to be, and whatever has become a person's since, is passed over: a write that was
    interrupted can be repeated later without undoing a review.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
        With the fields that `declare_fields` adds.
    field, run_key : str
    items : iterable of LabelItem
        Whose files exist. Samples that are no longer in the data set are passed over.
    has_maps : bool
    clear_missing : bool
        Remove the label of an item without a mask: of an image that failed an old label would mislead.

    Returns
    -------
    int
        Samples written.

    Raises
    ------
    DataError
        Samples did not take what was written.
    """
    written = 0
    rest = iter(items)
    while batch := list(islice(rest, WRITE_BATCH)):
        stored = _read_stored(dataset, field, [item.sample_id for item in batch])
        due = [item for item in batch if item.sample_id in stored and _is_due(item, *stored[item.sample_id])]
        if due and clear_missing:  # a status that stands for another label must not outlast it
            store_values(dataset, f"{field}_status", {item.sample_id: None for item in due})
        for name, values in _columns(field, run_key, due, has_maps, clear_missing).items():
            store_values(dataset, name, values)
        written += len(due)
    return written


def _read_stored(dataset: Any, field: str, sample_ids: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Provenance, mask file, status and confidence of the samples that are in the data set."""
    paths = ["id", f"{field}.provenance", f"{field}.mask_path", f"{field}_status", f"{field}_confidence"]
    columns = every_sample(dataset).select(sample_ids).values(paths)
    return {id_: tuple(rest) for id_, *rest in zip(*columns, strict=True)}


def _is_due(item: LabelItem, provenance: str | None, mask: str | None, status: str | None, confidence: Any) -> bool:
    """Whether a label is to be written; the status comes last, so that with it everything else is there."""
    wanted = (None if item.mask_path is None else str(item.mask_path), str(item.status), float(item.confidence))
    return provenance != HUMAN and (mask, status, confidence) != wanted


def _columns(
    field: str, run_key: str, items: Sequence[LabelItem], has_maps: bool, clear_missing: bool
) -> dict[str, dict[str, Any]]:
    """Values by field and sample; masks last, so that an interrupted batch counts as not labelled."""
    import fiftyone as fo

    columns: dict[str, dict[str, Any]] = {
        f"{field}_confidence": {item.sample_id: float(item.confidence) for item in items},
        f"{field}_reason": {item.sample_id: item.reason for item in items},
    }
    if has_maps:
        columns[f"{field}_map"] = {
            item.sample_id: None if item.map_path is None else fo.Heatmap(map_path=str(item.map_path))
            for item in items
            if item.map_path is not None or clear_missing
        }
    columns[field] = {
        item.sample_id: None
        if item.mask_path is None
        else fo.Segmentation(mask_path=str(item.mask_path), provenance=item.provenance, run=run_key)
        for item in items
        if item.mask_path is not None or clear_missing
    }
    columns[f"{field}_review"] = {item.sample_id: None for item in items}
    columns[f"{field}_status"] = {item.sample_id: str(item.status) for item in items}
    return columns


def _field_types(field: str, has_maps: bool) -> dict[str, tuple[Any, Any]]:
    """Name and type of each field written: (field class, embedded class or None)."""
    import fiftyone as fo

    types = {
        field: (fo.EmbeddedDocumentField, fo.Segmentation),
        f"{field}_map": (fo.EmbeddedDocumentField, fo.Heatmap),
        f"{field}_confidence": (fo.FloatField, None),
        f"{field}_status": (fo.StringField, None),
        f"{field}_reason": (fo.StringField, None),
        f"{field}_review": (fo.StringField, None),
    }
    return {name: types[name] for name in field_names(field, has_maps=has_maps)}
