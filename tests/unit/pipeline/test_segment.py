"""One group: what is judged is what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from umscosod.confidence.judge import judge_group
from umscosod.config import PipelineConfig
from umscosod.data.groups import find_groups
from umscosod.pipeline.identity import specify
from umscosod.pipeline.maps import NETWORK, PROBE, Source
from umscosod.pipeline.segment import segment_group
from umscosod.pipeline.setup import prepare
from umscosod.progress import ignore_progress
from umscosod.types import GroupFeatures


@pytest.fixture
def features(tmp_path: Path, images: Path, config: PipelineConfig) -> GroupFeatures:
    spec = specify(tmp_path / "out", config, "label")
    with prepare(find_groups(images, spec.out), spec, overwrite=False, progress=ignore_progress) as prepared:
        return prepared.features[0]


def blob(features: GroupFeatures, level: float) -> np.ndarray:
    maps_NHW = np.zeros((3, *features.pictures_NHW3.shape[1:3]), np.float32)
    maps_NHW[:, 30:80, 30:80] = level
    return maps_NHW


def source_of(name: str, maps_NHW: np.ndarray, b_bar: float = 0.1) -> Source:
    return Source(name=name, b_bar=b_bar, make_maps=lambda _: maps_NHW)


def test_the_group_is_judged_with_a_persons_mask_in_place(features: GroupFeatures, config: PipelineConfig) -> None:
    sources = [source_of("any", blob(features, 0.9))]
    human = features.group.images[1].id
    own_HW = np.zeros(features.sizes_hw[1], bool)
    own_HW[5:20, 5:20] = True
    segments, judged = segment_group(features, sources, config, own_masks={human: own_HW})
    assert segments[1].mask_HW is own_HW
    assert (segments[1].source, segments[1].confidence, segments[1].reason) == ("human", 1.0, "")
    assert judged == judge_group(features, [one.mask_HW for one in segments], config.confidence)
    _, alone = segment_group(features, sources, config)
    assert alone.masks[0].cues["agreement"] != judged.masks[0].cues["agreement"]


def test_two_sources_are_one_mean_by_its_share(features: GroupFeatures, config: PipelineConfig) -> None:
    sources = [source_of(NETWORK, blob(features, 0.9), 0.2), source_of(PROBE, blob(features, 0.6), 0.6)]
    (first, *_), _ = segment_group(features, sources, config)
    assert first.source == "mean"
    (alone, *_), _ = segment_group(features, sources[:1], config)
    assert (alone.source, alone.map_HW.max()) == (NETWORK, np.float32(0.9))
    assert first.map_HW.max() < alone.map_HW.max()


def test_an_empty_mask_says_why(features: GroupFeatures, config: PipelineConfig) -> None:
    empty = [source_of("any", blob(features, 0.0))]
    human = features.group.images[0].id
    segments, _ = segment_group(features, empty, config, own_masks={human: np.zeros(features.sizes_hw[0], bool)})
    assert [(one.confidence, one.mask_HW.any()) for one in segments] == [(0.0, False)] * 3
    assert segments[0].reason == "a person left it empty"
    assert segments[1].reason.startswith("no region passed the threshold")
