"""Hostile output folders: taken, foreign, linked, damaged, or among the inputs; and disks that are full."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.hostile.base import Make, both, name_photo, write, write_json
from tests.hostile.harness import Case

_AGAIN = "label photos --out result --preset smoke --train always"


def _out(what: str, out: str, make: Make = lambda folder: None, *, code: int = 2, says: str = "error: ") -> Case:
    return Case(what=what, command=f"label photos --out {out}", code=code, says=says, make=make)


def _again(what: str, make: Make, *, code: int = 2, says: str = "error: ", more: str = "") -> Case:
    command = f"{_AGAIN} {more}".strip()
    return Case(what=what, command=command, code=code, says=says, make=make, needs=("photos", "result"))


def _job(what: str, content: bytes | str) -> Case:
    """An interrupted job: of a finished one the record of its end is asked first."""

    def make(folder: Path) -> None:
        (folder / "result/run/finished.json").unlink()
        write("result/run/job.json", content)(folder)

    return _again(f"job.json: {what}", make)


def _rows(what: str, content: bytes) -> Case:
    def make(folder: Path) -> None:
        for path in (folder / "result/run/groups").iterdir():
            path.write_bytes(content)

    return _again(f"rows of a group: {what}", make, code=0, says="4 labelled")


def _list_in_masks(folder: Path) -> None:
    """A list that names files in the folder that --overwrite would clear."""
    lines = ["path,group"]
    for path in sorted((folder / "photos").rglob("*.jpg")):
        shutil.copy(path, folder / "result/masks" / path.name)
        lines.append(f"result/masks/{path.name},{path.parent.name}")
    (folder / "list.csv").write_text("\n".join(lines), encoding="utf-8")


def _linked_tree(folder: Path) -> None:
    """Results whose folder of masks is a link to somebody's folder."""
    (folder / "mine").mkdir()
    (folder / "mine/keep.txt").write_text("mine", encoding="utf-8")
    shutil.rmtree(folder / "result/masks")
    (folder / "result/masks").symlink_to("../mine")


def _full(what: str, command: str, largest_file: int) -> Case:
    needs = ("photos", "result")
    return Case(
        what=f"disk full: {what}", command=command, code=2, says="error: ", needs=needs, largest_file=largest_file
    )


CASES = [
    _full("as features are written", "label photos --out out --config.features.cache-dir c", 10_000),
    _full("as features are written, without a cache", "label photos --out out --config.features.no-use-cache", 10_000),
    _full("as a job begins", "label photos --out out", 200),
    _full("as the first results are written", "label photos --out out", 2000),
    _full("as a network is saved", "train photos --pseudo result --out out", 20_000),
    _full("as an export is written", "export result --to out --format coco", 100),
    _out("--out ''", "''"),
    _out("--out .", ".", code=0, says="4 labelled"),
    _out("--out is the folder of images", "photos"),
    _out("--out is a group", "photos/coffee"),
    _out("--out is a file", "photos/coffee/x", lambda folder: (folder / "photos/coffee/x").write_text("x")),
    _out("--out /dev/null/x", "/dev/null/x"),
    _out("--out /proc/x", "/proc/x"),
    _out("--out through a link loop", "loop/x", lambda folder: (folder / "loop").symlink_to("loop")),
    _out("--out is a link loop", "loop", lambda folder: (folder / "loop").symlink_to("loop")),
    _out("--out holds somebody's masks", "out", write("out/masks/mine.png", b"x")),
    _out("--out holds somebody's report.json", "out", write("out/report.json", b"{}")),
    _out("--out is a FIFO", "out", lambda folder: os.mkfifo(folder / "out")),
    _out("--out holds a NUL", "'a\0b'"),
    _out("--out of 300 letters", "o" * 300),
    Case(
        what="--out inside another job's run",
        command="label photos --out result/run/x",
        code=2,
        says="error: ",
        needs=("photos", "result"),
    ),
    Case(
        what="--out inside another job's masks",
        command="label photos --out result/masks/coffee",
        code=2,
        says="error: ",
        needs=("photos", "result"),
    ),
    Case(
        what="export into the results",
        command="export result --to result/masks/x --format png",
        code=2,
        says="error: ",
        needs=("photos", "result"),
    ),
    Case(
        what="export into the images",
        command="export result --to photos/coffee/x --format png --images photos",
        code=0,
        says="photos/coffee/x",
        needs=("photos", "result"),
    ),
    Case(
        what="train --out is the folder of labels",
        command="train photos --pseudo gt --out gt",
        code=2,
        says="error: ",
        needs=("photos", "gt"),
    ),
    Case(
        what="the checkpoint lies in --out",
        command="predict photos --checkpoint result --out result",
        code=2,
        says="error: ",
        needs=("photos", "result"),
    ),
    _again("other settings than before", lambda folder: None, more="--seed 5"),
    _again("a picture was changed since", lambda folder: shutil.copy(name_photo(folder, 0), name_photo(folder, 1))),
    _again("a picture was added since", lambda folder: shutil.copy(name_photo(folder), folder / "photos/coffee/z.jpg")),
    _job("[]", b"[]"),
    _job("5", b"5"),
    _job("empty", b""),
    _job("binary", bytes(range(256))),
    _job("nested 100,000 deep", b"[" * 100_000),
    _job("settings of text", json.dumps({"settings": "x", "bound": {}})),
    _job("bound to numbers", json.dumps({"settings": {}, "bound": {"images": 5}})),
    _job("a number of 5,000 digits", '{"settings": ' + "9" * 5000 + "}"),
    _rows("[]", b"[]"),
    _rows("{}", b"{}"),
    _rows("5", b"5"),
    _rows("binary", bytes(range(256))),
    _rows("[null]", b"[null]"),
    Case(
        what="--overwrite would clear pictures that the list names",
        command="label list.csv --out result --overwrite",
        code=2,
        says="error: ",
        make=_list_in_masks,
        needs=("photos", "result"),
    ),
    _again(
        "--overwrite where masks is a link to a folder of yours",
        _linked_tree,
        more="--overwrite --seed 5",
    ),
    Case(
        what="discover: the list is there already",
        command="discover photos --out list.csv",
        code=2,
        says="error: ",
        make=write("list.csv", b"path,group\n"),
    ),
    Case(what="discover: --out is no .csv", command="discover photos --out list.txt", code=2, says="error: "),
    Case(
        what="export: format none of ours",
        command="export result --to out --format voc",
        code=2,
        says="voc",
        needs=("photos", "result"),
    ),
    Case(what="export: results that are none", command="export photos --to out --format coco", code=2, says="error: "),
    _again(
        "report.json is a folder",
        both(
            lambda folder: (folder / "result/report.json").unlink(),
            lambda folder: (folder / "result/report.json").mkdir(),
        ),
    ),
    _again("run/log or other names are foreign", write_json("result/run/extra.json", {}), code=0, says="4 labelled"),
]
