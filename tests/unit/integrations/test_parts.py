"""Parts on disk: what a deletion takes, what it leaves, and where a part may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import read_tree
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.parts import (
    Part,
    add_part,
    list_parts,
    next_part_file,
    remove_part,
    stage_part,
)
from umscosod.types import ImageGroup, ImageRef

GROUPS = (ImageGroup(name="g", images=(ImageRef(id="1", path=Path("/a.jpg"), output="g/a.png"),)),)
JOB = b'{"settings": {}, "bound": {}}'


def begin(folder: Path, verb: str = "label") -> Part:
    return add_part(folder, "run", {"verb": verb}, GROUPS, frozenset({"1"}))


def write(root: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


OURS = ("masks/g/a.png", "maps/g/a.png", "pseudo/g/a.png", "pseudo/manifest.jsonl", "thumbs/mask/g/a.jpg")
OURS += ("report.json", "index.html", "run/groups/1.json", "labels/g/a.png", "labels/sources.json", "detections.json")


def test_a_part_takes_its_files_along_and_leaves_those_of_others(tmp_path: Path) -> None:
    part = begin(tmp_path)
    write(part.folder, *OURS)
    write(part.folder, "run/job.json", content=JOB)
    theirs = ("masks/g/b.png", "maps/notes.txt", "notes.txt")
    write(part.folder, *theirs)
    remove_part(part)
    assert sorted(read_tree(tmp_path)) == sorted(f"part-001/{name}" for name in theirs)


def test_a_part_without_other_files_leaves_nothing(tmp_path: Path) -> None:
    for verb in ("label", "import"):
        part = begin(tmp_path, verb)
        write(part.folder, *OURS[:2])
        if verb == "label":
            write(part.folder, "run/job.json", content=JOB)
        remove_part(part)
        assert not list(tmp_path.iterdir())


def test_a_folder_that_no_job_had_claimed_stays_whole(tmp_path: Path) -> None:
    part = begin(tmp_path)
    write(part.folder, "masks/g/a.png", "report.json", content=b"theirs")
    remove_part(part)
    assert sorted(read_tree(tmp_path)) == ["part-001/masks/g/a.png", "part-001/report.json"]


@pytest.mark.parametrize("link", [".", "masks", "masks/g", "run"])
def test_nothing_is_removed_through_a_link(tmp_path: Path, link: str) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    write(elsewhere, *OURS)
    write(elsewhere, "run/job.json", "a.png", "g/a.png", "job.json", content=JOB)
    before = read_tree(elsewhere)
    part = begin(run)
    place = part.folder / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(elsewhere)
    if link.startswith("masks"):
        write(part.folder, "run/job.json", content=JOB)
    remove_part(part)
    assert read_tree(elsewhere) == before
    assert not part.file.exists()


def test_a_folder_of_somebody_else_is_never_taken_for_a_part(tmp_path: Path) -> None:
    write(tmp_path, "part-001/masks/g/a.png")
    (tmp_path / "part-002").symlink_to("nowhere")
    part = begin(tmp_path)
    assert part.folder.name == "part-003"
    assert next_part_file(tmp_path).name == "part-004.json"


def test_content_made_aside_becomes_the_part_and_leftovers_go(tmp_path: Path) -> None:
    write(tmp_path, f".{'0' * 32}.tmp/labels/half.png", f".{'1' * 32}.tmp")
    with stage_part(tmp_path) as staging:
        write(staging, "labels/g/a.png")
        part = add_part(tmp_path, "run", {}, GROUPS, frozenset(), content=staging)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-001", "part-001.json"]
    assert list(read_tree(part.folder)) == ["labels/g/a.png"]


@pytest.mark.parametrize(
    "content", ["", "[]", "5", "{}", "[" * 100_000, '{"groups": 5}', '{"groups": [["g", [[1, 2, 3]]]]}']
)
def test_a_damaged_record_is_one_line_whose_advice_works(tmp_path: Path, content: str) -> None:
    part = begin(tmp_path)
    part.file.write_text(content)
    with pytest.raises(
        DataError, match=r"001\.json is damaged \([^/]*\); restore it, or move it away with its folder"
    ) as caught:
        list_parts(tmp_path)
    assert "\n" not in str(caught.value)
    part.file.rename(tmp_path / "away.json")
    assert list_parts(tmp_path) == []
