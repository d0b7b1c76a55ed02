"""How a collection falls into groups, and which field names them: counted by the database, no sample is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umscosod.integrations.fiftyone.runs.fields import REVIEWED
from umscosod.integrations.fiftyone.runs.rows import flat_images, group_name, group_names_by_folder, value_path

LIKELY_NAMES = (
    *("cosal_group", "group", "class", "cls", "class_name", "category", "subject", "species", "label", "object"),
    *("concept", "topic", "ground_truth"),
)
"""Names of fields that usually say what an image shows, the surest first."""
_OF_RUNS = ("_status", "_reason", "_review")
_PER_VALUE = 2  # images, on average: a field with about one value an image names images, not groups


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a run over a collection would find.

    Attributes
    ----------
    group_field : str or None
        None: by folder.
    sizes : dict of str to int
        Images by name of group, the largest first.
    ungrouped : int
        Images without a group: a run leaves them alone.
    """

    group_field: str | None
    sizes: dict[str, int]
    ungrouped: int = 0

    @property
    def n_images(self) -> int:
        """Images with a group."""
        return sum(self.sizes.values())

    @property
    def n_single(self) -> int:
        """Images that are alone in their group."""
        return sum(size == 1 for size in self.sizes.values())


def survey(sample_collection: Any, group_field: str | None = None) -> Survey:
    """Count the groups that a run would form.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
        An image data set or view. A ``group_by()`` view is flattened.
    group_field : str, optional
        None: the folder.

    Raises
    ------
    DataError
        What a run would refuse: other media than images, no such field, or one with several values a sample.
    """
    view = flat_images(sample_collection)
    counts: Counter[str] = Counter()
    if group_field:
        for value, count in view.count_values(value_path(view, group_field)).items():
            counts[group_name(value)] += count
    else:
        folders = _count_folders(view)
        names = group_names_by_folder(folder / "image" for folder in folders)
        for folder, count in folders.items():
            counts[names[folder / "image"]] += count
    ungrouped = counts.pop("", 0)
    return Survey(group_field=group_field, sizes=dict(counts.most_common()), ungrouped=ungrouped)


def group_fields(sample_collection: Any) -> list[str]:
    """Text and Classification fields that may name groups, by name; not those that runs and reviews write."""
    import fiftyone as fo

    masks = sample_collection.get_field_schema(embedded_doc_type=fo.Segmentation)
    ours = {f"{field}{suffix}" for field in masks for suffix in _OF_RUNS}
    names = {
        *sample_collection.get_field_schema(ftype=fo.StringField),
        *sample_collection.get_field_schema(embedded_doc_type=fo.Classification),
    }
    return sorted(name for name in names - ours - {"filepath"} if not name.startswith(f"{REVIEWED}."))


def likely_group_field(sample_collection: Any) -> str | None:
    """Find the field that most likely names the groups.

    Returns
    -------
    str or None
        A text or Classification field of a usual name with two values or more and several images a value. Without
        one of a usual name: the only other field of that kind, if all images lie in one folder. None: the folder.
    """
    view = flat_images(sample_collection)
    names = group_fields(view)
    usual = [name for likely in LIKELY_NAMES for name in names if name.lower() == likely]
    for name in usual:
        if _names_groups(survey(view, name)):
            return name
    if len(_count_folders(view)) > 1:
        return None
    others = [name for name in names if name not in usual and _names_groups(survey(view, name))]
    return others[0] if len(others) == 1 else None


def _names_groups(found: Survey) -> bool:
    return len(found.sizes) > 1 and found.n_images >= _PER_VALUE * len(found.sizes)


def _count_folders(view: Any) -> Mapping[Path, int]:
    from fiftyone import ViewField

    counts: Counter[Path] = Counter()
    for folder, count in view.count_values(ViewField("filepath").rsplit(os.sep, 1)[0]).items():
        counts[Path(folder or os.sep)] += count
    return counts
