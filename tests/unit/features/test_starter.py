"""The backbone `starter`: what it gives for any picture, and what a damaged weight file says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from umscosod.config import FeaturesConfig
from umscosod.errors import ConfigError, WeightsError
from umscosod.features.backbone import build_backbones
from umscosod.features.group import sharpen_saliency
from umscosod.features.starter import SHIPPED, StarterBackbone
from umscosod.features.starter_network import StarterNetwork
from umscosod.features.starter_weights import load_starter, read_making, save_starter, sha256_of
from umscosod.types import ByteArray

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that have learnt nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = StarterNetwork()
    path = tmp_path_factory.mktemp("weights") / "starter.safetensors"
    save_starter(network, path, {"seed": 0})
    return path


def test_shapes_and_independence_of_the_others(file: Path, pictures: list[ByteArray]) -> None:
    backbone = StarterBackbone(file, 64, 16, CPU)
    encoded = backbone.encode(pictures)
    for picture, one in zip(pictures, encoded, strict=True):
        alone = backbone.encode([picture])[0]
        for name in ("tokens_PD", "keys_PK", "attn_AP"):
            array = getattr(one, name)
            assert np.array_equal(array, getattr(alone, name))
            assert array.dtype == np.float16
        assert one.tokens_PD.shape == (16, backbone.dim)
        assert one.grid_hw == backbone.grid_hw == (4, 4)
        assert one.attn_AP.shape == (2, 16)
        assert one.attn_AP.min() >= 0.0
        assert one.attn_AP.max() <= 1.0
    assert backbone.encode([]) == []


def test_a_map_that_is_learnt_moves_what_the_group_agrees_on() -> None:
    generator = np.random.default_rng(0)
    tokens_NPD = generator.normal(size=(2, 64, 5)).astype(np.float32)
    saliency_NP = generator.random((2, 64))
    is_found_P = np.zeros((8, 8), bool)
    is_found_P[2:6, 2:6] = True
    is_found_P = is_found_P.ravel()
    learnt_NP = np.where(is_found_P, 0.98, 0.02) * np.ones((2, 1))
    without, with_map = (sharpen_saliency(tokens_NPD, saliency_NP, (8, 8), one) for one in (None, learnt_NP))
    rise_NP = with_map - without
    assert rise_NP[:, is_found_P].mean() > rise_NP[:, ~is_found_P].mean() + 0.05


def test_a_side_that_does_not_fit_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="multiple of 16"):
        StarterBackbone(file, 72, 16, CPU)


def test_the_name_builds_a_pair_from_a_file(file: Path) -> None:
    config = FeaturesConfig(backbone="starter", weights=str(file))
    pair = build_backbones(config, CPU)
    assert [one.name for one in pair.both] == ["starter", "starter"]
    assert [one.grid_hw for one in pair.both] == [(28, 28), (14, 14)]
    assert all(one.weights_sha256 in one.id for one in pair.both)
    assert pair.first.id != pair.second.id
    with pytest.raises(WeightsError, match="check --weights"):
        build_backbones(replace(config, weights=str(file.with_name("none.safetensors"))), CPU)


@pytest.mark.parametrize("kept", [0, 9, 5_000])
def test_a_damaged_file_is_refused_in_one_line(file: Path, kept: int) -> None:
    with pytest.raises(WeightsError, match=r"^weights w cannot be used: .*umscosod pretrain") as caught:
        load_starter(file.read_bytes()[:kept], "w")
    assert "\n" not in str(caught.value)


def test_the_weights_of_the_package_serve_where_none_are_given(pictures: list[ByteArray]) -> None:
    """They are small, say how they were made, and are found by name alone."""
    content = SHIPPED.read_bytes()
    assert len(content) <= 6_000_000
    assert sum(parameter.numel() for parameter in load_starter(content, "w").parameters()) <= 3_000_000
    assert read_making(content)["photos"] == 9144
    first = build_backbones(FeaturesConfig(backbone="starter"), CPU).first
    assert first.weights_sha256 == sha256_of(content)
    assert first.encode(pictures)[0].attn_AP.shape == (2, 784)
