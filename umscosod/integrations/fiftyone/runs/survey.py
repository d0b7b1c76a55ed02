"""Lists what exists: images and groups of a data set, networks of all data sets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo

from umscosod.errors import CheckpointError, DataError
from umscosod.integrations.fiftyone.runs.fields import REVIEWED
from umscosod.integrations.fiftyone.runs.jobs import flat_images, group_name, group_names_by_folder, value_path
from umscosod.integrations.fiftyone.runs.parts import PartState, list_parts
from umscosod.integrations.fiftyone.runs.record import CoSalRunConfig, find_run

LIKELY_NAMES = (
    *("cosal_group", "group", "class", "cls", "class_name", "category", "subject", "species", "label", "object"),
    *("concept", "topic", "ground_truth"),
)
"""Names of fields that usually describe the content of an image, the most likely first."""
_OF_RUNS = ("_status", "_reason", "_review")
_PER_VALUE = 2  # mean images per value: a field with about one value an image names images, not groups


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """The groups that a run over a collection would form.

    Attributes
    ----------
    group_field : str or None
        None: by folder.
    sizes : dict of str to int
        Number of images by name of group, the largest first.
    ungrouped : int
        Images without a group: a run skips them.
    """

    group_field: str | None
    sizes: dict[str, int]
    ungrouped: int = 0

    @property
    def n_images(self) -> int:
        """Number of images with a group."""
        return sum(self.sizes.values())

    @property
    def n_single(self) -> int:
        """Number of images that are alone in their group."""
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
        Errors of a run: other media than images, no such field, or a field with several values a sample.
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
    """Return the text and Classification fields that may name groups, without those of runs and reviews."""
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
        A text or Classification field with a usual name, at least two values and several images a value. If there is
        none: the only other field of that kind, if all images are in one folder. None: the folder.
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
    counts: Counter[Path] = Counter()
    for folder, count in view.count_values(fo.ViewField("filepath").rsplit(os.sep, 1)[0]).items():
        counts[Path(folder or os.sep)] += count
    return counts


_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A network that a run trained.

    Attributes
    ----------
    dataset, key : str
        The run of the network.
    backbones : tuple of str
        Names of its features, with the hash of their weights.
    created : str
        Start of the run: UTC, ISO 8601.
    n_samples : int
        Samples that the run has processed.
    checkpoint : Path
    """

    dataset: str
    key: str
    backbones: tuple[str, ...]
    created: str
    n_samples: int
    checkpoint: Path

    @property
    def name(self) -> str:
        """``DATASET/KEY``, the form for `predict_dataset`."""
        return f"{self.dataset}/{self.key}"


def list_networks() -> tuple[Network, ...]:
    """List the networks of all data sets with existing files, newest first; two queries, no data set is loaded."""
    networks = [network for network in _recorded({}) if network.checkpoint.is_dir()]
    return tuple(sorted(networks, key=lambda network: (network.created, network.name), reverse=True))


def checkpoint_of(sample_collection: Any, checkpoint: str | Path) -> Path:
    """Find the network of a name or path.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    checkpoint : str or path
        The key of a run of this data set; ``DATASET/KEY`` of another data set; the folder of a run (its newest network
        is used), or a part of it, an output folder, or a checkpoint.

    Returns
    -------
    Path
        A path that holds a checkpoint.

    Raises
    ------
    DataError
        The run has no trained network, or its files are missing.
    CheckpointError
        There is no such network; the message names the existing ones.
    """
    dataset = sample_collection._dataset
    text = str(checkpoint)
    name, _, key = text.rpartition("/") if isinstance(checkpoint, str) else ("", "", "")
    if not name and text.isidentifier() and (run := find_run(dataset, text)) is not None:
        if not run.checkpoint:
            made = f"({run.method}, {run.state})"
            raise DataError(f"the run {text!r} {made} has no trained network; choose one that trained{_others()}")
        return _checked(Path(run.checkpoint), text)
    if name and key.isidentifier():
        for network in _recorded({"key": key}):
            if network.dataset == name:
                return _checked(network.checkpoint, text)
    return _in_folder(Path(checkpoint).expanduser(), text)


def _checked(checkpoint: Path, name: str) -> Path:
    if not checkpoint.is_dir():
        raise DataError(f"the network of {name!r} is gone: there is no folder {checkpoint}; train again{_others()}")
    return checkpoint


def _in_folder(folder: Path, asked: str) -> Path:
    from umscosod.training.checkpoint import find_checkpoint

    for place in (folder, *(part.folder for part in reversed(list_parts(folder)) if part.state is PartState.COMPLETE)):
        try:
            find_checkpoint(place)
        except CheckpointError:
            continue
        return place
    what = "a folder without a checkpoint" if folder.is_dir() else "neither a run of this data set nor a folder"
    raise CheckpointError(f"there is no network {asked!r}: it is {what}{_others()}")


def _others() -> str:
    """Return the existing networks as the end of a message."""
    names = [network.name for network in list_networks()]
    more = ", ..." if len(names) > _SHOWN else ""
    return f"; networks there are: {', '.join(names[:_SHOWN]) or 'none'}{more}"


def _recorded(wanted: Mapping[str, Any]) -> list[Network]:
    """Read the networks from the records of our runs of all data sets, with or without files."""
    database = foo.get_db_conn()
    ours = {"config.cls": f"{CoSalRunConfig.__module__}.{CoSalRunConfig.__name__}"}
    found = list(database.runs.find({**wanted, **ours, "config.checkpoint": {"$gt": ""}}))
    ids = [run["_dataset_id"] for run in found]
    names = {row["_id"]: row["name"] for row in database.datasets.find({"_id": {"$in": ids}}, {"name": True})}
    return [
        Network(
            dataset=names[run["_dataset_id"]],
            key=run["key"],
            backbones=tuple(run["config"]["backbones"]),
            created=run["timestamp"].isoformat(timespec="milliseconds"),
            n_samples=run["config"]["n_samples"],
            checkpoint=Path(run["config"]["checkpoint"]),
        )
        for run in found
        if run["_dataset_id"] in names
    ]
