"""Methods of others as runs of a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
import pytest

from tests.jobs import quick_config
from umscosod.integrations import fiftyone as ours

pytestmark = pytest.mark.mongod


def test_a_run_by_another_method_says_which(toy_dataset: Any, tmp_path: Path) -> None:
    config = replace(quick_config(tmp_path / "cache"), method="attention")
    report = ours.label_dataset(toy_dataset, group_field="cls", field="peer", config=config)
    assert report.is_success
    (run,) = ours.list_runs(toy_dataset)
    assert (run.key, run.settings["method"], run.n_samples) == ("peer", "attention", 8)
    assert toy_dataset.count("peer") == 8


def test_the_operator_takes_the_method(toy_dataset: Any, tmp_path: Path) -> None:
    operator = foo.get_operator("@umscosod/umscosod/label")
    operator(
        toy_dataset,
        group_field="cls",
        field="cut",
        preset="smoke",
        method="tokencut",
        out_dir=str(tmp_path / "out"),
        settings=f"features.cache_dir={tmp_path / 'cache'}",
    )
    (run,) = ours.list_runs(toy_dataset)
    assert run.settings["method"] == "tokencut"
    assert toy_dataset.count("cut") > 0
