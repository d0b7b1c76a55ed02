"""From the rows of a part to labels: only files that are there are pointed to."""

from __future__ import annotations

from pathlib import Path

import pytest

from umscosod.integrations.fiftyone.runs.jobs import label_items
from umscosod.integrations.fiftyone.runs.parts import Part, PartState
from umscosod.types import Labelled, Status


@pytest.fixture
def part(tmp_path: Path) -> Part:
    names = {"masks": ("both", "mask", "failed"), "maps": ("both", "map", "failed")}
    for tree, stems in names.items():
        for stem in stems:
            file = tmp_path / "part-001" / tree / f"{stem}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
    return Part(
        file=tmp_path / "part-001.json",
        run_id="run",
        state=PartState.RUNNING,
        settings={},
        groups=(),
        writes=frozenset(),
    )


def row(name: str, status: Status = Status.LABELLED) -> Labelled:
    return Labelled(image_id=name, group="g", output=f"{name}.png", status=status)


@pytest.mark.parametrize(
    ("name", "status", "found"),
    [
        ("both", Status.LABELLED, ("masks", "maps")),
        ("both", Status.EMPTY, ("masks", "maps")),
        ("mask", Status.LABELLED, ("masks",)),
        ("map", Status.LABELLED, ()),
        ("failed", Status.FAILED, ()),
    ],
)
def test_only_files_that_are_there_are_pointed_to(
    part: Part, name: str, status: Status, found: tuple[str, ...]
) -> None:
    (item,) = label_items(part, [row(name, status)], "masks", has_maps=True)
    paths = {"masks": item.mask_path, "maps": item.map_path}
    assert {tree for tree, path in paths.items() if path is not None} == set(found)
    assert all(paths[tree] == part.folder / tree / f"{name}.png" for tree in found)


def test_a_run_without_maps_points_to_none(part: Part) -> None:
    (item,) = label_items(part, [row("both")], "masks", has_maps=False)
    assert (item.mask_path, item.map_path) == (part.folder / "masks" / "both.png", None)
