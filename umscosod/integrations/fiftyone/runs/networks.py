"""Trained networks: those of every data set of the database, and the one that a name or a folder means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umscosod.errors import CheckpointError, DataError
from umscosod.integrations.fiftyone.runs.parts import PartState, list_parts
from umscosod.integrations.fiftyone.runs.record import CoSalRunConfig, find_run

_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A network that a run trained.

    Attributes
    ----------
    dataset, key : str
        The run it comes from.
    backbones : tuple of str
        Names of the features that it needs, with the hash of their weights.
    created : str
        When the run was begun: UTC, ISO 8601.
    n_samples : int
        Samples that the run has looked at.
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
        """``DATASET/KEY``, as `predict_dataset` takes it."""
        return f"{self.dataset}/{self.key}"


def list_networks() -> tuple[Network, ...]:
    """List the networks of all data sets whose files are there, newest first; two queries, no data set is loaded."""
    networks = [network for network in _recorded({}) if network.checkpoint.is_dir()]
    return tuple(sorted(networks, key=lambda network: (network.created, network.name), reverse=True))


def checkpoint_of(sample_collection: Any, checkpoint: str | Path) -> Path:
    """Find the network that is meant.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    checkpoint : str or path
        The key of a run of this data set; ``DATASET/KEY`` of another; the folder of a run, whose newest network is
        taken; or a part of it, an output folder, or a checkpoint.

    Returns
    -------
    Path
        Something that holds a checkpoint.

    Raises
    ------
    DataError
        The run has no trained network, or its files are gone.
    CheckpointError
        There is no such network; the message names those there are.
    """
    dataset = sample_collection._dataset
    text = str(checkpoint)
    name, _, key = text.rpartition("/") if isinstance(checkpoint, str) else ("", "", "")
    if not name and text.isidentifier() and (run := find_run(dataset, text)) is not None:
        return _of_run(run, text)
    if name and key.isidentifier():
        for network in _recorded({"key": key}):
            if network.dataset == name:
                return _checked(network.checkpoint, text)
    return _in_folder(Path(checkpoint).expanduser(), text)


def _of_run(run: CoSalRunConfig, key: str) -> Path:
    if not run.checkpoint:
        raise DataError(
            f"the run {key!r} ({run.method}, {run.state}) has no trained network; choose one that trained{_others()}"
        )
    return _checked(Path(run.checkpoint), key)


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
    """The networks there are, to end a message with."""
    names = [network.name for network in list_networks()]
    more = ", ..." if len(names) > _SHOWN else ""
    return f"; networks there are: {', '.join(names[:_SHOWN]) or 'none'}{more}"


def _recorded(wanted: Mapping[str, Any]) -> list[Network]:
    """Networks in the records of our runs of all data sets, whether their files are there or not."""
    import fiftyone.core.odm as foo

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
            created=run["timestamp"].isoformat(timespec="seconds"),
            n_samples=run["config"]["n_samples"],
            checkpoint=Path(run["config"]["checkpoint"]),
        )
        for run in found
        if run["_dataset_id"] in names
    ]
