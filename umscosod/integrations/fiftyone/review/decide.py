"""Review: a person accepts, rejects or sends back the masks of a run, the least certain first.

Accepted masks are copied out of the run into a field and a folder of their own, where no run writes. A copy is on disk
before the field points to it, and a field points elsewhere before a copy goes: stopped at any point, no label points
to a missing file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from umscosod.errors import DataError
from umscosod.integrations.fiftyone.review.files import (
    check_size,
    holds,
    read_mask_file,
    remove_reviewed,
    reviewed_file,
    write_reviewed,
)
from umscosod.integrations.fiftyone.review.rows import (
    ReviewRow,
    batches,
    check_replaceable,
    read_review_rows,
    write_accepted,
)
from umscosod.integrations.fiftyone.review.state import ReviewReport, ReviewState, review_field
from umscosod.integrations.fiftyone.runs.fields import REVIEWED
from umscosod.integrations.fiftyone.runs.store import every_sample, store_values

logger = logging.getLogger(__name__)


def accept_masks(
    sample_collection: Any,
    field: str,
    *,
    ids: Iterable[str] | None = None,
    reviewed: str = REVIEWED,
    overwrite: bool = False,
) -> ReviewReport:
    """Make a run's masks a person's: their files are copied, and no run writes over the copies.

    An accepted empty mask says that the object is not in the image.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    field : str
        Mask field of the run.
    ids : iterable of str, optional
        Only these samples of the collection.
    reviewed : str
        Field that receives the masks: ``Segmentation(mask_path, provenance="human", run=field)``.
    overwrite : bool
        Replace other masks that were accepted before. Otherwise such samples are left as they are.

    Returns
    -------
    ReviewReport
        Samples without a usable mask file are among `skipped`.

    Raises
    ------
    DataError
        No samples, no such mask field, `reviewed` holds something else, or a file cannot be written.
    """
    dataset, rows, skipped = read_review_rows(sample_collection, field, ids, reviewed)
    accepted = 0
    for batch in batches(rows):
        files: dict[str, Path] = {}
        for row in batch:
            target = reviewed_file(dataset, reviewed, row.id)
            try:
                _copy_mask(row, field, reviewed, target, overwrite=overwrite)
            except DataError as error:
                skipped.append((row.id, str(error)))
            else:
                files[row.id] = target
        write_accepted(dataset, field, reviewed, files)
        accepted += len(files)
    return _told(ReviewReport(field=field, accepted=accepted, skipped=tuple(skipped)))


def reject_masks(
    sample_collection: Any, field: str, *, ids: Iterable[str] | None = None, reviewed: str = REVIEWED
) -> ReviewReport:
    """Refuse a run's masks: training leaves these samples out, later runs of the field leave them alone.

    A mask of the run that was accepted before is taken back, as `undo_review` does. Parameters, errors and report as
    in `accept_masks`.
    """
    done, skipped = _decide(sample_collection, field, ids, reviewed, ReviewState.REJECTED)
    return _told(ReviewReport(field=field, rejected=done, skipped=skipped))


def send_back(
    sample_collection: Any, field: str, *, ids: Iterable[str] | None = None, reviewed: str = REVIEWED
) -> ReviewReport:
    """Have a run's masks made again: the next run of the field takes these samples for unlabelled ones.

    A mask of the run that was accepted before is taken back, as `undo_review` does. Parameters, errors and report as
    in `accept_masks`.
    """
    done, skipped = _decide(sample_collection, field, ids, reviewed, ReviewState.SENT_BACK)
    return _told(ReviewReport(field=field, sent_back=done, skipped=skipped))


def undo_review(
    sample_collection: Any, field: str, *, ids: Iterable[str] | None = None, reviewed: str = REVIEWED
) -> ReviewReport:
    """Forget what was decided about a run's masks.

    A mask of this run that was accepted, or corrected with `replace_mask`, leaves the field `reviewed`, and our copy
    of it goes; masks accepted from other runs stay. Parameters, errors and report as in `accept_masks`.
    """
    done, skipped = _decide(sample_collection, field, ids, reviewed, None)
    return _told(ReviewReport(field=field, undone=done, skipped=skipped))


def replace_mask(sample: Any, field: str, mask_path: str | Path, *, reviewed: str = REVIEWED) -> Path:
    """Accept a mask that was corrected elsewhere, in place of the run's.

    Parameters
    ----------
    sample : fiftyone.core.sample.Sample
        A sample of a data set.
    field : str
        Mask field of the run that was corrected.
    mask_path : path
        A picture of 0 and 255 at the size of the image; it is copied. An earlier reviewed mask is replaced.
    reviewed : str
        As in `accept_masks`.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    DataError
        The mask is missing, damaged, of another size, or holds other values; `field` or `reviewed` does not fit.
    """
    if not sample._in_db:
        raise DataError("this sample is in no data set; add it to one first")
    source = Path(mask_path).expanduser()
    content = read_mask_file(source)
    check_size(source, Path(sample.filepath))
    dataset, rows, skipped = read_review_rows(every_sample(sample._dataset), field, [sample.id], reviewed)
    for _, reason in skipped:
        raise DataError(f"this sample cannot be corrected: {reason}")
    check_replaceable(rows[0], reviewed)
    target = reviewed_file(dataset, reviewed, sample.id)
    write_reviewed(target, content)
    write_accepted(dataset, field, reviewed, {sample.id: target})
    return target


def _copy_mask(row: ReviewRow, field: str, reviewed: str, target: Path, *, overwrite: bool) -> None:
    """Copy one mask to its place; raises DataError with the reason where it is to be left alone."""
    if not row.mask_path:
        raise DataError("its mask lies in the database, not in a file" if row.has_mask else "it has no mask to accept")
    content = read_mask_file(Path(row.mask_path))
    is_there = row.has_reviewed and row.reviewed_run == field and holds(target, content)
    if is_there:
        return
    if row.has_reviewed:
        check_replaceable(row, reviewed)
        if not overwrite:
            other = "another mask" if row.reviewed_run == field else f"the mask of {row.reviewed_run!r}"
            raise DataError(f"{other} was accepted before; overwrite to replace it")
    write_reviewed(target, content)


def _decide(
    sample_collection: Any, field: str, ids: Iterable[str] | None, reviewed: str, state: ReviewState | None
) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Store a decision other than to accept; masks of this run that were accepted are taken back."""
    dataset, rows, skipped = read_review_rows(sample_collection, field, ids, reviewed)
    for batch in batches(rows):
        taken_back = [row.id for row in batch if row.has_reviewed and row.reviewed_run == field]
        if taken_back:
            store_values(dataset, reviewed, dict.fromkeys(taken_back))
        value = None if state is None else str(state)
        store_values(dataset, review_field(field), {row.id: value for row in batch})
        for sample_id in taken_back:
            remove_reviewed(reviewed_file(dataset, reviewed, sample_id))
    return len(rows), tuple(skipped)


def _told(report: ReviewReport) -> ReviewReport:
    logger.info("%s", report.summary)
    return report
