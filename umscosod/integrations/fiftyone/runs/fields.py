"""Declares and writes the label fields of a run.

The appearance of fields is set once, when they are made; later changes by the user stay. Masks and maps are files
(``mask_path``, ``map_path``), since MongoDB documents end at 16 MB and files are faster.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

from umscosod.errors import DataError
from umscosod.types import ByteArray, Labelled


def safe_name(name: str) -> str:
    """Turn a data set's name into a folder name; if characters change, a hash keeps names distinct.

    Examples
    --------
    >>> safe_name("birds-2024")
    'birds-2024'
    >>> safe_name("birds of Chile") != safe_name("birds/of/Chile")
    True
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")
    if plain == name:
        return name
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}".lstrip("-")


def dataset_folder(dataset: Any) -> Path:
    """Return the folder for everything written for a data set; it is not created.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset

    Returns
    -------
    Path
        ``<default_dataset_dir>/umscosod/<name>``, with FiftyOne's own setting of that folder.
    """
    return Path(str(fo.config.default_dataset_dir)).expanduser() / "umscosod" / safe_name(dataset.name)


def run_folder(dataset: Any, key: str) -> Path:
    """Return the default folder of a run; it is not created."""
    return dataset_folder(dataset) / "runs" / key


def review_folder(dataset: Any) -> Path:
    """Return the folder of accepted masks: apart from the runs, whose files are deleted with them."""
    return dataset_folder(dataset) / "reviewed"


def every_sample(dataset: Any) -> Any:
    """Return a flat view of all samples; with several sensors FiftyOne's own queries see only one slice."""
    return dataset.select_group_slices(_allow_mixed=True) if dataset.media_type == "group" else dataset


def store_values(dataset: Any, path: str, values: Mapping[str, Any]) -> None:
    """Set a field of the samples with these ids, and check the stored values.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    path : str
        A field of the data set.
    values : mapping of str to value
        By sample id: plain values, labels, or None.

    Raises
    ------
    DataError
        Samples of the data set hold another value.
    """
    if not values:
        return
    dataset.set_values(path, values, key_field="id")
    is_label = getattr(dataset.get_field(path), "document_type", None) is not None
    meant = {id_: getattr(value, "id", None) if is_label else value for id_, value in values.items()}
    columns = every_sample(dataset).select(list(values)).values(["id", f"{path}.id" if is_label else path])
    wrong = sum(stored != meant[id_] for id_, stored in zip(*columns, strict=True))
    if wrong:
        raise DataError(
            f"{wrong} of {len(values)} samples did not take their value in the field {path!r} of {dataset.name!r}; "
            "see that nothing else writes it, then run again"
        )


class ReviewState(StrEnum):
    """Value of ``<field>_review``; a sample without a decision has none."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SENT_BACK = "sent back"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewReport:
    """Outcome of one decision on some samples.

    Attributes
    ----------
    field : str
        Mask field of the run.
    accepted, rejected, sent_back, undone : int
        Number of samples that now have that state.
    skipped : tuple of (str, str)
        Sample id and reason of unchanged samples.
    """

    field: str
    accepted: int = 0
    rejected: int = 0
    sent_back: int = 0
    undone: int = 0
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def summary(self) -> str:
        """One sentence for people.

        Examples
        --------
        >>> ReviewReport(field="cosal", accepted=2, skipped=(("a", "it has no mask"),)).summary
        'cosal: 2 accepted; 1 left as it was (it has no mask)'
        """
        counts = ((self.accepted, "accepted"), (self.rejected, "rejected"), (self.sent_back, "sent back"))
        told = [f"{count} {word}" for count, word in (*counts, (self.undone, "undone")) if count]
        parts = [", ".join(told) or "nothing changed"]
        if self.skipped:
            reasons = Counter(reason for _, reason in self.skipped)
            why = "; ".join(reason if len(reasons) == 1 else f"{n}: {reason}" for reason, n in reasons.most_common())
            parts.append(f"{len(self.skipped)} left as {'it was' if len(self.skipped) == 1 else 'they were'} ({why})")
        return f"{self.field}: {'; '.join(parts)}"

    @property
    def is_success(self) -> bool:
        """Whether the decision applies to at least one sample."""
        return self.accepted + self.rejected + self.sent_back + self.undone > 0


COLOURS = ("#4c9be8", "#f0883e", "#cc79a7", "#e3b341", "#56d4bc", "#f85149")
"""Colours of the runs in their order; the first two are those of A and B in the compare panel."""
GROUPED = ("_map", "_confidence", "_status", "_reason", "_review")
"""Endings of the fields beside a run's mask field."""
OBJECTS = "_objects"
"""Ending of the field with a run's objects, which a person can edit; not each run has one."""
BEFORE = "labels"
"""Sidebar group after which a run's group is placed."""


