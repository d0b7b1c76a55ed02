"""Hostile files of instance masks (``pseudo.detections``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.base import coco_file, write
from tests.hostile.harness import Case

_COMMAND = "label photos --out out --config.pseudo.proposer coco-json --config.pseudo.detections masks.json"


def _file(what: str, content: bytes | str) -> Case:
    return Case(what=what, command=_COMMAND, code=2, says="error: ", make=write("masks.json", content))


def _first(what: str, *, code: int = 0, says: str = "annotations left out", **fields: Any) -> Case:
    """Other values in the first annotation."""

    def change(content: dict[str, Any]) -> None:
        content["annotations"][0].update(fields)

    return Case(what=what, command=_COMMAND, code=code, says=says, make=lambda folder: coco_file(folder, change=change))


def _changed(
    what: str, change: Callable[[dict[str, Any]], object], *, code: int = 0, says: str = "warning: masks.json"
) -> Case:
    return Case(what=what, command=_COMMAND, code=code, says=says, make=lambda folder: coco_file(folder, change=change))


def _other_group(content: dict[str, Any]) -> None:
    """All entries under a folder that the collection does not have."""
    for row in content["images"]:
        row["file_name"] = "elsewhere/" + row["file_name"].rpartition("/")[2]


def _edit_after(folder: Path) -> None:
    """A finished job whose file of masks is then edited."""
    from umscosod.cli import main

    coco_file(folder)
    import contextlib
    import os

    with contextlib.chdir(folder), open(os.devnull, "w") as null, contextlib.redirect_stdout(null):  # noqa: PTH123
        assert main([*_COMMAND.split(), "--preset", "smoke", "--no-train"]) == 0
    content = json.loads((folder / "masks.json").read_text(encoding="utf-8"))
    content["annotations"][0]["segmentation"][0][0] = 30.0
    (folder / "masks.json").write_text(json.dumps(content), encoding="utf-8")


_HUGE = {"size": [96, 96], "counts": "o" * 2_000_000}

CASES = [
    Case(what="no such file", command=_COMMAND, code=2, says="error: "),
    Case(what="the file is a folder", command=_COMMAND.replace("masks.json", "."), code=2, says="error: "),
    _file("empty", b""),
    _file("no JSON", b"hello"),
    _file("binary", bytes(range(256))),
    _file("null", b"null"),
    _file("a number", b"5"),
    _file("lists nested 100,000 deep", b"[" * 100_000 + b"]" * 100_000),
    _file("a number of 5,000 digits", b"[" + b"9" * 5000 + b"]"),
    _file("{}", b"{}"),
    _file("annotations are null", b'{"images": [], "annotations": null}'),
    _file("rows that are numbers", b"[1, 2]"),
    _first("size 5", segmentation={"size": 5, "counts": "00"}),
    _first("size []", segmentation={"size": [], "counts": "00"}),
    _first("size {}", segmentation={"size": {}, "counts": "00"}),
    _first("size of 10^9 x 10^9", segmentation={"size": [10**9, 10**9], "counts": [10**18]}),
    _first("counts null", segmentation={"size": [96, 96], "counts": None}),
    _first("counts negative", segmentation={"size": [96, 96], "counts": [-5, 96 * 96 + 5]}),
    _first("counts too short", segmentation={"size": [96, 96], "counts": [5]}),
    _first("2 MB of counts that are one number", segmentation=_HUGE),
    _first("polygon with NaN", segmentation=[[float("nan")] * 8]),
    _first("polygon with Infinity", segmentation=[[float("inf"), 1, 2, 3, 4, 5]]),
    _first("polygon with 1e9", segmentation=[[1e9, 1e9, -1e9, 1e9, -1e9, -1e9]]),
    _first("polygon of text", segmentation=[["a", "b", "c", "d", "e", "f"]]),
    _first("polygon of two points", segmentation=[[1, 2, 3, 4]]),
    _first("segmentation null", segmentation=None),
    _first("score is text", score="high"),
    _first("score is null", score=None),
    _first("score is NaN", score=float("nan")),
    _first("score is a list", score=[1]),
    _first("hier_level is text", hier_level="x"),
    _first("image_id is a list", image_id=[1]),
    _first("mask of another shape", says="is made for", segmentation={"size": [50, 96], "counts": [50 * 96]}),
    _changed("all entries of another folder", _other_group, code=2, says="error: "),
    _changed(
        "entries of pictures that are not there",
        lambda content: content["images"].append({"id": 99, "file_name": "dog/1.jpg", "height": 9, "width": 9}),
    ),
    Case(what="the file was edited after the run", command=_COMMAND, code=2, says="error: ", make=_edit_after),
]
