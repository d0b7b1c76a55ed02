"""Records what a relabelling changes in a data set, so that it can be taken back.

``PART/run/relabelled/NNNN.json`` holds the fields of the samples as they were; it is written before anything changes,
and says at the end that the call is done. A record without that was killed: the next call takes it back. Numbers count
the calls of the run over all its parts; a call has one record, in the first of its parts.

The App's page keeps a file under its name. So labels point to ``PART/run/shown/HASH/OUTPUT``, which never changes: a
link to, or a copy of, the pipeline's file. Deleting the part deletes all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import fiftyone as fo

from umscosod.data.files import open_atomic, read_json
from umscosod.errors import DataError, reason_of
from umscosod.export.folder import path_inside
from umscosod.integrations.fiftyone.review.steering import before_field
from umscosod.integrations.fiftyone.runs.fields import every_sample, store_values
from umscosod.integrations.fiftyone.runs.parts import Part
from umscosod.pipeline import relabel, undo_relabel
from umscosod.types import NAMES

_RECORDS = "run/relabelled"
_STEPS = "run/steps"
_SHOWN = "run/shown"
_NAME = re.compile(r"\d{4,}\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One relabelling of a data set.

    Attributes
    ----------
    file : Path
    is_done : bool
    groups : tuple of str
    steps : dict of str to int
        By the name of a part: the number of its last step in the pipeline before the call.
    ended : dict of str to int
        The same after the call.
    values : dict of str to dict
        By field and sample: the values before, labels as FiftyOne's JSON.
    kept : tuple of str
        Samples whose labels were a person's.
    changed : tuple of str
        Samples whose masks changed.
    """

    file: Path
    is_done: bool = False
    groups: tuple[str, ...] = ()
    steps: Mapping[str, int] = dataclass_field(default_factory=dict)
    ended: Mapping[str, int] = dataclass_field(default_factory=dict)
    values: Mapping[str, Mapping[str, Any]] = dataclass_field(default_factory=dict)
    kept: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """Number of the call."""
        return int(self.file.stem)

    def write(self) -> None:
        """Store the record."""
        content = {name: value for name, value in asdict(self).items() if name != "file"}
        with open_atomic(self.file) as stream:
            stream.write(json.dumps(content).encode("utf-8", NAMES))


def list_records(parts: Iterable[Part]) -> list[Record]:
    """Read the records in some parts, the oldest first."""
    files = [file for part in parts for file in _files(part.folder / _RECORDS)]
    return sorted((_read(file) for file in files), key=lambda record: record.number)


def has_record(parts: Iterable[Part]) -> bool:
    """Whether there is anything to take back."""
    return any(_files(part.folder / _RECORDS) for part in parts)


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if _NAME.fullmatch(file.name)] if folder.is_dir() else []


def _read(file: Path) -> Record:
    content = read_json(file)
    try:
        return Record(
            file=file,
            is_done=bool(content["is_done"]),
            groups=tuple(content["groups"]),
            steps=dict(content["steps"]),
            ended=dict(content["ended"]),
            values=dict(content["values"]),
            kept=tuple(content["kept"]),
            changed=tuple(content["changed"]),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}); move it away: that relabelling cannot be undone then") from error


def begin_record(
    dataset: Any, field: str, parts: Sequence[Part], all_parts: Sequence[Part], groups: Sequence[str], **facts: Any
) -> Record:
    """Note the fields of samples before a call; `facts` are ``ids``, the samples, and ``kept``, see `Record`."""
    number = 1 + max((record.number for record in list_records(all_parts)), default=0)
    record = Record(
        file=parts[0].folder / _RECORDS / f"{number:04}.json",
        groups=tuple(groups),
        steps={part.file.name: last_step(part) for part in parts},
        values=_read_values(dataset, field, facts["ids"]),
        kept=tuple(sorted(facts["kept"])),
    )
    record.write()
    return record


def end_record(record: Record, parts: Sequence[Part], changed: Sequence[str]) -> None:
    """Note that the call is done."""
    ended = {part.file.name: last_step(part) for part in parts}
    replace(record, is_done=True, ended=ended, changed=tuple(changed)).write()


def last_step(part: Part) -> int:
    """Return the number of the last relabelling of a part by the pipeline; 0 if there is none."""
    folder = part.folder / _STEPS
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def take_back(
    dataset: Any, field: str, record: Record, parts: Sequence[Part], find_kept: Callable[[list[str]], set[str]]
) -> list[str]:
    """Undo a call: first the files, then the fields, then its record goes.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    field : str
    record : Record
    parts : sequence of Part
    find_kept : callable
        Gives those of some samples that are a person's now; those that were not before the call are left alone.

    Returns
    -------
    list of str
        The samples that a person took meanwhile.

    Raises
    ------
    DataError
        A part was relabelled since, outside the data set.
    """
    there = {part.file.name: part for part in parts}
    for name, ended in record.ended.items():
        if record.is_done and name in there and last_step(there[name]) > ended:
            raise DataError(
                f"{there[name].folder} was relabelled since by the command line; "
                f"take that back first: umscosod steer {there[name].folder} --undo"
            )
    if record.is_done:  # killed from here on, it is taken back by the next call
        record = replace(record, is_done=False)
        record.write()
    for name, before in record.steps.items():
        if name in there:
            _rewind(there[name], before)
    ids = list(record.values[field])
    present = set(every_sample(dataset).select(ids).values("id"))
    taken = find_kept(sorted(present)) - set(record.kept)
    for path in _restore_order(field, record.values):
        values = {id_: value for id_, value in record.values[path].items() if id_ in present - taken}
        store_values(dataset, path, {id_: _from_json(value) for id_, value in values.items()})
    record.file.unlink()
    return sorted(taken)


def _rewind(part: Part, number: int) -> None:
    while (last := last_step(part)) > number:
        if (part.folder / _STEPS / f"{last:04}" / "done").is_file():
            undo_relabel(part.folder)
        else:
            relabel(part.folder, {}, groups=())  # takes back what was killed, and does nothing else


def columns_of(field: str) -> list[str]:
    """Return the fields that a relabelling writes."""
    endings = ("_confidence", "_reason", "_map", "", "_review", "_status")
    return [*(f"{field}{ending}" for ending in endings), before_field(field)]


def _restore_order(field: str, values: Mapping[str, Any]) -> list[str]:
    return [path for path in columns_of(field) if path in values]


def _read_values(dataset: Any, field: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    paths = [path for path in columns_of(field) if dataset.has_sample_field(path)]
    found, *columns = every_sample(dataset).select(list(ids)).values(["id", *paths])
    return {
        path: {id_: _to_json(value) for id_, value in zip(found, column, strict=True)}
        for path, column in zip(paths, columns, strict=True)
    }


def _to_json(value: Any) -> Any:
    return json.loads(value.to_json()) if hasattr(value, "to_json") else value


def _from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kinds = {"Segmentation": fo.Segmentation, "Heatmap": fo.Heatmap}
    return kinds[value["_cls"]].from_dict(value, extended=True)


def show_file(part: Part, file: Path, output: str) -> Path:
    """Return a file of the same content whose name no other content ever has."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    target = path_inside(part.folder, f"{_SHOWN}/{sha256[:12]}/{output}")
    if target.is_file():
        return target
    draft = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, draft)  # the pipeline replaces its files, it never writes into them
        except OSError:
            shutil.copyfile(file, draft)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise DataError(f"cannot write {target}: {reason_of(error)}; check the folder and the disk") from error
    return target
