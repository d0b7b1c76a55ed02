"""Hostile masks: hand-made labels, stored maps, predictions and ground truths."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.base import Make, grey_png, picture_bytes, png_bomb, write_json
from tests.hostile.harness import Case

_POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 96\n(x) print showpage\n"


def _first(folder: Path, tree: str) -> Path:
    return sorted((folder / tree).rglob("*.png"))[0]


def _put(tree: str, content: bytes) -> Make:
    return lambda folder: _first(folder, tree).write_bytes(content)


def _fifo(tree: str) -> Make:
    def make(folder: Path) -> None:
        path = _first(folder, tree)
        path.unlink()
        os.mkfifo(path)

    return make


def _score(what: str, make: Make, *, code: int = 2, says: str = "error: ") -> Case:
    return Case(
        what=what, command="evaluate result/masks gt", code=code, says=says, make=make, needs=("photos", "gt", "result")
    )


def _train(what: str, make: Make, *, code: int = 1, says: str = "coffee/") -> Case:
    return Case(
        what=what, command="train photos --pseudo gt --out out", code=code, says=says, make=make, needs=("photos", "gt")
    )


def _refine(what: str, make: Make, *, code: int = 1, says: str = "coffee/") -> Case:
    command = "refine photos --maps result --out out"
    return Case(what=what, command=command, code=code, says=says, make=make, needs=("photos", "result"))


def _export(what: str, make: Make, *, code: int = 2, says: str = "error: ", form: str = "coco") -> Case:
    command = f"export result --to out --format {form}"
    return Case(what=what, command=command, code=code, says=says, make=make, needs=("photos", "result"))


def _report(what: str, change: Callable[[dict[str, Any]], object]) -> Case:
    """Another value in the first row of a sound report."""

    def make(folder: Path) -> None:
        file = folder / "result/report.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        change(content["images"][0])
        file.write_text(json.dumps(content), encoding="utf-8")

    return _export(f"export: report.json with {what}", make)


def _resume(what: str, content: bytes) -> Case:
    return Case(
        what=what,
        command="label photos --out result --preset smoke --train always",
        code=0,
        says="4 labelled",
        make=_put("result/masks", content),
        needs=("photos", "result"),
    )


CASES = [
    _score("evaluate: prediction is PostScript", _put("result/masks", _POSTSCRIPT)),
    _score("evaluate: ground truth is PostScript", _put("gt", _POSTSCRIPT)),
    _score("evaluate: empty prediction", _put("result/masks", b"")),
    _score("evaluate: FIFO", _fifo("result/masks")),
    _score("evaluate: 60,000 x 60,000 pixels in 100 bytes", _put("gt", png_bomb())),
    _score("evaluate: ground truth of 0 and 1", _put("gt", grey_png(1)), code=0, says="warning: "),
    _score("evaluate: 16-bit ground truth of 0 and 1", _put("gt", grey_png(1, mode="I;16")), code=0, says="warning: "),
    _score("evaluate: prediction missing", lambda folder: _first(folder, "result/masks").unlink()),
    _train("train: label is PostScript", _put("gt", _POSTSCRIPT)),
    _train("train: label of 1 x 1 pixel", _put("gt", grey_png(255, (1, 1)))),
    _train("train: empty label file", _put("gt", b"")),
    _train("train: FIFO", _fifo("gt")),
    _train("train: label of 60,000 x 60,000 pixels in 100 bytes", _put("gt", png_bomb())),
    _refine("refine: map is PostScript", _put("result/maps", _POSTSCRIPT)),
    _refine("refine: empty map", _put("result/maps", b"")),
    _refine("refine: FIFO", _fifo("result/maps")),
    _refine("refine: map in colour", _put("result/maps", picture_bytes())),
    _refine("refine: map of 1 x 1 pixel", _put("result/maps", grey_png(255, (1, 1)))),
    _export("export: mask is PostScript", _put("result/masks", _POSTSCRIPT), code=1, says="coffee/"),
    _export("export: FIFO", _fifo("result/masks"), code=1, says="coffee/"),
    _export("export: report.json is []", write_json("result/report.json", [])),
    _report("output 5", lambda row: row.update(output=5)),
    _report("output ../../x.png", lambda row: row.update(output="../../x.png")),
    _report("image /etc/passwd", lambda row: row.update(image="/etc/passwd")),
    _report("confidence NaN", lambda row: row.update(confidence=float("nan"))),
    _export(
        "export: the folder of masks is gone",
        lambda folder: shutil.rmtree(folder / "result/masks"),
        form="png",
    ),
    _resume("resume: empty mask", b""),
    _resume("resume: mask cut in half", grey_png(255)[:40]),
]
