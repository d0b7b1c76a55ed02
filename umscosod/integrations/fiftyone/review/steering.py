"""A person's examples for a run: kept in ``<field>_example``, where curators see them, and read for `relabel`.

``example`` says that a person's mask of the sample shows the whole object. ``not`` says that the mask that the run had
then is not the object; a copy of it lies in the folder of the sample's part, since relabelling changes the mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

from umscosod.data.files import open_atomic
from umscosod.data.masks import encode_png, read_mask
from umscosod.errors import DataError
from umscosod.export.folder import path_inside
from umscosod.integrations.fiftyone.review.decide import accept_masks
from umscosod.integrations.fiftyone.runs.edits import read_new_edits
from umscosod.integrations.fiftyone.runs.fields import (
    FOREGROUND,
    HUMAN,
    REVIEWED,
    colour_entry,
    every_sample,
    name_pixels,
    store_values,
)
from umscosod.integrations.fiftyone.runs.jobs import flat_images
from umscosod.integrations.fiftyone.runs.parts import Part, PartState, list_parts
from umscosod.integrations.fiftyone.runs.record import CoSalRunConfig, find_run, get_run, update_run
from umscosod.types import BoolArray

EXAMPLE, NOT = "example", "not"
"""Values of ``<field>_example``."""
NOT_FOLDER = "run/not"
"""Folder in a part, with copies of the masks that are not the object."""
BEFORE_COLOUR = "#b0b8c1"


def example_field(field: str) -> str:
    """Return the field of the examples of a run."""
    return f"{field}_example"


def before_field(field: str) -> str:
    """Return the field of the masks as they were before the last relabelling."""
    return f"{field}_before"


def mask_of_person(sample: Any, field: str) -> BoolArray | None:
    """Return the mask that a person made or accepted of a sample.

    Parameters
    ----------
    sample : fiftyone.core.sample.Sample or SampleView
    field : str
        Mask field of the run.

    Returns
    -------
    ndarray, bool, (H, W), or None
        None if there is none.

    Raises
    ------
    DataError
        Its file cannot be read.
    """
    reviewed = sample[REVIEWED] if sample.has_field(REVIEWED) else None
    own = sample[field]
    for label in (reviewed, own if own is not None and _attribute(own, "provenance") == HUMAN else None):
        if label is None:
            continue
        if label.mask_path:
            return read_mask(Path(label.mask_path))
        if label.mask is not None:
            return np.asarray(label.mask) > 0
    return None


def _attribute(label: Any, name: str) -> Any:
    return label[name] if label.has_field(name) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkReport:
    """Outcome of marking examples.

    Attributes
    ----------
    field : str
    marked : int
        Samples that have the mark now.
    word : str
        What they are now, for people.
    accepted : int
        Masks that were accepted with it.
    skipped : tuple of (str, str)
        Sample id and reason of samples without the mark.
    """

    field: str
    marked: int
    word: str
    accepted: int = 0
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def summary(self) -> str:
        """One sentence for people.

        Examples
        --------
        >>> MarkReport(field="cosal", marked=1, word="used as example", accepted=1).summary
        'cosal: 1 used as example (1 accepted with it)'
        """
        text = f"{self.field}: {self.marked} {self.word}"
        if self.accepted:
            text += f" ({self.accepted} accepted with it)"
        if self.skipped:
            text += f"; {len(self.skipped)} not: {self.skipped[0][1]}"
        return text

    @property
    def is_success(self) -> bool:
        """Whether any sample was marked."""
        return self.marked > 0


def use_as_example(sample_collection: Any, field: str, *, ids: Iterable[str] | None = None) -> MarkReport:
    """Mark masks as examples for `relabel_dataset`; a mask that nobody accepted or made is accepted with it.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    field : str
        Name of the run.
    ids : iterable of str, optional
        Only these samples of the collection.

    Returns
    -------
    MarkReport

    Raises
    ------
    DataError
        There are no samples or no such run, or a file cannot be written.
    """
    dataset, samples, parts = _open(sample_collection, field, ids)
    skipped = [(sample.id, _OUTSIDE) for sample in samples if part_of(parts, sample.id) is None]
    outside = {sample_id for sample_id, _ in skipped}
    bare = [s.id for s in samples if s.id not in outside and mask_of_person(s, field) is None]
    accepted = accept_masks(every_sample(dataset), field, ids=bare) if bare else None
    refused = dict(accepted.skipped) if accepted is not None else {}
    marked = [s.id for s in samples if s.id not in outside and s.id not in refused]
    _forget_copies(parts, marked)
    store_values(dataset, example_field(field), dict.fromkeys(marked, EXAMPLE))
    return MarkReport(
        field=field,
        marked=len(marked),
        word="used as example" if len(marked) == 1 else "used as examples",
        accepted=accepted.accepted if accepted is not None else 0,
        skipped=(*skipped, *refused.items()),
    )


_OUTSIDE = "no finished part of the run holds it; label it first"


def mark_not_this(sample_collection: Any, field: str, *, ids: Iterable[str] | None = None) -> MarkReport:
    """Mark the masks that a run has now as not the object, for `relabel_dataset`.

    Regions add up: what was marked before in a sample is still not the object. A rejection is taken back, as the sample
    is to be labelled anew. Parameters, errors and report as in `use_as_example`.
    """
    dataset, samples, parts = _open(sample_collection, field, ids)
    skipped: list[tuple[str, str]] = []
    marked: list[str] = []
    for sample in samples:
        try:
            _keep_not(sample, field, parts)
        except DataError as error:
            skipped.append((sample.id, str(error)))
        else:
            marked.append(sample.id)
    store_values(dataset, f"{field}_review", dict.fromkeys(marked))
    store_values(dataset, example_field(field), dict.fromkeys(marked, NOT))
    return MarkReport(field=field, marked=len(marked), word="not the object", skipped=tuple(skipped))


def _keep_not(sample: Any, field: str, parts: Sequence[Part]) -> None:
    part, label = part_of(parts, sample.id), sample[field]
    if part is None:
        raise DataError(_OUTSIDE)
    if mask_of_person(sample, field) is not None:
        raise DataError("a person accepted or made its mask; undo that first")
    if label is None or not label.mask_path:
        raise DataError("it has no mask")
    not_HW = read_mask(Path(label.mask_path))
    if not not_HW.any():
        raise DataError("its mask is empty: mark what is the object in another image")
    target = not_file(part, sample.id)
    if (earlier := find_not(parts, sample.id)) is not None:
        not_HW = not_HW | read_mask(earlier)
    with open_atomic(target) as stream:
        stream.write(encode_png(not_HW.astype(np.uint8) * FOREGROUND))


def forget_examples(sample_collection: Any, field: str, *, ids: Iterable[str] | None = None) -> MarkReport:
    """Remove the marks of examples; decisions stay. Parameters, errors and report as in `use_as_example`."""
    dataset, samples, parts = _open(sample_collection, field, ids)
    marked = [sample.id for sample in samples if sample[example_field(field)]]
    store_values(dataset, example_field(field), dict.fromkeys(marked))
    _forget_copies(parts, marked)
    return MarkReport(field=field, marked=len(marked), word="no example any more")


def _forget_copies(parts: Sequence[Part], ids: Iterable[str]) -> None:
    for sample_id in ids:
        while (file := find_not(parts, sample_id)) is not None:
            file.unlink()


def _open(sample_collection: Any, field: str, ids: Iterable[str] | None) -> tuple[Any, list[Any], list[Part]]:
    """Return the data set, the samples and the run's parts; the fields of examples exist then."""
    view = flat_images(sample_collection)
    dataset = view._dataset  # a view has no public access to its data set
    config = run_of(dataset, field)
    declare_steering(dataset, field, config)
    read_new_edits(dataset, field)  # a mask that was just edited is a person's
    if ids is not None:
        view = view.select(list(ids))
    chosen = view.values("id")
    if not chosen:
        raise DataError("there are no samples to mark; select some")
    return dataset, list(every_sample(dataset).select(chosen)), finished_parts(config)