def show_run(dataset: Any, field: str) -> None:
    """Draw the mask of a new run and no other run's, with group and confidence.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    field : str
        Mask field of the run, with the fields that `declare_fields` adds.
    """
    config = dataset.app_config
    active = config.active_fields or fo.DatasetAppConfig.default_active_fields(dataset)
    active.paths = shown_fields(dataset, field, active.paths)
    config.active_fields = active
    _colour(config, field, len(_other_runs(dataset, field)))
    _collapse(dataset, field, [f"{field}{suffix}" for suffix in GROUPED], after=BEFORE)


def show_objects(dataset: Any, field: str, name: str) -> None:
    """Draw the objects of a run, in its colour, with its masks: the App lets people edit only what it draws."""
    config = dataset.app_config
    active = config.active_fields or fo.DatasetAppConfig.default_active_fields(dataset)
    if field in active.paths:
        active.paths = shown_fields(dataset, field, active.paths)
    config.active_fields = active
    scheme = config.color_scheme
    colours = {entry.get("path"): entry.get("fieldColor") for entry in (scheme.fields if scheme else None) or []}
    if field in colours and name not in colours:
        scheme.fields = [*scheme.fields, colour_entry(name, colours[field])]
        config.color_scheme = scheme
    _collapse(dataset, field, [name], after=BEFORE)


def shown_fields(dataset: Any, field: str, active: Iterable[str]) -> list[str]:
    """Return the fields to draw to judge one run's masks: no other masks, group and confidence as captions.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    field : str
        Mask field of the run.
    active : iterable of str
        The drawn fields; those that are no mask and belong to no other run stay.
    """
    hidden = {f"{run}{suffix}" for run in _other_runs(dataset, field) for suffix in (*GROUPED, OBJECTS)}
    for kind in (fo.Segmentation, fo.Heatmap):
        hidden.update(dataset.get_field_schema(embedded_doc_type=kind))
    wanted = (group_field_of(dataset, field), field, f"{field}{OBJECTS}", f"{field}_confidence")
    beside = [path for path in wanted if path and dataset.has_field(path)]
    return [*(path for path in active if path not in hidden and path not in beside), *beside]


def remove_sidebar_group(dataset: Any, name: str) -> None:
    """Remove the sidebar group of a run or an evaluation without fields."""
    dataset._delete_empty_sidebar_group(name)


def collapse_evaluation(dataset: Any, key: str) -> None:
    """Put the image scores of an evaluation into a collapsed sidebar group."""
    _collapse(dataset, key, [name for name in dataset.get_field_schema() if name.startswith(f"{key}_")])


def colour_entry(path: str, colour: str) -> dict[str, Any]:
    """Return one field's entry in a colour scheme, for labels and for masks.

    Examples
    --------
    >>> colour_entry("cosal", "#4c9be8")["fieldColor"]
    '#4c9be8'
    """
    return {"path": path, "fieldColor": colour, "maskTargetsColors": [{"intTarget": FOREGROUND, "color": colour}]}


def _colour(config: Any, field: str, place: int) -> None:
    """Give mask and map a colour if the user's scheme has none for them."""
    scheme = config.color_scheme or fo.ColorScheme(color_by="field")
    present = {entry.get("path"): entry.get("fieldColor") for entry in scheme.fields or []}
    free = [colour for colour in COLOURS if colour not in present.values()]
    colour = present.get(field) or (free or COLOURS)[0 if free else place % len(COLOURS)]
    new = [colour_entry(path, colour) for path in (field, f"{field}_map") if path not in present]
    scheme.fields = [*(scheme.fields or []), *new]
    config.color_scheme = scheme


def _collapse(dataset: Any, name: str, paths: Iterable[str], after: str | None = None) -> None:
    """Put fields into a sidebar group that is collapsed at first; an existing group keeps its state."""
    is_new = not dataset._has_sidebar_group(name)
    present = [path for path in paths if dataset.has_sample_field(path)]
    dataset._add_paths_to_sidebar_group(present, name, after_group=after)
    group = dataset._get_sidebar_group(name)
    if group is not None and (is_new or group.expanded is None):
        group.expanded = False
    dataset.save()


