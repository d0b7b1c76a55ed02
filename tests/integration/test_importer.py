"""Benchmarks as real data sets, by both ways FiftyOne offers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.data.cosal2015 import data as cosal2015
from tests.data.fake import write_pairs
from tests.integration.servers import Mongod

fo = pytest.importorskip("fiftyone")


@pytest.fixture(autouse=True)
def no_dataset_left(mongod: Mongod) -> Iterator[None]:
    before = set(fo.list_datasets())
    yield
    for name in set(fo.list_datasets()) - before:
        fo.delete_dataset(name)


def test_from_importer(tmp_path: Path) -> None:
    from umscosod.integrations.fiftyone import CoSODImporter

    root = cosal2015.write(tmp_path)
    dataset = fo.Dataset.from_importer(CoSODImporter(dataset_dir=root), tags="benchmark")
    assert dataset.count_values("cls") == {"aeroplane": 3, "axe": 1}
    assert dataset.count_sample_tags() == {"benchmark": 4}
    assert dataset.mask_targets == {"ground_truth": {255: "co-salient"}}
    mask_HW = dataset.first().ground_truth.get_mask()
    assert (mask_HW.shape, set(np.unique(mask_HW))) == ((12, 16), {0, 255})
    assert len(dataset.group_by("cls")) == 2


@pytest.mark.parametrize("dataset_type", ["class", "umscosod.integrations.fiftyone.exchange.importer.CoSODDataset"])
def test_from_dir(tmp_path: Path, dataset_type: str) -> None:
    from umscosod.integrations.fiftyone import CoSODDataset

    dataset = fo.Dataset.from_dir(
        dataset_dir=str(cosal2015.write(tmp_path)),
        dataset_type=CoSODDataset if dataset_type == "class" else dataset_type,
        group_field="species",
        max_samples=3,
    )
    assert dataset.values("species") == ["aeroplane"] * 3
    assert all(Path(path).is_file() for path in dataset.values("ground_truth.mask_path"))


def test_a_second_folder_leaves_the_rest_of_the_data_set_alone(tmp_path: Path) -> None:
    from umscosod.integrations.fiftyone import CoSODImporter

    plain = write_pairs(tmp_path / "pets", "", "../unused", {"cat": ["1", "2"]})
    dataset = fo.Dataset.from_importer(CoSODImporter(dataset_dir=plain))
    assert not dataset.has_field("ground_truth")
    dataset.default_mask_targets = {1: "mine"}
    dataset.mask_targets = {"other": {2: "theirs"}}
    dataset.save()
    dataset.add_importer(CoSODImporter(dataset_dir=cosal2015.write(tmp_path)))
    assert dataset.count("ground_truth") == 4
    assert dataset.count() == 6
    assert dataset.default_mask_targets == {1: "mine"}
    assert dataset.mask_targets == {"other": {2: "theirs"}, "ground_truth": {255: "co-salient"}}
