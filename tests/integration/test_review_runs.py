"""Review and runs together: what later calls of a run do with samples that a person decided about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.jobs import quick_config
from umscosod.config import PipelineConfig
from umscosod.integrations import fiftyone as ours

pytestmark = pytest.mark.mongod


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return quick_config(tmp_path / "cache")


def label(dataset: Any, config: PipelineConfig, **options: Any) -> None:
    ours.label_dataset(dataset, group_field="cls", config=config, train=False, **options)


def test_later_calls_of_a_run_keep_what_was_decided(toy_dataset: Any, config: PipelineConfig) -> None:
    label(toy_dataset, config)
    accepted, rejected, returned, untouched = toy_dataset.values("id")[:4]
    ours.accept_masks(toy_dataset, "cosal", ids=[accepted])
    ours.reject_masks(toy_dataset, "cosal", ids=[rejected])
    ours.send_back(toy_dataset, "cosal", ids=[returned])
    before = dict(zip(toy_dataset.values("id"), toy_dataset.values("cosal.id"), strict=True))
    content = Path(toy_dataset[accepted]["reviewed"].mask_path).read_bytes()

    label(toy_dataset, config)  # does what was sent back, and nothing else
    after = dict(zip(toy_dataset.values("id"), toy_dataset.values("cosal.id"), strict=True))
    assert [sample_id for sample_id in before if before[sample_id] != after[sample_id]] == [returned]
    assert [toy_dataset[each]["cosal_review"] for each in (accepted, rejected, returned)] == [
        "accepted",
        "rejected",
        None,
    ]

    label(toy_dataset, config, overwrite=True)  # replaces machines' labels only
    again = dict(zip(toy_dataset.values("id"), toy_dataset.values("cosal.id"), strict=True))
    assert [again[each] == before[each] for each in (accepted, rejected, untouched)] == [True, True, False]
    assert ours.review_counts(toy_dataset, "cosal") == {"open": 6, "accepted": 1, "rejected": 1, "sent back": 0}

    ours.delete_run(toy_dataset, "cosal")
    kept = toy_dataset[accepted]["reviewed"]
    assert (kept.provenance, Path(kept.mask_path).read_bytes()) == ("human", content)
