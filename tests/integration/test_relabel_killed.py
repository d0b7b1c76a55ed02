"""A relabelling of a data set, or its undo, killed anywhere: the next call takes it back, files and fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.interrupted import Driver
from tests.integration.servers import Mongod
from tests.integration.test_relabel import label, masks_of, state_of
from tests.jobs import quick_config
from umscosod.errors import DataError
from umscosod.integrations import fiftyone as ours

pytestmark = pytest.mark.mongod


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def driver(mongod: Mongod, cache: Path) -> Iterator[Driver]:
    driver = Driver(cache)
    yield driver
    driver.close()


@pytest.fixture
def marked(dataset_factory: Any, cache: Path) -> Any:
    dataset = dataset_factory(n_groups=1, n_images=3, size_hw=(64, 80))
    label(dataset, quick_config(cache))
    ours.use_as_example(dataset, "cosal", ids=dataset.values("id")[:1])
    ours.mark_not_this(dataset, "cosal", ids=dataset.values("id")[1:2])
    return dataset


def content_of(dataset: Any) -> list[Any]:
    """State without names of files and ids of labels."""
    return [(state[1], *state[3:]) for state in state_of(dataset).values()]


@pytest.mark.parametrize("what", ["database", "files"])
@pytest.mark.parametrize("verb", ["relabel", "undo"])
def test_killed(marked: Any, driver: Driver, verb: str, what: str) -> None:
    folder = ours.get_run(marked, "cosal").folder
    below = folder if what == "files" else None
    first, first_masks = state_of(marked), masks_of(marked)
    ours.relabel_dataset(marked, "cosal")
    steered, steered_masks = content_of(marked), masks_of(marked)
    assert steered_masks != first_masks
    if verb == "relabel":
        ours.undo_relabel_dataset(marked, "cosal")
    changes = len(driver(marked, verb, run="cosal", below=below))
    ours.undo_relabel_dataset(marked, "cosal") if verb == "relabel" else ours.relabel_dataset(marked, "cosal")
    for kill in sorted({1, *range(2, changes, max(1, changes // 6)), changes}):
        driver(marked, verb, run="cosal", below=below, kill=kill)
        # no label ever shows anything but a whole mask of before or of after
        for id_, mask in masks_of(marked).items():
            assert mask in (first_masks[id_], steered_masks[id_]), f"{what} {kill} of {changes}"
        if verb == "relabel":
            ours.relabel_dataset(marked, "cosal")
            assert content_of(marked) == steered, f"{what} {kill} of {changes}"
            ours.undo_relabel_dataset(marked, "cosal")
        else:
            ours.undo_relabel_dataset(marked, "cosal")
        assert state_of(marked) == first, f"{what} {kill} of {changes}"
        with pytest.raises(DataError, match="no relabelling to take back"):
            ours.undo_relabel_dataset(marked, "cosal")
        if verb == "undo":
            ours.relabel_dataset(marked, "cosal")
