"""Records reviews: a person accepts, rejects or sends back the masks of a run.

Accepted masks are copied into a field and a folder of their own, which no run writes. A copy is written before a label
points to it, and a label changes before its copy is removed. So no label points to a missing file, even after an
interruption.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from umscosod.data.files import open_atomic
from umscosod.data.images import check_regular, open_picture, read_upright_size, reading
from umscosod.data.mask_values import flatten_alpha
from umscosod.data.masks import encode_png
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.review.listing import (
    ReviewRow,
    batches,
    check_replaceable,
    read_review_rows,
    write_accepted,
)
from umscosod.integrations.fiftyone.runs.fields import (
    REVIEWED,
    ReviewReport,
    ReviewState,
    every_sample,
    review_field,
    review_folder,
    store_values,
)

logger = logging.getLogger(__name__)


def reviewed_file(dataset: Any, reviewed: str, sample_id: str) -> Path:
    """Return the file of a sample's accepted mask: in the review folder, or in a separate folder for another field."""
    folder = review_folder(dataset)
    return (folder if reviewed == REVIEWED else folder / reviewed) / f"{sample_id}.png"


def read_mask_file(path: Path) -> bytes:
    """Read a mask file completely and check each pixel, so that no damaged file is accepted.

    Returns
    -------
    bytes
        The unchanged file if it is an 8-bit grey PNG, as runs write it; else the same mask as such a PNG.

    Raises
    ------
    DataError
        The file is missing or damaged, or holds values other than 0 and 255.
    """
    check_regular(path)
    with reading("mask file", path, "replace or remove it"):
        content = path.read_bytes()
        with open_picture(io.BytesIO(content)) as image:
            is_plain = image.format == "PNG" and image.mode == "L"
            grey = flatten_alpha(image).convert("L")
            counts = grey.histogram()  # decodes the whole file
    strange = [level for level, count in enumerate(counts) if count and level not in (0, 255)]
    if strange:
        values = ", ".join(str(level) for level in strange[:5])
        raise DataError(f"its mask file {path} holds values other than 0 and 255 ({values}); threshold it first")
    return content if is_plain else encode_png(np.asarray(grey))


def check_size(mask_path: Path, image_path: Path) -> None:
    """Refuse a mask whose size differs from its image (upright, as the App shows it).

    Raises
    ------
    DataError
        The sizes differ, or one of the files cannot be read.
    """
    (mask_h, mask_w), _ = read_upright_size(mask_path)
    (image_h, image_w), _ = read_upright_size(image_path)
    if (mask_h, mask_w) != (image_h, image_w):
        raise DataError(
            f"the mask {mask_path} is {mask_w} x {mask_h} pixels, its image {image_path} {image_w} x {image_h}; "
            "save the mask at the size of the image"
        )


def write_reviewed(target: Path, content: bytes) -> None:
    """Write an accepted mask, completely or not at all."""
    with open_atomic(target) as stream:
        stream.write(content)


def holds(target: Path, content: bytes) -> bool:
    """Whether a file exists with exactly this content."""
    return target.is_file() and target.stat().st_size == len(content) and target.read_bytes() == content


def remove_reviewed(target: Path) -> None:
    """Remove an accepted mask that no label points to any more; a missing file is no error.

    Raises
    ------
    DataError
        The file cannot be removed.
    """
    try:
        target.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot remove {target}: {error.strerror}; check the folder's owner") from error


def accept_masks(
    sample_collection: Any,
    field: str,
    *,
    ids: Iterable[str] | None = None,
    reviewed: str = REVIEWED,
    overwrite: bool = False,
) -> ReviewReport:
    """Accept a run's masks: copy their files into a field that no run writes.

    An accepted empty mask means that the object is not in the image.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    field : str
        Mask field of the run.
    ids : iterable of str, optional
        Only these samples of the collection.
    reviewed : str
        Field for the copies: ``Segmentation(mask_path, provenance="human", run=field)``.
    overwrite : bool
        Replace other masks that were accepted before. Otherwise such samples are not changed.

    Returns
    -------
    ReviewReport
        Samples without a usable mask file are among `skipped`.

    Raises
    ------
    DataError
        There are no samples, no such mask field, `reviewed` holds something else, or a file cannot be written.
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
    return _logged(ReviewReport(field=field, accepted=accepted, skipped=tuple(skipped)))


def reject_masks(
    sample_collection: Any, field: str, *, ids: Iterable[str] | None = None, reviewed: str = REVIEWED
) -> ReviewReport:
    """Reject a run's masks: training leaves these samples out, later runs of the field skip them.

    A mask of the run that was accepted before is removed, as in `undo_review`. Parameters, errors and report as in
    `accept_masks`.
    """
    done, skipped = _decide(sample_collection, field, ids, reviewed, ReviewState.REJECTED)
    return _logged(ReviewReport(field=field, rejected=done, skipped=skipped))


def send_back(
    sample_collection: Any, field: str, *, ids: Iterable[str] | None = None, reviewed: str = REVIEWED
) -> ReviewReport:
    """Send a run's masks back: the next run of the field treats these samples as unlabelled.

    A mask of the run that was accepted before is removed, as in `undo_review`. Parameters, errors and report as in
    `accept_masks`.
    """
    done, skipped = _decide(sample_collection, field, ids, reviewed, ReviewState.SENT_BACK)
    return _logged(ReviewReport(field=field, sent_back=done, skipped=skipped))


def undo_review(
    sample_collection: Any, field: str, *, ids: Iterable[str] | None = None, reviewed: str = REVIEWED
) -> ReviewReport:
    """Remove the decisions on a run's masks.

    A mask of this run that was accepted, or corrected with `replace_mask`, is removed from the field `reviewed`, and
    its copy is deleted. Masks accepted from other runs stay. Parameters, errors and report as in `accept_masks`.
    """
    done, skipped = _decide(sample_collection, field, ids, reviewed, None)
    return _logged(ReviewReport(field=field, undone=done, skipped=skipped))


def replace_mask(sample: Any, field: str, mask_path: str | Path, *, reviewed: str = REVIEWED) -> Path:
    """Accept a mask that was corrected in another program, instead of the run's mask.

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
    """Copy one mask to its place; raise DataError with the reason if it must not be copied."""
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
    """Store a decision other than accept; accepted masks of this run are removed."""
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


def _logged(report: ReviewReport) -> ReviewReport:
    logger.info("%s", report.summary)
    return report
