"""report.json: complete, ordered, and the same bytes for the same run."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from umscosod import __version__
from umscosod.errors import DataError
from umscosod.export.report import SCHEMA, package_versions, write_report
from umscosod.types import Labelled, Status


def _row(name: str, status: Status = Status.LABELLED, **fields: object) -> Labelled:
    group = name.rpartition("/")[0]
    return Labelled(image_id=name, group=group, output=name.replace(".jpg", ".png"), status=status, **fields)


ROWS = [
    _row("cat/2.jpg", confidence=0.75, source="network", threshold=0.5),
    _row("cat/10.jpg", confidence=0.25, source="network", threshold=0.1),
    _row("cat/11.jpg", Status.FAILED, reason="the file is empty"),
    _row("Bär/1.jpg", Status.EMPTY, reason="nothing passes", source="pseudo-label"),
    _row("Bär/2.jpg", Status.SKIPPED, reason="done before"),
]


def test_contents(tmp_path: Path) -> None:
    path = tmp_path / "out" / "report.json"
    totals = write_report(path, ROWS, {"seed": 1, "refine": {"th0": 0.5}}, backbones=["a", "b"])
    text = path.read_text(encoding="utf-8")
    assert "Bär" in text  # readable, not escaped
    report = json.loads(text)
    assert report["schema"] == SCHEMA
    assert report["totals"] == totals
    assert totals == {
        "images": 5,
        "groups": 2,
        "mixed_groups": 0,
        "labelled": 2,
        "empty": 1,
        "failed": 1,
        "skipped": 1,
        "sources": {"network": 2, "pseudo-label": 1},
        "mean_confidence": 0.5,
    }
    assert report["groups"]["Bär"]["mean_confidence"] is None
    assert report["config"] == {"seed": 1, "refine": {"th0": 0.5}}
    assert report["backbones"] == ["a", "b"]
    assert report["versions"]["umscosod"] == __version__
    assert [row["image"] for row in report["images"]] == [
        "Bär/1.jpg",
        "Bär/2.jpg",
        "cat/2.jpg",
        "cat/10.jpg",
        "cat/11.jpg",
    ]
    assert report["images"][2] == {
        "image": "cat/2.jpg",
        "group": "cat",
        "output": "cat/2.png",
        "status": "labelled",
        "confidence": 0.75,
        "threshold": 0.5,
        "source": "network",
        "reason": "",
        "mixed_group": False,
    }


def test_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    shuffled = list(ROWS)
    random.Random(3).shuffle(shuffled)
    write_report(tmp_path / "a.json", ROWS, {"seed": 1})
    write_report(tmp_path / "b.json", iter(shuffled), {"seed": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_no_rows(tmp_path: Path) -> None:
    totals = write_report(tmp_path / "a.json", [], {})
    assert totals["images"] == 0
    assert totals["mean_confidence"] is None
    assert json.loads((tmp_path / "a.json").read_text())["versions"] == package_versions()


def test_name_that_is_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"g/\xff.jpg")
    write_report(tmp_path / "a.json", [_row(name)], {})
    assert json.loads((tmp_path / "a.json").read_bytes())["images"][0]["image"] == name


def test_refusals_leave_the_old_report(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(DataError, match=r"'cat/2\.jpg' has two rows"):
        write_report(path, [ROWS[0], ROWS[0]], {})
    with pytest.raises(DataError, match="must be finite"):
        write_report(path, [_row("g/a.jpg", confidence=float("nan"))], {})
    with pytest.raises(DataError, match="cannot be written as JSON"):
        write_report(path, ROWS, {"path": Path("x")})
    with pytest.raises(DataError, match="cannot be written as JSON"):
        write_report(path, ROWS, {"value": float("inf")})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_versions_name_what_results_depend_on() -> None:
    assert {"python", "umscosod", "numpy", "torch"} <= set(package_versions())