def run_of(dataset: Any, field: str) -> CoSalRunConfig:
    """Return the record of a run.

    Raises
    ------
    DataError
        There is no such run, or it has no maps to correct.
    """
    config = find_run(dataset, field)
    if config is None:
        get_run(dataset, field)  # says which runs there are
    assert config is not None
    if not getattr(config, "has_maps", False) or config.method not in _WITH_JOBS:
        raise DataError(f"the run {field!r} cannot be corrected by examples; use a run of label or predict")
    return config


_WITH_JOBS = ("umscosod/label", "umscosod/predict")


def declare_steering(dataset: Any, field: str, config: CoSalRunConfig) -> bool:
    """Add the fields of examples and of the masks before, and note them as the run's; return whether they are new."""
    names = (example_field(field), before_field(field))
    if set(names) <= set(config.fields) and all(dataset.has_sample_field(name) for name in names):
        return False
    kinds = {names[0]: fo.StringField, names[1]: fo.EmbeddedDocumentField}
    for name, kind in kinds.items():
        found = dataset.get_field(name)
        if found is not None and (not isinstance(found, kind) or name not in config.fields):
            raise DataError(f"the field {name!r} is in use for something else; rename it first")
    update_run(dataset, field, config, fields=[*config.fields, *(n for n in names if n not in config.fields)])
    if not dataset.has_sample_field(names[0]):
        dataset.add_sample_field(names[0], fo.StringField)
    if not dataset.has_sample_field(names[1]):
        dataset.add_sample_field(names[1], fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
    name_pixels(dataset, names[1])
    scheme = dataset.app_config.color_scheme or fo.ColorScheme(color_by="field")
    if names[1] not in [entry.get("path") for entry in scheme.fields or []]:
        scheme.fields = [*(scheme.fields or []), colour_entry(names[1], BEFORE_COLOUR)]
        dataset.app_config.color_scheme = scheme
    dataset._add_paths_to_sidebar_group(list(names), field)
    dataset.save()
    return True


def finished_parts(config: CoSalRunConfig) -> list[Part]:
    """Return the finished parts of a run, the newest first."""
    parts = list_parts(Path(config.folder), config.run_id)
    return [part for part in reversed(parts) if part.state is PartState.COMPLETE]


def part_of(parts: Iterable[Part], sample_id: str) -> Part | None:
    """Return the first part that holds a sample."""
    return next((part for part in parts if sample_id in part.sample_ids), None)


def groups_of(dataset: Any, field: str, ids: Iterable[str]) -> list[str]:
    """Return the names of the groups of some samples, as the run has them; none for samples outside it."""
    wanted = set(ids)
    groups = (group for part in finished_parts(run_of(dataset, field)) for group in part.groups)
    return list(dict.fromkeys(g.name for g in groups if any(image.id in wanted for image in g.images)))


def can_steer(dataset: Any, field: str) -> bool:
    """Whether examples can correct a run."""
    config = find_run(dataset, field)
    return config is not None and config.method in _WITH_JOBS


def ids_of_group(dataset: Any, field: str, name: str) -> set[str]:
    """Return the samples of a group, as the run has it."""
    parts = finished_parts(run_of(dataset, field))
    return {image.id for part in parts for group in part.groups if group.name == name for image in group.images}


def not_file(part: Part, sample_id: str) -> Path:
    """Return the place of the copy of a mask that is not the object."""
    output = next(image.output for group in part.groups for image in group.images if image.id == sample_id)
    return path_inside(part.folder, f"{NOT_FOLDER}/{output}")


def find_not(parts: Iterable[Part], sample_id: str) -> Path | None:
    """Return the copy of a sample's mask that is not the object; None if there is none."""
    files = (not_file(part, sample_id) for part in parts if sample_id in part.sample_ids)
    return next((file for file in files if file.is_file()), None)
