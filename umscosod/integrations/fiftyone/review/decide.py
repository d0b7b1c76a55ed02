"""Records reviews: a person accepts, rejects or sends back the masks of a run.

Accepted masks are copied into a field and a folder of their own, which no run writes. A copy is written before a label
points to it, and a label changes before its copy is removed. So no label points to a missing file, even after an
interruption.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

from umscosod.data.files import open_atomic
from umscosod.data.foreign import MaskReader
from umscosod.data.images import check_regular, open_picture, read_upright_size, reading
from umscosod.data.mask_rules import rule_of
from umscosod.data.mask_values import flatten_alpha, open_mask
from umscosod.data.masks import encode_png
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.fields import (
    HUMAN,
    REVIEWED,
    WRITE_BATCH,
    ReviewReport,
    ReviewState,
    check_mask_field,
    check_name,
    every_sample,
    review_folder,
    show_masks,
    store_values,
)
from umscosod.integrations.fiftyone.runs.jobs import flat_images

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """One sample of a run, and the earlier decision on it; "" if there is none."""

    id: str
    has_mask: bool
    mask_path: str
    has_reviewed: bool
    reviewed_run: str


def reviewed_file(dataset: Any, reviewed: str, sample_id: str) -> Path:
    """Return the file of a sample's accepted mask: in the review folder, or in a separate folder for another field."""
    folder = review_folder(dataset)
    return (folder if reviewed == REVIEWED else folder / reviewed) / f"{sample_id}.png"


def read_mask_file(path: Path, *, is_foreign: bool = False) -> bytes:
    """Read a mask file completely and check each pixel, so that no damaged file is accepted.

    Parameters
    ----------
    path : Path
    is_foreign : bool
        A person's file: 0 and 1, a palette index or one colour on black are read as what they are.

    Returns
    -------
    bytes
        The unchanged file if it is an 8-bit grey PNG, as runs write it; else the same mask as such a PNG.

    Raises
    ------
    DataError
        The file is missing or damaged, or holds other values.
    """
    check_regular(path)
    with reading("mask file", path, "replace or remove it"):
        content = path.read_bytes()
        with open_picture(io.BytesIO(content)) as image:
            is_plain = image.format == "PNG" and image.mode == "L"
            grey = flatten_alpha(image).convert("L")
            counts = grey.histogram()  # decodes the whole file
    strange = [level for level, count in enumerate(counts) if count and level not in (0, 255)]
    if strange and is_foreign and (raw := open_mask(path)).look.values[0] == 0:
        rule = rule_of([raw.look])
        rule.check_clear(str(path))
        if rule.kind == "values":
            reader = MaskReader(rule)
            mask = reader.apply(raw, path)
            reader.warn()
            return encode_png(mask.grey_HW)
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
    for batch in _batches(rows):
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
    return _report(field, "accepted", accepted, skipped)


def reject_masks(
    sample_collection: Any, field: str, *, ids: Iterable[str] | None = None, reviewed: str = REVIEWED
) -> ReviewReport:
    """Reject a run's masks: training leaves these samples out, later runs of the field skip them.

    A mask of the run that was accepted before is removed, as in `undo_review`. Parameters, errors and report as in
    `accept_masks`.
    """
    return _decide(sample_collection, field, ids, reviewed, ReviewState.REJECTED, "rejected")


def send_back(
    sample_collection: Any, field: str, *, ids: Iterable[str] | None = None, reviewed: str = REVIEWED
) -> ReviewReport:
    """Send a run's masks back: the next run of the field treats these samples as unlabelled.

    A mask of the run that was accepted before is removed, as in `undo_review`. Parameters, errors and report as in
    `accept_masks`.
    """
    return _decide(sample_collection, field, ids, reviewed, ReviewState.SENT_BACK, "sent_back")


def undo_review(
    sample_collection: Any, field: str, *, ids: Iterable[str] | None = None, reviewed: str = REVIEWED
) -> ReviewReport:
    """Remove the decisions on a run's masks.

    A mask of this run that was accepted, or corrected with `replace_mask`, is removed from the field `reviewed`, and
    its copy is deleted. Masks accepted from other runs stay. Parameters, errors and report as in `accept_masks`.
    """
    return _decide(sample_collection, field, ids, reviewed, None, "undone")


