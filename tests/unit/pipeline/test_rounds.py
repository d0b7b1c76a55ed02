"""Self-training: a further round learns from labels blended with what the network makes of the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.jobs import assert_same, read_results
from umscosod.config import PipelineConfig
from umscosod.network.model import build_network
from umscosod.pipeline import label_groups
from umscosod.pipeline.setup import prepare
from umscosod.pipeline.stages import pseudo_stage, relabel
from umscosod.progress import ignore_progress
from umscosod.pseudo.store import HUMAN_SOURCE


def with_rounds(config: PipelineConfig, rounds: int) -> PipelineConfig:
    return replace(config, keep="network", train=replace(config.train, rounds=rounds, epochs=1))


def test_a_round_goes_on_from_the_one_before(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    label_groups(images, tmp_path / "two", with_rounds(config, 2))
    label_groups(images, tmp_path / "one", with_rounds(config, 1))
    assert (tmp_path / "two" / "run" / "round-1" / "checkpoints").is_dir()
    assert not (tmp_path / "one" / "run" / "round-1").exists()
    first, last = (
        next((tmp_path / "two" / run).rglob("model.safetensors")).read_bytes()
        for run in ("run/round-1", "run/checkpoints")
    )
    (only,) = (tmp_path / "one" / "run").rglob("model.safetensors")
    assert first == only.read_bytes(), "the first round is the run without further ones"
    assert last != first


def test_a_run_killed_in_its_second_round_ends_the_same(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    class Kill(BaseException):
        pass

    trained = []

    def kill(done: int, total: int, stage: str) -> None:
        trained.append(stage.startswith("training"))
        if sum(trained) == 3:  # two groups an epoch: the first step of round 2
            raise Kill

    label_groups(images, tmp_path / "whole", with_rounds(config, 2))
    try:
        label_groups(images, tmp_path / "cut", with_rounds(config, 2), progress=kill)
    except Kill:
        label_groups(images, tmp_path / "cut", with_rounds(config, 2))
    assert sum(trained) == 3
    assert_same(read_results(tmp_path / "whole"), read_results(tmp_path / "cut"))


def test_a_persons_label_is_no_target_to_blend(tmp_path: Path, images: Path, config: PipelineConfig) -> None:
    mode = {"verb": "label"}
    with prepare(images, tmp_path / "out", config, mode=mode, overwrite=False, progress=ignore_progress) as prepared:
        labels = pseudo_stage(prepared, ignore_progress)
        human, other = sorted(labels)[:2]
        labels[human] = replace(labels[human], source=HUMAN_SOURCE)
        features = prepared.features[0]
        dims = (features.first.tokens_NPD.shape[2], features.second.tokens_NPD.shape[2])
        found = relabel(prepared, labels, build_network(config.network, *dims, 0))
    assert found.keys() == labels.keys()
    assert found[human] is labels[human]
    assert found[other].is_map
    assert np.array_equal(found[other].mask_hw, found[other].map_hw >= 0.5)
