"""Networks by name or folder, from any data set of the database."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import quick_config
from umscosod.config import PipelineConfig
from umscosod.errors import CheckpointError, DataError
from umscosod.integrations import fiftyone as ours
from umscosod.integrations.fiftyone.runs.survey import checkpoint_of
from umscosod.training.checkpoint import find_checkpoint

pytestmark = pytest.mark.mongod


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return quick_config(tmp_path_factory.mktemp("cache"))


def test_networks_of_all_data_sets_by_name_and_by_folder(
    dataset_factory: Any, config: PipelineConfig, tmp_path: Path
) -> None:
    first, second = dataset_factory(), dataset_factory("birds of Chile/2024")
    options = {"group_field": "cls", "config": config}
    ours.pseudo_label_dataset(second, **options)
    outcome = ours.train_dataset(first, labels="ground_truth", **options)
    labelled = ours.label_dataset(second, train=True, **options)
    networks = [network for network in ours.list_networks() if network.dataset in (first.name, second.name)]
    assert [(network.key, network.name) for network in networks] == [
        ("cosal", "birds of Chile/2024/cosal"),
        ("network", f"{first.name}/network"),
    ]
    assert networks[0].created >= networks[1].created
    assert (networks[1].n_samples, networks[1].checkpoint) == (8, outcome.checkpoint)
    assert networks[1].backbones == ours.get_run(first, "network").backbones

    part = labelled.out / "part-001"
    for meant, wanted in (
        ("network", outcome.checkpoint),
        (f"{first.name}/network", outcome.checkpoint),
        ("birds of Chile/2024/cosal", part),
        (str(labelled.out), part),
        (labelled.out, part),
        (str(part), part),
        (str(outcome.out), outcome.out / "part-001"),
        (outcome.checkpoint, outcome.checkpoint),
        (str(outcome.checkpoint.parent), outcome.checkpoint.parent),
    ):
        assert checkpoint_of(first, meant) == wanted
        assert find_checkpoint(wanted).is_dir()
    report = ours.predict_dataset(second, f"{first.name}/network", **options)
    assert report.counts["labelled"] + report.counts["empty"] == 8

    with pytest.raises(DataError, match=r"run 'pseudo' .* has no trained network.*birds of Chile/2024/cosal"):
        checkpoint_of(second, "pseudo")
    with pytest.raises(CheckpointError, match=f"no network 'nothing': it is neither .* are: .*{first.name}/network"):
        checkpoint_of(second, "nothing")
    with pytest.raises(CheckpointError, match="no network 'birds of Chile/2024/pseudo'"):
        checkpoint_of(first, "birds of Chile/2024/pseudo")
    with pytest.raises(CheckpointError, match="it is a folder without a checkpoint"):
        checkpoint_of(first, tmp_path)
    shutil.rmtree(outcome.out)
    assert f"{first.name}/network" not in [network.name for network in ours.list_networks()]
    with pytest.raises(DataError, match="network of 'network' is gone"):
        checkpoint_of(first, "network")
