"""What a job says and does where the confidence is low, a group mixed, or an image unlike the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umscosod.cli.console import format_label_report
from umscosod.confidence import judge
from umscosod.confidence.judge import MIXED
from umscosod.config import PipelineConfig
from umscosod.data.masks import read_mask
from umscosod.export.report import read_report
from umscosod.pipeline import label_groups
from umscosod.types import Status

ALWAYS = {"mixed_level": 1.0, "absent": "off"}


@pytest.fixture(autouse=True)
def _pairs_can_be_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "MIXED_IMAGES", 2)


def configure(config: PipelineConfig, **values: object) -> PipelineConfig:
    return replace(config, confidence=replace(config.confidence, **values))


def test_a_mixed_group_is_told_everywhere_and_its_masks_stay(
    tmp_path: Path, images: Path, config: PipelineConfig
) -> None:
    report = label_groups(images, tmp_path / "out", configure(config, **ALWAYS), train=False)
    usual = label_groups(images, tmp_path / "usual", configure(config, mixed="off", absent="off"), train=False)
    for row, other in zip(report.rows, usual.rows, strict=True):
        assert row.is_mixed
        assert not other.is_mixed
        assert row.status is Status.LABELLED
        assert row.reason.startswith(MIXED)
        assert row.confidence == other.confidence
        mask_HW, other_HW = (read_mask(tmp_path / name / "masks" / row.output) for name in ("out", "usual"))
        assert np.array_equal(mask_HW, other_HW)
    assert any("no common object seen" in note and "2 of 2 groups" in note for note in report.notes)
    low = sum(row.confidence < config.confidence.low for row in report.rows)
    assert (f"{low} labelled with low confidence" in format_label_report(report)) == (low > 0)
    document = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert document["totals"]["mixed_groups"] == 2
    assert all(group["mixed"] for group in document["groups"].values())
    assert all(row.is_mixed for row in read_report(tmp_path / "out" / "report.json"))
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "no common object seen" in page
    assert "<b>2</b> groups without a common object" in page


def test_masks_of_a_mixed_group_can_be_left_empty(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    report = label_groups(images, tmp_path / "out", configure(config, **ALWAYS, mixed="empty"), train=False)
    assert report.exit_code == 3
    for row in report.rows:
        assert (row.status, row.confidence) == (Status.EMPTY, 0.0)
        assert row.reason.startswith(MIXED)
        assert not read_mask(tmp_path / "out" / "masks" / row.output).any()


def test_the_cues_of_every_group_are_kept(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    report = label_groups(images, tmp_path / "out", config, train=False)
    files = sorted((tmp_path / "out" / "run" / "cues").glob("*.json"))
    contents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    assert {name for content in contents for name in content["outputs"]} == {row.output for row in report.rows}
    assert all(len(content["mask_cues"]) == len(content["outputs"]) for content in contents)
    assert {content["kind"] for content in contents} == {"whitened"}