def _other_runs(dataset: Any, field: str) -> list[str]:
    return [name for name in mask_fields(dataset) if name != field and dataset.has_sample_field(f"{name}_status")]


def group_field_of(dataset: Any, field: str) -> str | None:
    """Return the field that a run grouped by; None for the folder, or for masks that no run of ours made."""
    from umscosod.integrations.fiftyone.runs.record import find_run

    name = getattr(find_run(dataset, field), "group_field", None)
    return str(name) if name and dataset.has_field(name) else None


FOREGROUND = 255
"""Pixel value of the object in a mask file; FiftyOne never draws 0."""
TARGETS = {FOREGROUND: "co-salient"}
WRITE_BATCH = 256
"""Samples per database write: an interrupted write keeps all earlier ones."""
MODEL, HUMAN = "model", "human"
"""Provenance of a label."""
REVIEWED = "reviewed"
"""Field of accepted masks; no run writes it."""


def draw_instances(detections: Iterable[Any], size_hw: tuple[int, int]) -> ByteArray:
    """Draw the masks of detections into one 0/255 mask, uint8 (H, W)."""
    mask_HW = np.zeros(size_hw, np.uint8)
    for detection in detections:
        detection.to_segmentation(mask=mask_HW, target=FOREGROUND)  # draws into the given mask
    return mask_HW


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelItem:
    """The label of one sample.

    Attributes
    ----------
    row : Labelled
        Its image's id is the sample's.
    mask_path, map_path : Path or None
        Absolute; None leaves the label unchanged (or clears it, see `write_labels`).
    """

    row: Labelled
    mask_path: Path | None
    map_path: Path | None


def field_names(field: str, *, has_maps: bool = True) -> list[str]:
    """Return the names of all fields of a run.

    Examples
    --------
    >>> field_names("cosal")
    ['cosal', 'cosal_map', 'cosal_confidence', 'cosal_status', 'cosal_reason', 'cosal_review']
    """
    return [field + suffix for suffix in ("", *GROUPED) if has_maps or suffix != "_map"]


def check_name(name: str, what: str = "field name") -> None:
    """Refuse a name that FiftyOne would refuse.

    Raises
    ------
    DataError
    """
    if not name.isidentifier() or name.startswith("_"):
        raise DataError(f"{what} {name!r} must be letters, digits and '_', starting with a letter")


def mask_fields(view: Any) -> list[str]:
    """Return the names of the fields that hold masks, sorted."""
    return sorted(view.get_field_schema(embedded_doc_type=fo.Segmentation))


def check_mask_field(view: Any, field: str, purpose: str) -> None:
    """Refuse a field that holds no masks, and name the fields that do.

    Raises
    ------
    DataError
    """
    names = mask_fields(view)
    if field not in names:
        there = ", ".join(names) or "none"
        raise DataError(f"there is no mask field {field!r} to {purpose}; fields with masks here: {there}")


def check_field(dataset: Any, field: str, *, has_maps: bool = True) -> None:
    """Refuse, before hours of work, a name that FiftyOne would refuse or that belongs to something else.

    Raises
    ------
    DataError
    """
    check_name(field)
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
    """Add missing fields, name the mask's pixel value, and choose the appearance of a new run."""
    is_new = not dataset.has_sample_field(field)
    for name, (kind, document) in _field_types(field, has_maps).items():
        if not dataset.has_sample_field(name):
            dataset.add_sample_field(name, kind, **({"embedded_doc_type": document} if document else {}))
    for attribute in ("provenance", "run"):
        dataset.add_sample_field(f"{field}.{attribute}", fo.StringField)
    if is_new:
        name_pixels(dataset, field)
        show_run(dataset, field)


def name_pixels(dataset: Any, field: str) -> None:
    """Name the pixel value of the object in a mask field."""
    if field not in dataset.mask_targets:
        dataset.mask_targets[field] = dict(TARGETS)
        dataset.save()


def show_masks(dataset: Any, field: str) -> None:
    """Name the pixel value of a mask field and make the field active in the App, which hides dense labels at first."""
    name_pixels(dataset, field)
    active = dataset.app_config.active_fields or fo.DatasetAppConfig.default_active_fields(dataset)
    if field not in active.paths:
        active.paths = [*active.paths, field]
        dataset.app_config.active_fields = active
    dataset.save()


