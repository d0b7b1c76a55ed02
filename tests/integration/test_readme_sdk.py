"""The README's lines of Python, run as they stand, and the command line on the same folder: equal scores."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.servers import Mongod
from umscosod import cli
from umscosod.demo.compose import make_groups
from umscosod.evaluation.scoring import MEASURES

fo = pytest.importorskip("fiftyone")

ROOT = Path(__file__).resolve().parents[2]
DEV = ROOT.parent / "shared" / "data" / "dev" / "PascalCoSeg"
GROUPS, IMAGES_PER_GROUP = ("Aero", "Sheep"), 3
"""A part of the set, as training takes most of the time. More pictures test nothing more: figures agree or not."""


def read_code() -> str:
    """The fenced block below the mark ``sdk``."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- sdk:.*?-->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None, "README.md has lost its block of Python under <!-- sdk: ... -->"
    return found.group(1)


def write_photos(folder: Path) -> None:
    """``image/GROUP`` and ``gt/GROUP``: photographs, or composed ones where the development pictures are missing."""
    if not DEV.is_dir():
        make_groups(folder, seed=0, groups=("coffee", "shuttle"), images_per_group=IMAGES_PER_GROUP)
        return
    for tree in ("image", "gt"):
        for group in GROUPS:
            target = folder / tree / group
            target.mkdir(parents=True)
            for file in sorted((DEV / tree / group).iterdir())[:IMAGES_PER_GROUP]:
                shutil.copyfile(file, target / file.name)


@pytest.fixture
def photos(mongod: Mongod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of the README's lines, which make a data set called ``photos``."""
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "photos"
    if fo.dataset_exists("photos"):
        fo.delete_dataset("photos")


def scores_of_command_line(photos: Path, out: str, *flags: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert cli.main(["label", str(photos / "image"), "--out", out, *flags]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", f"{out}/masks", str(photos / "gt"), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_the_readme_has_few_lines() -> None:
    code = [line for line in read_code().splitlines() if line.strip()]
    assert len(code) <= 15


@pytest.mark.slow
def test_the_readme_gives_the_scores_of_the_command_line(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(read_code(), "README.md", "exec"), names)
    masks = names["dataset"].values("cosal.mask_path")
    exec(compile(read_code(), "README.md", "exec"), names)  # as whoever runs a script again: nothing is done anew
    assert names["dataset"].values("cosal.mask_path") == masks
    assert "tokencut-beats-cosal" in names["dataset"].list_saved_views()
    for field, flags in (("cosal", ()), ("tokencut", ("--method", "tokencut"))):
        told = scores_of_command_line(photos, field, *flags, capsys=capsys)
        results = names["dataset"].load_evaluation_results(f"eval_{field}")
        assert results.dataset_scores.n == told["dataset"]["n"] == 2 * IMAGES_PER_GROUP
        for measure in MEASURES:
            ours = getattr(results.dataset_scores, measure)
            assert ours == pytest.approx(told["dataset"][measure], abs=1e-6), (field, measure)
        assert sorted(results.group_scores) == sorted(told["groups"])
        for group, scores in results.group_scores.items():
            assert scores.iou == pytest.approx(told["groups"][group]["iou"], abs=1e-6), (field, group)
    difference = names["comparison"].rows[0]
    assert difference.gain == pytest.approx(difference.a - difference.b)
