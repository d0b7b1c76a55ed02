"""Before the work: which samples form which group, and which of them still want a label."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path
from typing import Any

from umscosod.errors import DataError
from umscosod.integrations.fiftyone.review.state import ReviewState
from umscosod.integrations.fiftyone.runs.fields import HUMAN

logger = logging.getLogger(__name__)

DECIDED = (ReviewState.ACCEPTED, ReviewState.REJECTED)
"""States of review that a run may not undo, whatever it overwrites."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRow:
    """What is read of one sample before anything is computed.

    Attributes
    ----------
    id : str
    path : Path
        Absolute path of the image.
    group : str
        Name of its group; ``""`` where the group field is empty: such a sample is left alone.
    is_done : bool
        An earlier call of the run has dealt with it, well or not, and nobody sent it back.
    is_human : bool
        Its label is a person's, or a person accepted or rejected it: no run ever writes it.
    """

    id: str
    path: Path
    group: str
    is_done: bool = False
    is_human: bool = False


def flat_images(sample_collection: Any) -> Any:
    """Check that each element is one stored image sample, and undo a ``group_by()``."""
    if sample_collection._is_generated:
        raise DataError("patches, frames and clips views hold generated samples; label the data set or a plain view")
    if sample_collection._is_dynamic_groups:
        sample_collection = sample_collection.flatten()
    if sample_collection.media_type == "group":
        raise DataError(
            "this data set groups several sensors; choose one: dataset.select_group_slices('NAME'), "
            "or all: dataset.select_group_slices()"
        )
    if sample_collection.media_type not in ("image", None):  # None: no samples yet
        raise DataError(
            f"only images can be labelled; this is a data set of media type {sample_collection.media_type!r}"
        )
    return sample_collection.view()


def group_names_by_folder(paths: Iterable[Path]) -> dict[Path, str]:
    """Name each image's folder, as short as the collection allows.

    Examples
    --------
    >>> names = group_names_by_folder([Path("/d/cat/1.jpg"), Path("/d/dog/1.jpg")])
    >>> sorted(names.values())
    ['cat', 'dog']
    >>> list(group_names_by_folder([Path("/d/cat/1.jpg")]).values())
    ['cat']
    """
    folders = {path: path.parent for path in paths}
    if not folders:
        return {}
    root = Path(commonpath(set(folders.values())))
    if root in folders.values():  # images lie in the common folder itself, which needs a name too
        root = root.parent
    return {path: folder.relative_to(root).as_posix() for path, folder in folders.items()}


def read_rows(view: Any, group_field: str | None, field: str) -> list[SampleRow]:
    """Read ids, paths, groups and what became of each sample, of a flat image view in a few queries.

    Raises
    ------
    DataError
        The view is empty, or `group_field` does not exist or holds lists.
    """
    ids, paths = view.values(["id", "filepath"])
    if not ids:
        raise DataError("the view has no samples; choose another view or data set")
    files = [Path(path) for path in paths]
    names = read_groups(view, files, group_field)
    statuses, reviews, provenances = (
        _values_or_none(view, name, len(ids)) for name in (f"{field}_status", f"{field}_review", f"{field}.provenance")
    )
    return [
        SampleRow(
            id=id_,
            path=file,
            group=name,
            is_done=status is not None and review != ReviewState.SENT_BACK,
            is_human=provenance == HUMAN or review in DECIDED,
        )
        for id_, file, name, status, review, provenance in zip(
            ids, files, names, statuses, reviews, provenances, strict=True
        )
    ]


def read_groups(view: Any, files: Sequence[Path], group_field: str | None) -> list[str]:
    """Group name of each sample of a flat view, ``""`` where it has none; by folder without a field."""
    if group_field:
        return [group_name(value) for value in view.values(value_path(view, group_field))]
    by_folder = group_names_by_folder(files)
    return [by_folder[file] for file in files]


def choose_rows(rows: Sequence[SampleRow], *, overwrite: bool) -> tuple[list[SampleRow], frozenset[str]]:
    """Keep groups that have anything left to do, whole: the others of a group help to find what recurs.

    Returns
    -------
    rows : list of SampleRow
        To be looked at; empty if nothing is left.
    writes : frozenset of str
        Ids of those that get labels: what is not done yet, with `overwrite` all but a person's labels.

    Raises
    ------
    DataError
        No sample has a group.
    """
    grouped = [row for row in rows if row.group]
    if not grouped:
        raise DataError(f"none of the {len(rows)} samples has a value in the group field; choose another field")
    if len(grouped) < len(rows):
        logger.warning("%d of %d samples have no group and are left alone", len(rows) - len(grouped), len(rows))
    writes = frozenset(row.id for row in grouped if not row.is_human and (overwrite or not row.is_done))
    open_groups = {row.group for row in grouped if row.id in writes}
    return [row for row in grouped if row.group in open_groups], writes


def _values_or_none(view: Any, path: str, count: int) -> list[Any]:
    """Values of a field that may not exist."""
    return list(view.values(path)) if view.has_field(path) else [None] * count


def value_path(view: Any, group_field: str) -> str:
    """Give the path to read group names from: a Classification's label, else the field itself.

    Raises
    ------
    DataError
        There is no such field, or it holds no single value a sample.
    """
    import fiftyone as fo

    found = view.get_field(group_field)
    if found is None:
        names = ", ".join(sorted(view.get_field_schema(ftype=fo.StringField))) or "none"
        raise DataError(f"there is no field {group_field!r} to group by; text fields here: {names}")
    if isinstance(found, fo.EmbeddedDocumentField) and not issubclass(found.document_type, fo.Classification):
        raise DataError(
            f"cannot group by {group_field!r}: it holds {found.document_type.__name__}; "
            "use a text, number or Classification field"
        )
    parts = group_field.split(".")
    way = [view.get_field(".".join(parts[:length])) for length in range(1, len(parts) + 1)]
    if any(isinstance(field, (fo.ListField, fo.DictField, fo.VectorField)) for field in way):
        raise DataError(f"cannot group by {group_field!r}: it holds several values a sample; use a field with one")
    return f"{group_field}.label" if isinstance(found, fo.EmbeddedDocumentField) else group_field


def group_name(value: Any) -> str:
    """Name the group that a value of the group field stands for; ``""`` for none."""
    return "" if value is None else str(value)
