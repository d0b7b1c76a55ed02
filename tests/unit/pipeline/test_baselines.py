"""Methods of others as whole jobs: same files, same resume, settings that decide, nothing trained or labelled."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.jobs import assert_same, read_results, read_tree, select
from tests.unit.pipeline.conftest import Finished
from umscosod.baselines import BASELINES, scosparc
from umscosod.config import PipelineConfig
from umscosod.config.io import load_config
from umscosod.errors import Cancelled, ConfigError, OtherResultsError
from umscosod.pipeline import label_groups, predict
from umscosod.pipeline.predictor import load_model
from umscosod.types import Status


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("EPOCHS", 1), ("MIN_STEPS", 2), ("RESTARTS", 2)):
        monkeypatch.setattr(scosparc, name, value)


def quick(config: PipelineConfig, method: str) -> PipelineConfig:
    return replace(config, method=method)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_writes_what_every_job_writes_but_labels_and_a_network(
    tmp_path: Path, images: Path, config: PipelineConfig, method: str
) -> None:
    report = label_groups(images, tmp_path / "out", quick(config, method))
    assert {row.source for row in report.rows} == {method}
    assert {row.status for row in report.rows} <= {Status.LABELLED, Status.EMPTY}
    files = read_tree(tmp_path / "out")
    for row in report.rows:
        assert {f"masks/{row.output}", f"maps/{row.output}"} <= files.keys()
    assert {"report.json", "index.html", "run/job.json"} <= files.keys()
    assert not [name for name in files if name.startswith(("pseudo/", "run/checkpoints/"))]
    before = read_results(tmp_path / "out")
    again = label_groups(images, tmp_path / "out", quick(config, method))
    assert again.rows == report.rows
    assert_same(read_results(tmp_path / "out"), before)


@pytest.mark.parametrize("method", ["dvfdvd", "scosparc"])
def test_a_job_stopped_at_any_point_ends_with_the_same_bytes(
    tmp_path: Path, images: Path, config: PipelineConfig, method: str
) -> None:
    config = quick(config, method)
    label_groups(images, tmp_path / "whole", config)
    for stop in range(2, 30, 4):
        calls = 0

        def cancel(done: int, total: int, stage: str) -> None:
            nonlocal calls
            calls += 1
            if calls == stop:  # noqa: B023 - called in this turn only
                raise Cancelled("stopped by the test")

        out = tmp_path / f"stopped-{stop}"
        try:
            label_groups(images, out, config, progress=cancel)
        except Cancelled:
            label_groups(images, out, config)
        assert_same(read_results(out), read_results(tmp_path / "whole"))


def test_weights_that_were_damaged_are_trained_again(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    config = quick(config, "scosparc")
    label_groups(images, tmp_path / "out", config)
    before = read_results(tmp_path / "out")
    weights = tmp_path / "out" / "run" / "scosparc.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    shutil.rmtree(tmp_path / "out" / "masks")
    label_groups(images, tmp_path / "out", config)
    assert_same(read_results(tmp_path / "out"), before)


def test_pseudo_is_the_same_as_no_training(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    plain = replace(config, pseudo=replace(config.pseudo, clean="none", probe="none"))
    label_groups(images, tmp_path / "named", replace(plain, method="pseudo"))
    label_groups(images, tmp_path / "plain", plain, train=False)
    named, other = (read_tree(tmp_path / name) for name in ("named", "plain"))
    assert_same(select(named, "masks", "maps", "pseudo"), select(other, "masks", "maps", "pseudo"))


def test_a_baseline_needs_no_second_image(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    (tmp_path / "one" / "cat").mkdir(parents=True)
    source = sorted(images.rglob("*.jpg"))[0]
    (tmp_path / "one" / "cat" / "1.jpg").write_bytes(source.read_bytes())
    for method in BASELINES:
        (row,) = label_groups(tmp_path / "one", tmp_path / method, quick(config, method)).rows
        assert row.status in {Status.LABELLED, Status.EMPTY}


def test_results_of_another_method_are_not_replaced_unasked(
    tmp_path: Path, images: Path, config: PipelineConfig
) -> None:
    label_groups(images, tmp_path / "out", replace(config, method="attention"))
    with pytest.raises(OtherResultsError, match="method: was 'attention', now 'tokencut'"):
        label_groups(images, tmp_path / "out", replace(config, method="tokencut"))
    label_groups(images, tmp_path / "out", replace(config, method="tokencut"), overwrite=True)
    assert (
        json.loads((tmp_path / "out" / "run" / "job.json").read_bytes())["settings"]["config"]["method"] == "tokencut"
    )


def test_a_checkpoint_or_pictures_in_memory_go_with_our_own_method_only(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    with pytest.raises(ConfigError, match="contradict"):
        predict(images, tmp_path / "out", finished.out, replace(config, method="tokencut"))
    with pytest.raises(ConfigError, match="label_groups"):
        load_model(config=replace(load_config("smoke"), method="scosparc"))


def test_maps_are_at_least_half_where_the_method_decides(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    """Without refinement the mask is the map at 0.5, and neither is empty on these pictures."""
    plain = replace(config, method="tokencut", refine=replace(config.refine, enabled=False))
    report = label_groups(images, tmp_path / "out", plain)
    assert report.counts[Status.LABELLED] == len(report.rows)
    assert np.isfinite([row.threshold for row in report.rows]).all()