def replace_mask(sample: Any, field: str, mask_path: str | Path, *, reviewed: str = REVIEWED) -> Path:
    """Accept a mask that was corrected in another program, instead of the run's mask.

    Parameters
    ----------
    sample : fiftyone.core.sample.Sample
        A sample of a data set.
    field : str
        Mask field of the run that was corrected.
    mask_path : path
        A mask at the size of the image: a picture of 0 and 255, which is copied, or of 0 and one other value, palette
        index or colour. An earlier reviewed mask is replaced.
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
    content = read_mask_file(source, is_foreign=True)
    check_size(source, Path(sample.filepath))
    dataset, rows, skipped = read_review_rows(every_sample(sample._dataset), field, [sample.id], reviewed)
    if skipped:
        raise DataError(f"this sample cannot be corrected: {skipped[0][1]}")
    check_replaceable(rows[0], reviewed)
    target = reviewed_file(dataset, reviewed, sample.id)
    with open_atomic(target) as stream:
        stream.write(content)
    write_accepted(dataset, field, reviewed, {sample.id: target})
    return target


def read_review_rows(
    sample_collection: Any, field: str, ids: Iterable[str] | None, reviewed: str
) -> tuple[Any, list[ReviewRow], list[tuple[str, str]]]:
    """Read the data set, the rows, and the samples outside the run, in one query."""
    view = flat_images(sample_collection)
    dataset = view._dataset  # a view has no public access to its data set
    check_mask_field(view, field, "review")
    _declare(dataset, field, reviewed)
    if ids is not None:
        view = view.select(list(ids))
    status = f"{field}_status" if dataset.has_sample_field(f"{field}_status") else f"{field}.id"
    columns = view.values(["id", f"{field}.id", f"{field}.mask_path", status, f"{reviewed}.id", f"{reviewed}.run"])
    if not columns[0]:
        raise DataError("there are no samples to decide about; select some, or choose another view")
    rows, skipped = [], []
    for sample_id, label, path, status_value, kept, run in zip(*columns, strict=True):
        if label is None and status_value is None:
            skipped.append((sample_id, f"it is not among the samples of {field!r}"))
        else:
            rows.append(ReviewRow(sample_id, label is not None, path or "", kept is not None, run or ""))
    return dataset, rows, skipped


def _declare(dataset: Any, field: str, reviewed: str) -> None:
    """Add the fields of a review if they are missing, and let the App draw accepted masks.

    Raises
    ------
    DataError
        Something else uses one of the names.
    """
    found = dataset.get_field(reviewed)
    is_masks = found is None or getattr(found, "document_type", None) is fo.Segmentation
    if reviewed == field or reviewed in dataset.list_runs() or not is_masks:
        raise DataError(f"accepted masks cannot go into {reviewed!r}: it is in use for something else; name another")
    check_name(reviewed)
    state = dataset.get_field(f"{field}_review")
    if state is not None and not isinstance(state, fo.StringField):
        raise DataError(f"decisions cannot go into '{field}_review': it holds no text; rename that field")
    if state is None:
        dataset.add_sample_field(f"{field}_review", fo.StringField)
    if not dataset.has_field(f"{reviewed}.run"):
        dataset.add_sample_field(reviewed, fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
        for attribute in ("provenance", "run"):
            dataset.add_sample_field(f"{reviewed}.{attribute}", fo.StringField)
        show_masks(dataset, reviewed)


def check_replaceable(row: ReviewRow, reviewed: str) -> None:
    """Refuse to change a label that was put into the field by other means."""
    if row.has_reviewed and not row.reviewed_run:
        raise DataError(f"its label in {reviewed!r} comes from no review and is left alone; name another field")


def write_accepted(dataset: Any, field: str, reviewed: str, files: Mapping[str, Path]) -> None:
    """Point labels to existing files; the decision is written last, so that an incomplete batch can be repeated."""
    labels = {id_: fo.Segmentation(mask_path=str(path), provenance=HUMAN, run=field) for id_, path in files.items()}
    store_values(dataset, reviewed, labels)
    store_values(dataset, f"{field}_review", dict.fromkeys(files, str(ReviewState.ACCEPTED)))


def _batches(rows: Sequence[ReviewRow]) -> Iterator[Sequence[ReviewRow]]:
    """Yield `WRITE_BATCH` rows at a time: an interrupted review keeps all earlier batches."""
    for start in range(0, len(rows), WRITE_BATCH):
        yield rows[start : start + WRITE_BATCH]


def _copy_mask(row: ReviewRow, field: str, reviewed: str, target: Path, *, overwrite: bool) -> None:
    """Copy one mask to its place; raise DataError with the reason if it must not be copied."""
    if not row.mask_path:
        raise DataError("its mask lies in the database, not in a file" if row.has_mask else "it has no mask to accept")
    content = read_mask_file(Path(row.mask_path))
    if row.has_reviewed and row.reviewed_run == field and holds(target, content):
        return
    if row.has_reviewed:
        check_replaceable(row, reviewed)
        if not overwrite:
            other = "another mask" if row.reviewed_run == field else f"the mask of {row.reviewed_run!r}"
            raise DataError(f"{other} was accepted before; overwrite to replace it")
    with open_atomic(target) as stream:
        stream.write(content)


def _decide(
    sample_collection: Any, field: str, ids: Iterable[str] | None, reviewed: str, state: ReviewState | None, word: str
) -> ReviewReport:
    """Store a decision other than accept, counted as `word` of the report; accepted masks of this run are removed."""
    dataset, rows, skipped = read_review_rows(sample_collection, field, ids, reviewed)
    for batch in _batches(rows):
        taken_back = [row.id for row in batch if row.has_reviewed and row.reviewed_run == field]
        store_values(dataset, reviewed, dict.fromkeys(taken_back))
        store_values(dataset, f"{field}_review", {row.id: None if state is None else str(state) for row in batch})
        for sample_id in taken_back:
            remove_reviewed(reviewed_file(dataset, reviewed, sample_id))
    return _report(field, word, len(rows), skipped)


def _report(field: str, word: str, count: int, skipped: list[tuple[str, str]]) -> ReviewReport:
    report = ReviewReport(field=field, **{word: count}, skipped=tuple(skipped))
    logger.info("%s", report.summary)
    return report
