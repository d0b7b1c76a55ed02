"""The output folder as a job that can be killed at any moment and taken up again.

``OUT/run/job.json`` says what the folder holds results of; ``OUT/run/groups/*.json`` holds the rows of each finished
group and appears after that group's masks and maps; ``OUT/run/maps/*.safetensors`` are soft maps waiting for
refinement and go when the job is complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from umscosod.data.files import open_atomic
from umscosod.errors import DataError
from umscosod.types import FloatArray, ImageGroup, Labelled, Status

SCHEMA = 1
OWN_FOLDERS = ("masks", "maps", "thumbs", "run")
"""What ``overwrite`` removes; ``pseudo`` is rewritten file by file, as a person may have put masks there."""
OWN_FILES = ("report.json", "index.html")
_GUARDED = (*OWN_FOLDERS, "pseudo", *OWN_FILES)


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

    Raises
    ------
    DataError
        The folder cannot be made, holds somebody else's files under our names, or results of other settings.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        self.out, self.run = out, out / "run"
        self._file = self.run / "job.json"
        self._settings: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA, **settings}))
        saved = self._read()
        if saved is None:
            self._refuse_foreign()
        elif overwrite:
            self._clear()
        else:
            self._refuse_other("settings", _differences(saved["settings"], self._settings))
        try:
            (self.run / "groups").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the output folder {out}: {error.strerror}; choose another --out") from error
        self._saved_images = None if saved is None or overwrite else saved.get("images")
        self._write(self._saved_images)

    def bind_images(self, groups: Sequence[ImageGroup], sha256: Mapping[str, str]) -> None:
        """Tie the job to its images: names, order, groups and content.

        Raises
        ------
        DataError
            The folder holds results of other images.
        """
        listing = [[group.name, image.id, sha256.get(image.id, "")] for group in groups for image in group.images]
        digest = hashlib.sha256(json.dumps(listing).encode("utf-8", "surrogatepass")).hexdigest()
        if self._saved_images is not None and self._saved_images != digest:
            self._refuse_other("images", ["files were added, removed, renamed or changed since"])
        self._write(digest)

    def load_rows(self, group: ImageGroup) -> list[Labelled] | None:
        """Rows of a finished group whose files are all there; None if it must be done (again)."""
        try:
            rows = json.loads(self._rows_file(group).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        labelled = [Labelled(**{**row, "status": Status(row["status"])}) for row in rows]
        outputs = [self.out / tree / row.output for row in labelled for tree in ("masks", "maps")]
        return labelled if all(path.is_file() for path in outputs) else None

    def save_rows(self, group: ImageGroup, rows: Sequence[Labelled]) -> None:
        """Mark a group as finished; call it after its files are written."""
        with open_atomic(self._rows_file(group)) as stream:
            stream.write(json.dumps([asdict(row) for row in rows]).encode())

    def load_maps(self, group: ImageGroup) -> FloatArray | None:
        """Soft maps of a group stored by `save_maps`, float32, (N, H, W); None if absent or damaged."""
        try:
            return load_file(self._maps_file(group))["maps"].astype(np.float32)
        except (OSError, SafetensorError, KeyError):
            return None

    def save_maps(self, group: ImageGroup, maps_NHW: FloatArray) -> None:
        """Store a group's soft maps at network size until they are refined."""
        with open_atomic(self._maps_file(group)) as stream:
            stream.write(save({"maps": np.ascontiguousarray(maps_NHW, np.float16)}))

    def finish(self) -> None:
        """Drop what only a killed job would need."""
        shutil.rmtree(self.run / "maps", ignore_errors=True)

    def _rows_file(self, group: ImageGroup) -> Path:
        return self.run / "groups" / f"{_short(group.name)}.json"

    def _maps_file(self, group: ImageGroup) -> Path:
        return self.run / "maps" / f"{_short(group.name)}.safetensors"

    def _read(self) -> dict[str, Any] | None:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self._file} cannot be read ({error}); remove {self.run} or choose another --out"
            ) from error
        if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
            raise DataError(f"{self._file} is not a job of this program; choose another --out")
        return content

    def _write(self, images: str | None) -> None:
        with open_atomic(self._file) as stream:
            stream.write(json.dumps({"settings": self._settings, "images": images}, indent=1, sort_keys=True).encode())

    def _refuse_foreign(self) -> None:
        present = [name for name in _GUARDED if (self.out / name).exists()]
        if present:
            raise DataError(
                f"{self.out} holds {', '.join(present)}, which this program did not write; choose another --out"
            )

    def _refuse_other(self, what: str, differences: Sequence[str]) -> None:
        lines = "".join(f"\n  {line}" for line in differences)
        if differences:
            raise DataError(
                f"{self.out} holds results of other {what}:{lines}\n"
                "Choose another --out, or pass --overwrite to replace them"
            )

    def _clear(self) -> None:
        for name in OWN_FOLDERS:
            shutil.rmtree(self.out / name, ignore_errors=True)
        for name in OWN_FILES:
            (self.out / name).unlink(missing_ok=True)


def _short(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the settings that differ, as ``name: was, now``."""
    lines = []
    for key in sorted(saved.keys() | now.keys()):
        before, after = saved.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: was {before!r}, now {after!r}")
    return lines
