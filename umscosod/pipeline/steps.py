"""The relabellings of a job: copies of what each replaced.

``OUT/run/steps/NNNN`` holds the masks, maps and rows of some groups as they were before a relabelling, and appears
whole; ``done`` in it appears last. A step without it was killed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from umscosod.data.files import open_atomic, read_json
from umscosod.export.folder import path_inside
from umscosod.export.report import build_row
from umscosod.types import NAMES, ImageGroup, Labelled

_TREES = ("masks", "maps")
_DONE = "done"


class Steps:
    """The relabellings of a job: what was there before each."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out = folder, out
        self._contents: dict[Path, dict[str, Any]] = {}

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]" * 4)) if self.folder.is_dir() else []

    def _read(self, step: Path) -> dict[str, Any]:
        """What a step says; read once, as it holds the rows of all of its groups."""
        if step not in self._contents:
            self._contents[step] = read_json(step / "step.json")
        return self._contents[step]

    @property
    def last(self) -> Path | None:
        """The last step."""
        return next(reversed(self._all()), None)

    @property
    def torn(self) -> Path | None:
        """The last step, if it was killed."""
        return self.last if self.last is not None and not (self.last / _DONE).is_file() else None

    def digest_of(self, group: str) -> str:
        """What a group was relabelled by last; ``""`` if it never was."""
        found = (self._read(step)["digests"].get(group) for step in reversed(self._all()))
        return next(filter(None, found), "")

    def begin(self, groups: Sequence[ImageGroup], digests: Mapping[str, str], rows: Mapping[str, Labelled]) -> Path:
        """Keep copies of the masks, maps and rows of some groups; whole or not at all."""
        self.folder.mkdir(exist_ok=True)
        number = 1 + max((int(step.name) for step in self._all()), default=0)
        step, draft = self.folder / f"{number:04}", self.folder / f".{number:04}.tmp"
        shutil.rmtree(draft, ignore_errors=True)
        for image in (image for group in groups for image in group.images):
            for tree in _TREES:
                source, target = path_inside(self.out, f"{tree}/{image.output}"), draft / tree / image.output
                if source.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)
        kept = {group.name: [asdict(rows[image.id]) for image in group.images] for group in groups}
        content = {"digests": {group.name: digests[group.name] for group in groups}, "rows": kept}
        with open_atomic(draft / "step.json") as stream:
            stream.write(json.dumps(content).encode("utf-8", NAMES))
        draft.rename(step)
        self._contents.pop(step, None)  # a step that was taken back had this number
        return step

    def end(self, step: Path) -> None:
        """Mark a step as complete."""
        with open_atomic(step / _DONE):
            pass

    def groups_of(self, step: Path) -> list[str]:
        """Names of the groups that a step keeps."""
        return list(self._read(step)["rows"])

    def rows_of(self, step: Path, group: str) -> list[Labelled]:
        """Rows of a group that a step keeps."""
        return [build_row(row) for row in self._read(step)["rows"][group]]

    def first_of(self, group: str) -> Path | None:
        """The oldest step that keeps a group: it was not steered then."""
        return next((step for step in self._all() if group in self._read(step)["rows"]), None)

    def put_back(self, step: Path, group: ImageGroup) -> list[str]:
        """Restore the masks and maps of a group; give the ids of the images whose masks differed."""
        differ = []
        for image in group.images:
            for tree in _TREES:
                kept, target = step / tree / image.output, path_inside(self.out, f"{tree}/{image.output}")
                if not kept.is_file():
                    continue
                content = kept.read_bytes()
                if tree == "masks" and read_bytes(target) != content:
                    differ.append(image.id)
                with open_atomic(target) as stream:
                    stream.write(content)
        return differ


def read_bytes(file: Path) -> bytes:
    """What a file holds; nothing where it is missing."""
    return file.read_bytes() if file.is_file() else b""
