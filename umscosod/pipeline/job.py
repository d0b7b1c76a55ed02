"""The output folder as a job that can be killed at any moment and resumed.

``OUT/run/job.json`` says what the folder holds results of; ``OUT/run/groups/*.json`` holds the rows of each finished
group and appears after that group's masks and maps; ``OUT/run/finished.json`` appears last, with all rows and what
they were made from; ``OUT/run/outputs.json`` lists the pictures that the job may write,
and an ``overwrite`` removes no others; ``OUT/run/maps/*.safetensors`` are soft maps waiting for refinement and go when
the job is complete. A job that was killed while it cleared an earlier one away says so in ``job.json`` and clears
again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from umscosod.confidence.judge import GroupJudgement
from umscosod.config.io import iter_differences
from umscosod.data.files import (
    GUARDED,
    JOB_FILE,
    OWN_FILES,
    OWN_FOLDERS,
    describe_damage,
    is_job_record,
    is_leftover,
    open_atomic,
    read_json,
    remove_leftovers,
    remove_listed,
    thumb_names,
)
from umscosod.errors import DataError, OtherResultsError
from umscosod.export.report import build_row
from umscosod.features.group import Whitening
from umscosod.pipeline.identity import FINISHED, are_whole, read_sizes
from umscosod.types import NAMES, FloatArray, GroupFeatures, ImageGroup, ImageRef, Labelled, check_relative

SCHEMA = 1
_OUTPUTS, _COLLECTION = "outputs.json", "collection.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """What all groups of a job share.

    Attributes
    ----------
    groups : tuple of ImageGroup
        As asked for, unusable images included.
    whitenings : mapping of str to Whitening
        By stream.
    b_bar : float
        Mean uncertainty of the maps (eq. 6).
    backbone_ids : (str, str)
    """

    groups: tuple[ImageGroup, ...]
    whitenings: Mapping[str, Whitening]
    b_bar: float
    backbone_ids: tuple[str, str]


class JobFolder:
    """One output folder.

    Parameters
    ----------
    out : Path
        Made if missing.
    settings : mapping
        What decides the results: configuration, mode, backbones, checkpoint; plain JSON values.
    overwrite : bool
        Start anew where the folder holds results of an earlier job, of whatever settings.
    writes : bool
        Off: another process has opened this very job and writes it; nothing is written, what is bound is compared.

    Raises
    ------
    DataError
        The folder cannot be made, holds somebody else's files under our names, or results of other settings; or the
        other process's job is not there.
    """

    @classmethod
    def reopen(cls, out: Path) -> JobFolder:
        """Open a job with the settings that it has.

        Raises
        ------
        DataError
            There is none.
        """
        content: dict[str, Any] = read_json(out / JOB_FILE) if (out / JOB_FILE).is_file() else {}
        if not is_job_record(content):
            raise DataError(f"{out} holds no result of this program; give an output folder of 'umscosod label'")
        settings = {name: value for name, value in content["settings"].items() if name != "schema"}
        return cls(out, settings, overwrite=False)

    def __init__(self, out: Path, settings: Mapping[str, Any], *, overwrite: bool, writes: bool = True) -> None:
        self._writes = writes
        self.out, self.run = out, out / "run"
        self._file = out / JOB_FILE
        self._settings: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA, **settings}))
        self._bound: dict[str, str] = {}
        self._refuse_links()
        saved = self._read()
        if saved is None:
            self._refuse_foreign()
        elif not overwrite:
            changed = iter_differences(saved["settings"], self._settings)
            self._refuse_other("settings", [f"{name}: was {before!r}, now {now!r}" for name, before, now in changed])
        if not writes:
            self._follow(saved)
            return
        if saved is not None and (overwrite or saved.get("is_clearing")):
            self._write(is_clearing=True)
            self._clear()
        elif saved is not None:
            self._bound = saved["bound"]
        self._sweep()
        self._write()

    def _follow(self, saved: dict[str, Any] | None) -> None:
        """Take over what the process that writes has bound."""
        if saved is None:
            raise DataError(
                f"{self._file} of the first process cannot be found here; all processes must see the same folders: "
                "choose an --out that they share"
            )
        self._bound = saved["bound"]

    def bind_images(self, groups: Sequence[ImageGroup], sha256: Mapping[str, str]) -> None:
        """Tie the job to its images: names, order, groups and content.

        Raises
        ------
        DataError
            The folder holds results of other images.
        """
        listing = [[group.name, image.id, sha256.get(image.id, "")] for group in groups for image in group.images]
        digest = hashlib.sha256(json.dumps(listing).encode("utf-8", "surrogatepass")).hexdigest()
        self._bind("images", digest, "files were added, removed, renamed or changed since")
        if not self._writes:
            return
        outputs = [image.output for group in groups for image in group.images]
        with open_atomic(self.run / _OUTPUTS) as stream:  # before the first of them is written
            stream.write(json.dumps(outputs).encode())

    def bind_detections(self, digest: str) -> None:
        """Tie the job to the file of its instance masks, by a hash of the content: it may move.

        Raises
        ------
        DataError
            The folder holds results of other detections.
        """
        self._bind("detections", digest, "the file of pseudo.detections was edited, or another one was given")

    def bind_labels(self, digest: str) -> None:
        """Tie the job to its pseudo-labels, by a hash of them all.

        Raises
        ------
        DataError
            The folder holds results of other pseudo-labels.
        """
        self._bind("pseudo-labels", digest, "masks were replaced or removed since")

    def bind_maps(self, digest: str) -> None:
        """Tie the job to the stored maps it refines, by a hash of them all.

        Raises
        ------
        DataError
            The folder holds results of other maps.
        """
        self._bind("stored maps", digest, "files were added, removed or changed since")

    def load_rows(self, group: ImageGroup) -> list[Labelled] | None:
        """Rows of a finished group whose files are all there and whole; None if it must be done (again).

        See `umscosod.pipeline.identity.are_whole`.
        """
        try:
            rows = [build_row(row) for row in read_json(self._rows_file(group))]
        except (DataError, TypeError, AttributeError):
            return None
        named = [(row.image_id, row.group, row.output) for row in rows]
        if named != [(image.id, group.name, image.output) for image in group.images]:
            return None
        sizes_hw = read_sizes(group.images)
        return rows if sizes_hw is not None and are_whole(self.out, rows, sizes_hw) else None

    def check_seen(self) -> None:
        """Refuse to work where the folder of the job is not: on a machine that shares no storage with the driver.

        Raises
        ------
        DataError
        """
        if not self._file.is_file():
            raise DataError(
                f"{self._file} is not seen on {platform.node()}; choose an --out on the storage that all machines share"
            )

    def drop_rows(self, group: ImageGroup) -> None:
        """Mark a group as unfinished: its files are about to change."""
        self._rows_file(group).unlink(missing_ok=True)
        (self.run / FINISHED).unlink(missing_ok=True)

    def save_rows(self, group: ImageGroup, rows: Sequence[Labelled]) -> None:
        """Mark a group as finished; call it after its files are written."""
        with open_atomic(self._rows_file(group)) as stream:
            stream.write(json.dumps([asdict(row) for row in rows]).encode())

    def save_cues(self, features: GroupFeatures, judged: GroupJudgement) -> None:
        """Keep what a group's confidences were made of, for people and for a new calibration."""
        content = {
            "group": features.group.name,
            "kind": "whitened" if features.first.is_whitened else "plain",
            "outputs": [image.output for image in features.group.images],
            "group_cues": judged.cues,
            "mask_cues": [one.cues for one in judged.masks],
        }
        with open_atomic(self.run / "cues" / f"{_short(features.group.name)}.json") as stream:
            stream.write(json.dumps(content, indent=1).encode())

    def load_maps(self, group: ImageGroup) -> FloatArray | None:
        """Soft maps of a group stored by `save_maps`, float32, (N, H, W); None if absent or damaged."""
        file = self._maps_file(group)
        try:
            maps_NHW = load_file(file)["maps"].astype(np.float32) if file.is_file() else None
        except (OSError, SafetensorError, KeyError):
            return None
        is_whole = maps_NHW is not None and maps_NHW.ndim == 3 and len(maps_NHW) == len(group.images)
        return maps_NHW if is_whole else None

    def save_maps(self, group: ImageGroup, maps_NHW: FloatArray) -> FloatArray:
        """Store a group's soft maps at network size until they are refined; give them as stored: rounded to float16."""
        stored_NHW = np.ascontiguousarray(maps_NHW, np.float16)
        with open_atomic(self._maps_file(group)) as stream:
            stream.write(save({"maps": stored_NHW}))
        return stored_NHW.astype(np.float32)

    def save_collection(self, collection: Collection) -> None:
        """Keep what steering needs, so that it need not look at the other groups."""
        content = {
            "b_bar": collection.b_bar,
            "backbones": list(collection.backbone_ids),
            "whitenings": {stream: one.to_json() for stream, one in collection.whitenings.items()},
            "images": [
                [group.name, image.id, os.fspath(image.path), image.output]
                for group in collection.groups
                for image in group.images
            ],
        }
        with open_atomic(self.run / _COLLECTION) as stream:
            stream.write(json.dumps(content).encode("utf-8", NAMES))

    def load_collection(self) -> Collection:
        """Read what `save_collection` kept.

        Raises
        ------
        DataError
            The job is of an earlier version, or a file is damaged.
        """
        file = self.run / _COLLECTION
        again = "label again with --overwrite"
        if not file.is_file():
            raise DataError(
                f"{self.out} holds no {file.name}: its job is not finished, or of an earlier version; {again}"
            )
        try:
            content = json.loads(file.read_bytes().decode("utf-8", NAMES))
            groups: dict[str, list[ImageRef]] = {}
            for name, image_id, path, output in content["images"]:
                groups.setdefault(name, []).append(ImageRef(id=image_id, path=Path(path), output=output))
            first, second = (str(one) for one in content["backbones"])
            return Collection(
                groups=tuple(ImageGroup(name=name, images=tuple(images)) for name, images in groups.items()),
                whitenings={stream: Whitening.from_json(one) for stream, one in content["whitenings"].items()},
                b_bar=float(content["b_bar"]),
                backbone_ids=(first, second),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{file} is damaged ({describe_damage(error)}); {again}") from error

    def finish(self) -> None:
        """Drop what only a killed job would need."""
        shutil.rmtree(self.run / "maps", ignore_errors=True)

    def _rows_file(self, group: ImageGroup) -> Path:
        return self.run / "groups" / f"{_short(group.name)}.json"

    def _maps_file(self, group: ImageGroup) -> Path:
        return self.run / "maps" / f"{_short(group.name)}.safetensors"

    def _read(self) -> dict[str, Any] | None:
        if not os.path.lexists(self._file):
            return None
        advice = f"choose another --out, or move {self.out} away"
        try:
            content: dict[str, Any] = read_json(self._file)
        except DataError as error:
            raise DataError(f"{error}; {advice}") from error
        if not is_job_record(content):
            raise DataError(f"{self._file}: is no job of this program; {advice}")
        bound = content["bound"]
        if not all(isinstance(digest, str) for digest in bound.values()):
            raise DataError(f"{self._file}: is damaged (what it is bound to is no text); {advice}")
        return content

    def _bind(self, what: str, digest: str, change: str) -> None:
        if self._bound.get(what, digest) != digest:
            self._refuse_other(what, [change])
        self._bound[what] = digest
        if self._writes:
            self._write()

    def _write(self, *, is_clearing: bool = False) -> None:
        content = {"settings": self._settings, "bound": self._bound, "is_clearing": is_clearing}
        with open_atomic(self._file) as stream:
            stream.write(json.dumps(content, indent=1, sort_keys=True).encode())

    def _refuse_links(self) -> None:
        """Nothing is ever written or removed through a link: said now, not when the first mask is to be written."""
        for name in (*OWN_FOLDERS, "pseudo"):
            if (self.out / name).is_symlink():
                raise DataError(f"{self.out / name} is a link; remove it or choose another --out")

    def _refuse_foreign(self) -> None:
        present = [name for name in GUARDED if _holds_anything(self.out / name)]
        if present:
            raise DataError(
                f"{self.out} holds {', '.join(present)}, which this program did not write; choose another --out"
            )

    def _refuse_other(self, what: str, differences: Sequence[str]) -> None:
        lines = "".join(f"\n  {line}" for line in differences)
        if differences:
            raise OtherResultsError(
                f"{self.out} holds results of other {what}:{lines}\n"
                "Choose another --out, or pass --overwrite to replace them"
            )

    def _clear(self) -> None:
        """Remove an earlier job's results, those it has recorded: other files stay, and so does all behind a link.

        ``job.json`` stays, or the rest would pass for somebody else's; the list of outputs goes last but for it.
        """
        try:
            remove_listed(self.out, [*OWN_FILES, *self._recorded_outputs()])
            for path in sorted(self.run.iterdir(), key=lambda path: path.name == _OUTPUTS):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path != self._file:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"cannot clear {self.out}: {error}; check its owner or choose another --out") from error

    def _recorded_outputs(self) -> Iterator[str]:
        """Names, below the output folder, of every picture that the earlier job may have written."""
        listed = self.run / _OUTPUTS
        if not listed.exists() and not any(_holds_anything(self.out / tree) for tree in ("masks", "maps", "thumbs")):
            return
        try:
            outputs = [str(output) for output in list(read_json(listed))]
            for output in outputs:
                check_relative(output, "output name")
        except (DataError, TypeError) as error:
            why = f"{listed} does not say what an earlier job wrote ({error})"
            raise DataError(f"cannot clear {self.out}: {why}; choose another --out, or move {self.out} away") from error
        for output in outputs:
            yield from (f"masks/{output}", f"maps/{output}")
            yield from thumb_names(output)

    def _sweep(self) -> None:
        """Remove what killed writers left."""
        for name in (*OWN_FOLDERS, "pseudo"):
            remove_leftovers(self.out / name)
        for path in self.out.glob(".*.tmp"):
            if is_leftover(path.name):
                path.unlink(missing_ok=True)


def _holds_anything(path: Path) -> bool:
    """Whether there is a file, or a folder with more in it than a killed writer leaves."""
    if path.is_dir():
        return any(not is_leftover(entry.name) for entry in path.iterdir())
    return path.exists()


def _short(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]
