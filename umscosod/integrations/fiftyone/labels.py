"""The work and after it: one call into the pipeline, then masks and maps as label fields."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umscosod.errors import DataError
from umscosod.integrations.fiftyone.rows import (
    choose_rows,
    flat_images,
    read_rows,
    refuse_to_replace_files,
)
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import Labelled, Status

if TYPE_CHECKING:
    from umscosod.config import PipelineConfig
    from umscosod.pipeline import LabelReport

logger = logging.getLogger(__name__)

FOREGROUND = 255
"""Pixel value of the object in a mask file; FiftyOne never draws 0."""
WRITE_BATCH = 256
"""Samples per database write: an interrupted write keeps all earlier ones."""


def label_dataset(
    sample_collection: Any,
    *,
    group_field: str | None = None,
    out_dir: str | Path,
    field: str = "cosal",
    config: PipelineConfig,
    checkpoint: Path | None = None,
    train: bool = True,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> LabelReport:
    """Find the common object of each group of samples and store it as labels.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
        An image data set or view. A ``group_by()`` view is flattened; a multi-sensor data set needs a slice.
    group_field : str, optional
        Field whose value names a sample's group: text, number or Classification. None: the image's folder.
    out_dir : path
        Where masks, maps and the report are written. Keep it: the labels point into it.
    field : str
        Name of the mask field. ``<field>_map`` holds the soft map, ``<field>_confidence``, ``<field>_status`` and
        ``<field>_reason`` what `Labelled` says of the image.
    config : PipelineConfig
    checkpoint : Path, optional
        Label with this network instead of training one.
    train : bool
        False stops at refined pseudo-labels unless a checkpoint is given.
    overwrite : bool
        Replace labels that are there. Otherwise groups whose samples all have a label are left out, and in the
        other groups only samples without a label are written, though all of them are looked at.
    progress : callable

    Returns
    -------
    LabelReport
        Of the groups that were run.

    Raises
    ------
    DataError
        No images, a field that does not fit, nothing left to label, or a label file that would be overwritten.
    """
    from umscosod.data.groups import groups_from_rows
    from umscosod.pipeline import label_groups

    view = flat_images(sample_collection)
    dataset = view._dataset  # a view has no public way to its data set
    _check_output_fields(dataset, field)
    rows = read_rows(view, group_field, field)
    chosen = choose_rows(rows, overwrite=overwrite)
    out = Path(out_dir).expanduser().resolve()
    groups = groups_from_rows((row.id, row.path, row.group) for row in chosen)  # a sample's id is its image's id
    if not overwrite:
        refuse_to_replace_files(chosen, groups, out)

    report = label_groups(groups, out, config, checkpoint=checkpoint, train=train, progress=progress)
    kept = frozenset() if overwrite else frozenset(row.id for row in chosen if row.is_labelled)
    _declare_fields(dataset, field)
    _write_labels(dataset, field, report, kept, overwrite=overwrite)
    return report


def _field_types(field: str) -> dict[str, tuple[Any, Any]]:
    """Name and type of each field written: (field class, embedded class or None)."""
    import fiftyone as fo

    return {
        field: (fo.EmbeddedDocumentField, fo.Segmentation),
        f"{field}_map": (fo.EmbeddedDocumentField, fo.Heatmap),
        f"{field}_confidence": (fo.FloatField, None),
        f"{field}_status": (fo.StringField, None),
        f"{field}_reason": (fo.StringField, None),
    }


def _check_output_fields(dataset: Any, field: str) -> None:
    """Refuse a name that FiftyOne would refuse, or that belongs to something else, before hours of work."""
    if not field.isidentifier() or field.startswith("_"):
        raise DataError(f"field name {field!r} must be letters, digits and '_', starting with a letter")
    for name, (kind, document) in _field_types(field).items():
        found = dataset.get_field(name)
        fits = found is None or (isinstance(found, kind) and (document is None or found.document_type is document))
        if not fits:
            raise DataError(f"field {name!r} exists and is a {type(found).__name__}; choose another field name")


def _declare_fields(dataset: Any, field: str) -> None:
    """Add what is missing, name the mask's pixel value, and let the App draw the mask (dense labels start hidden)."""
    import fiftyone as fo

    for name, (kind, document) in _field_types(field).items():
        if not dataset.has_sample_field(name):
            dataset.add_sample_field(name, kind, **({"embedded_doc_type": document} if document else {}))
    if field not in dataset.mask_targets:
        dataset.mask_targets[field] = {FOREGROUND: "co-salient"}
    active = dataset.app_config.active_fields or fo.DatasetAppConfig.default_active_fields(dataset)
    if field not in active.paths:
        active.paths = [*active.paths, field]
        dataset.app_config.active_fields = active
    dataset.save()


def _write_labels(dataset: Any, field: str, report: LabelReport, kept: Collection[str], *, overwrite: bool) -> None:
    """Store one run's outcome, `WRITE_BATCH` samples a query; samples in `kept` are left as they are."""
    outcome = [(row.image_id, row) for row in report.rows if row.image_id not in kept]
    for start in range(0, len(outcome), WRITE_BATCH):
        batch = outcome[start : start + WRITE_BATCH]
        masks, maps = _labels_of(batch, report.out, clear_others=overwrite)
        columns = {
            field: masks,
            f"{field}_map": maps,
            f"{field}_confidence": {sample: float(row.confidence) for sample, row in batch},
            f"{field}_status": {sample: str(row.status) for sample, row in batch},
            f"{field}_reason": {sample: row.reason for sample, row in batch},
        }
        for name, values in columns.items():
            if values:
                dataset.set_values(name, values, key_field="id")
    counts = Counter(str(row.status) for _, row in outcome)
    logger.info("%s: %s", field, ", ".join(f"{count} {status}" for status, count in sorted(counts.items())))


def _labels_of(
    batch: Sequence[tuple[str, Labelled]], out: Path, *, clear_others: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build labels for images that have files; None for failed ones where an old label would mislead."""
    import fiftyone as fo

    masks: dict[str, Any] = {}
    maps: dict[str, Any] = {}
    for sample, row in batch:
        mask = out / "masks" / row.output
        # A resumed run skips what an earlier one wrote: then the file is there.
        if row.status in (Status.LABELLED, Status.EMPTY) or (row.status == Status.SKIPPED and mask.is_file()):
            masks[sample] = fo.Segmentation(mask_path=str(mask))
            maps[sample] = fo.Heatmap(map_path=str(out / "maps" / row.output))
        elif clear_others:
            masks[sample] = maps[sample] = None
    return masks, maps
