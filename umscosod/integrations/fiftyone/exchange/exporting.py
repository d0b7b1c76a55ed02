"""Writes the masks of a data set's field as COCO, YOLO, CVAT or PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path
from typing import Any

from umscosod.data.naming import assign_outputs
from umscosod.errors import DataError
from umscosod.export.formats import export_items
from umscosod.export.items import DEFAULT_CATEGORY, ExportItem, ExportReport
from umscosod.integrations.fiftyone.runs.edits import read_edits
from umscosod.integrations.fiftyone.runs.fields import HUMAN, REVIEWED, ReviewState, check_mask_field
from umscosod.integrations.fiftyone.runs.jobs import flat_images, read_column, read_samples
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
    check_mask_field(view, field, "export")
    read_edits(view._dataset, field)
    total = len(view)
    rows = _read(view, field, category_field, only_accepted=only_accepted) if total else []
    if not rows:
        what = "an accepted mask" if only_accepted else "a mask"
        raise DataError(f"none of the {total} samples has {what} in {field!r}; choose another field or view")
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
        for row in rows
        if not row.mask
    ]
    return replace(report, n_unlabelled=total - len(rows), skipped=(*reasons, *report.skipped))


def _read(view: Any, field: str, category_field: str | None, *, only_accepted: bool) -> list[_Row]:
    """Read the samples with a mask to export, in a few queries."""
    samples = read_samples(view, category_field)
    own = (f"{field}.id", f"{field}.mask_path", f"{field}.provenance", f"{field}_confidence", f"{field}_review")
    accepted = (f"{REVIEWED}.run", f"{REVIEWED}.mask_path")
    columns = [read_column(view, path, len(samples)) for path in (*own, *accepted)]
    rows = []
    for sample, *values in zip(samples, *columns, strict=True):
        label, mask, provenance, confidence, review, from_run, accepted_mask = values
        is_accepted = field == REVIEWED or review == ReviewState.ACCEPTED
        if label is None or (only_accepted and not is_accepted):
            continue
        if only_accepted and from_run == field and accepted_mask:
            mask, provenance = accepted_mask, HUMAN
        known = None if provenance == HUMAN or confidence is None else float(confidence)
        rows.append(_Row(image=sample.path, group=sample.group, mask=mask or "", confidence=known))
    return rows


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