def write_labels(
    dataset: Any,
    field: str,
    items: Iterable[LabelItem],
    *,
    has_maps: bool = True,
    clear_missing: bool = False,
) -> int:
    """Store labels, `WRITE_BATCH` samples a query; each batch is complete before the next begins.

    Labels that are already stored, and labels that a person has changed since, are skipped. So an interrupted write can
    be repeated later without undoing a review.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
        With the fields that `declare_fields` adds.
    field : str
        Name of the mask field and of the run.
    items : iterable of LabelItem
        Items whose files exist. Samples that are no longer in the data set are skipped.
    has_maps : bool
    clear_missing : bool
        Remove the label of an item without a mask: for a failed image an old label would mislead.

    Returns
    -------
    int
        Samples written.

    Raises
    ------
    DataError
        Samples did not store the written values.
    """
    from umscosod.integrations.fiftyone.runs.edits import follow_labels, read_new_edits

    written = 0
    rest = iter(items)
    while batch := list(islice(rest, WRITE_BATCH)):
        read_new_edits(dataset, field, [item.row.image_id for item in batch])  # drawn since the work began
        stored = _read_stored(dataset, field, [item.row.image_id for item in batch])
        due = {
            item.row.image_id: item
            for item in batch
            if item.row.image_id in stored and _is_due(item, *stored[item.row.image_id])
        }
        if clear_missing:  # a status must not outlast the label that it describes
            store_values(dataset, f"{field}_status", dict.fromkeys(due))
        for name, values in _columns(field, due, has_maps, clear_missing).items():
            store_values(dataset, name, values)
        follow_labels(dataset, field, batch, clear_missing=clear_missing)
        written += len(due)
    return written


def _read_stored(dataset: Any, field: str, sample_ids: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Read provenance, mask file, status and confidence of the samples in the data set."""
    paths = ["id", f"{field}.provenance", f"{field}.mask_path", f"{field}_status", f"{field}_confidence"]
    columns = every_sample(dataset).select(sample_ids).values(paths)
    return {id_: tuple(rest) for id_, *rest in zip(*columns, strict=True)}


def _is_due(item: LabelItem, provenance: str | None, mask: str | None, status: str | None, confidence: Any) -> bool:
    """Whether a label must be written; the status is written last, so that with it everything else is stored."""
    wanted = (None if item.mask_path is None else str(item.mask_path), str(item.row.status), item.row.confidence)
    return provenance != HUMAN and (mask, status, confidence) != wanted


def _columns(
    field: str, items: Mapping[str, LabelItem], has_maps: bool, clear_missing: bool
) -> dict[str, dict[str, Any]]:
    """Return values by field and sample; masks last, so that an interrupted batch counts as not labelled."""
    masks: dict[str, Any] = dict.fromkeys(items) if clear_missing else {}
    maps = dict(masks)
    confidences = {id_: item.row.confidence for id_, item in items.items()}
    for id_, item in items.items():
        if item.mask_path is not None:
            provenance = HUMAN if item.row.source == HUMAN else MODEL
            masks[id_] = fo.Segmentation(mask_path=str(item.mask_path), provenance=provenance, run=field)
        if item.map_path is not None:
            maps[id_] = fo.Heatmap(map_path=str(item.map_path))
    return {
        f"{field}_confidence": {id_: None if value is None else float(value) for id_, value in confidences.items()},
        f"{field}_reason": {id_: item.row.reason for id_, item in items.items()},
        **({f"{field}_map": maps} if has_maps else {}),
        field: masks,
        f"{field}_review": dict.fromkeys(items),
        f"{field}_status": {id_: str(item.row.status) for id_, item in items.items()},
    }


def _field_types(field: str, has_maps: bool) -> dict[str, tuple[Any, Any]]:
    """Return name and type of each written field: (field class, embedded class or None)."""
    special = {
        field: (fo.EmbeddedDocumentField, fo.Segmentation),
        f"{field}_map": (fo.EmbeddedDocumentField, fo.Heatmap),
        f"{field}_confidence": (fo.FloatField, None),
    }
    return {name: special.get(name, (fo.StringField, None)) for name in field_names(field, has_maps=has_maps)}
