"""Writes the masks of a data set's field as COCO, YOLO, CVAT or PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path
from typing import Any

import fiftyone as fo

from umscosod.data.naming import assign_outputs
from umscosod.errors import DataError
from umscosod.export.formats import export_items
from umscosod.export.items import DEFAULT_CATEGORY, ExportItem, ExportReport
from umscosod.integrations.fiftyone.runs.fields import HUMAN, REVIEWED, ReviewState, review_field
from umscosod.integrations.fiftyone.runs.jobs import flat_images, read_groups
from umscosod.integrations.fiftyone.runs.record import Progress, showing


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One sample of the export; `mask` is ``""`` if the label stores its mask in the database."""

    image: Path
    group: str
    mask: str
    confidence: float | None


def export_dataset(
    sample_collection: Any,
    field: str,
    out_dir: str | Path,
    *,
    format: str = "coco",  # the name that users know
    category: str = DEFAULT_CATEGORY,
    category_field: str | None = None,
    only_accepted: bool = False,
    per_region: bool = False,
    overwrite: bool = False,
    progress: Progress = None,
) -> ExportReport:
    """Write the masks of a field, one at a time.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
        An image data set or view; a ``group_by()`` view is flattened.
    field : str
        Any field with mask files: a run's, ``reviewed``, ground truth.
    out_dir : path
        A new or empty folder; see `umscosod.export.folder.open_export`.
    format : {"coco", "yolo", "cvat", "png"}
    category : str
        Name of the one category, and of samples whose `category_field` is empty.
    category_field : str, optional
        Field whose values are the categories: text, number or Classification.
    only_accepted : bool
        Omit masks that no person accepted; of a corrected mask the correction is exported.
    per_region : bool
        One annotation for each connected region (coco and cvat).
    overwrite : bool
        Replace an earlier export in `out_dir`.
    progress : callable or bool, optional
        As for `umscosod.integrations.fiftyone.label_dataset`.

    Returns
    -------
    ExportReport
        File names are relative to the folder that holds all exported images. It counts samples without a mask, and
        names masks with a missing or unusable file in ``skipped``.

    Raises
    ------
    DataError
        No such field of masks, no sample with a mask, or a folder in use.
    ConfigError
        No such format.
    """
    view = flat_images(sample_collection)
    _check_mask_field(view, field)
    total = len(view)
    rows = _read(view, field, category_field, only_accepted=only_accepted)
    if not rows:
        what = "an accepted mask" if only_accepted else "a mask"
        raise DataError(f"none of the {total} samples has {what} in {field!r}; choose another field or view")
    in_database = [row for row in rows if not row.mask]
    root, items = _items([row for row in rows if row.mask])
    with showing(progress) as shown:
        report = export_items(
            items,
            Path(out_dir).expanduser(),
            format,
            category=category,
            per_group=category_field is not None and format != "png",
            per_region=per_region,
            image_root=root,
            overwrite=overwrite,
            progress=shown,
        )
    reasons = [
        f"{row.image}: its mask in {field!r} lies in the database, not in a file; write it with label.export_mask()"
        for row in in_database
    ]
    return replace(report, n_unlabelled=total - len(rows), skipped=(*reasons, *report.skipped))


def _check_mask_field(view: Any, field: str) -> None:
    masks = view.get_field_schema(embedded_doc_type=fo.Segmentation)
    if field not in masks:
        names = ", ".join(sorted(masks)) or "none"
        raise DataError(f"there is no mask field {field!r} to export; fields with masks here: {names}")


def _read(view: Any, field: str, category_field: str | None, *, only_accepted: bool) -> list[_Row]:
    """Read the samples with a mask to export, in a few queries."""
    own_id, own_path, own_provenance = f"{field}.id", f"{field}.mask_path", f"{field}.provenance"
    paths = view.values("filepath")
    groups = read_groups(view, [Path(path) for path in paths], category_field)
    columns = [
        _column(view, name)
        for name in (
            *(own_id, own_path, own_provenance, f"{field}_confidence", review_field(field)),
            *(f"{REVIEWED}.run", f"{REVIEWED}.mask_path"),
        )
    ]
    rows = []
    for path, group, label, mask, provenance, confidence, review, from_run, accepted_mask in zip(
        paths, groups, *columns, strict=True
    ):
        is_accepted = field == REVIEWED or review == ReviewState.ACCEPTED
        if label is None or (only_accepted and not is_accepted):
            continue
        is_human = provenance == HUMAN
        if only_accepted and from_run == field and accepted_mask:
            mask, is_human = accepted_mask, True
        rows.append(
            _Row(image=Path(path), group=group, mask=mask or "", confidence=None if is_human else _float(confidence))
        )
    return rows


def _column(view: Any, name: str) -> list[Any]:
    """Return the values of a field; None for each sample if the field does not exist."""
    return list(view.values(name)) if view.has_field(name) else [None] * len(view)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _items(rows: Sequence[_Row]) -> tuple[Path | None, list[ExportItem]]:
    """Name the outputs by the images' paths below the folder that holds them all."""
    if not rows:
        return None, []
    root = Path(commonpath({row.image.parent for row in rows}))
    names = [row.image.relative_to(root).as_posix() for row in rows]
    outputs = assign_outputs(dict.fromkeys(names))
    items = [
        ExportItem(
            image=row.image, output=outputs[name], group=row.group, mask=Path(row.mask), confidence=row.confidence
        )
        for name, row in zip(names, rows, strict=True)
    ]
    return root, items
