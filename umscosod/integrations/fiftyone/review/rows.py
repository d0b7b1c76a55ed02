"""Review and the database: what is read of each sample before a decision, and how a decision is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umscosod.errors import DataError
from umscosod.integrations.fiftyone.review.state import ReviewState, review_field
from umscosod.integrations.fiftyone.runs.fields import HUMAN, WRITE_BATCH, show_masks
from umscosod.integrations.fiftyone.runs.rows import flat_images
from umscosod.integrations.fiftyone.runs.store import store_values


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewRow:
    """One sample of a run, and what was decided about it before; "" where there is nothing."""

    id: str
    has_mask: bool
    mask_path: str
    has_reviewed: bool
    reviewed_run: str


def check_mask_field(view: Any, field: str) -> None:
    """Refuse a field that holds no masks, and name those that do."""
    import fiftyone as fo

    masks = view.get_field_schema(embedded_doc_type=fo.Segmentation)
    if field not in masks:
        names = ", ".join(sorted(masks)) or "none"
        raise DataError(f"there is no mask field {field!r} to review; fields with masks here: {names}")


def read_review_rows(
    sample_collection: Any, field: str, ids: Iterable[str] | None, reviewed: str
) -> tuple[Any, list[ReviewRow], list[tuple[str, str]]]:
    """Read what is needed of each sample in one query: data set, rows, and samples that the run never saw."""
    view = flat_images(sample_collection)
    dataset = view._dataset  # a view has no public way to its data set
    check_mask_field(view, field)
    _declare(dataset, field, reviewed)
    if ids is not None:
        view = view.select(list(ids))
    status = f"{field}_status" if dataset.has_sample_field(f"{field}_status") else f"{field}.id"
    paths = ["id", f"{field}.id", f"{field}.mask_path", status, f"{reviewed}.id", f"{reviewed}.run"]
    columns = view.values(paths)
    if not columns[0]:
        raise DataError("there are no samples to decide about; select some, or choose another view")
    rows, skipped = [], []
    for sample_id, label, path, status_value, kept, run in zip(*columns, strict=True):
        if label is None and status_value is None:
            skipped.append((sample_id, f"it is not among the samples of {field!r}"))
            continue
        rows.append(
            ReviewRow(
                id=sample_id,
                has_mask=label is not None,
                mask_path=path or "",
                has_reviewed=kept is not None,
                reviewed_run=run or "",
            )
        )
    return dataset, rows, skipped


def _declare(dataset: Any, field: str, reviewed: str) -> None:
    """Add the fields of a review where they are missing, and let the App draw accepted masks.

    Raises
    ------
    DataError
        One of the names is in use for something else.
    """
    import fiftyone as fo

    found = dataset.get_field(reviewed)
    is_masks = found is None or getattr(found, "document_type", None) is fo.Segmentation
    if reviewed == field or reviewed in dataset.list_runs() or not is_masks:
        raise DataError(f"accepted masks cannot go into {reviewed!r}: it is in use for something else; name another")
    if not reviewed.isidentifier() or reviewed.startswith("_"):
        raise DataError(f"field name {reviewed!r} must be letters, digits and '_', starting with a letter")
    state = dataset.get_field(review_field(field))
    if state is not None and not isinstance(state, fo.StringField):
        raise DataError(f"decisions cannot go into {review_field(field)!r}: it holds no text; rename that field")
    if state is None:
        dataset.add_sample_field(review_field(field), fo.StringField)
    if not dataset.has_field(f"{reviewed}.run"):
        dataset.add_sample_field(reviewed, fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
        for attribute in ("provenance", "run"):
            dataset.add_sample_field(f"{reviewed}.{attribute}", fo.StringField)
        show_masks(dataset, reviewed)


def check_replaceable(row: ReviewRow, reviewed: str) -> None:
    """Refuse to touch a label that somebody put into the field by other means."""
    if row.has_reviewed and not row.reviewed_run:
        raise DataError(f"its label in {reviewed!r} comes from no review and is left alone; name another field")


def write_accepted(dataset: Any, field: str, reviewed: str, files: Mapping[str, Path]) -> None:
    """Point labels to files that are there; the decision comes last, so that half a batch can be accepted again."""
    import fiftyone as fo

    if files:
        labels = {
            sample_id: fo.Segmentation(mask_path=str(path), provenance=HUMAN, run=field)
            for sample_id, path in files.items()
        }
        store_values(dataset, reviewed, labels)
        store_values(dataset, review_field(field), dict.fromkeys(files, str(ReviewState.ACCEPTED)))


def batches(rows: Sequence[ReviewRow]) -> Iterator[Sequence[ReviewRow]]:
    """Give `WRITE_BATCH` rows at a time: an interrupted review keeps all earlier batches."""
    for start in range(0, len(rows), WRITE_BATCH):
        yield rows[start : start + WRITE_BATCH]
