"""One group: what is judged is what is written."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from umscosod.confidence.judge import judge_group
from umscosod.config import CrfConfig, PipelineConfig
from umscosod.data.groups import find_groups
from umscosod.engine import Work
from umscosod.errors import DataError
from umscosod.features.backbone import build_backbones
from umscosod.pipeline.identity import specify
from umscosod.pipeline.maps import NETWORK, PROBE, Source
from umscosod.pipeline.predictor import CoSalPredictor
from umscosod.pipeline.segment import segment_group
from umscosod.pipeline.setup import prepare
from umscosod.pipeline.stages import _finish_each, segment_stage
from umscosod.progress import ignore_progress
from umscosod.refine.crf import CrfInput
from umscosod.refine.crf_torch import TorchCrf
from umscosod.types import BoolArray, GroupFeatures


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


class Here(TorchCrf):
    """The form for CUDA, at work on the CPU; it counts."""

    images = 0

    def __init__(self, device: str) -> None:
        assert device == "cuda"
        super().__init__("cpu")

    def refine_all(self, starts: Sequence[CrfInput], config: CrfConfig) -> list[tuple[BoolArray, bool, str]]:
        Here.images += len(starts)
        return super().refine_all(starts, config)


class InThisProcess:
    """An engine that does its work at once, as a worker would: what it is sent can be pickled."""

    def network_device(self, here: str) -> str:
        return here

    def map(self, work: Work[Any, Any], items: Iterable[Any], *, network_on: str = "") -> Iterator[Any]:
        return (pickle.loads(pickle.dumps(work))(item) for item in items)


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    monkeypatch.setattr("umscosod.refine.crf_torch.TorchCrf", Here)
    monkeypatch.setattr("umscosod.refine.crf_pool.WorkerPool", None)  # no process is opened
    monkeypatch.setattr(Here, "images", 0)
    return Here


@pytest.mark.parametrize("by_engine", [False, True])
def test_a_job_on_cuda_refines_there_and_a_worker_of_an_engine_on_the_cpu(
    tmp_path: Path, images: Path, config: PipelineConfig, on_cuda: type[Here], *, by_engine: bool
) -> None:
    config = replace(config, refine=replace(config.refine, crf=CrfConfig(size_px=32, workers=4)))
    spec = specify(tmp_path / "out", config, "label")
    with prepare(find_groups(images, spec.out), spec, overwrite=False, progress=ignore_progress) as prepared:
        prepared = replace(prepared, config=replace(prepared.config, device="cuda"))
        prepared.features.engine = InThisProcess() if by_engine else None
        rows = segment_stage(prepared, [Source(name="any", b_bar=0.1, make_maps=BlobMaps())], ignore_progress)
    assert len(rows) == 6
    assert all((tmp_path / "out" / "masks" / row.output).is_file() for row in rows)
    assert on_cuda.images == (0 if by_engine else 6)


def test_a_group_is_begun_before_the_one_before_it_is_finished() -> None:
    said: list[str] = []

    def begin(name: str) -> Any:
        said.append(f"begin {name}")
        return lambda: said.append(f"finish {name}") or [name]

    assert list(_finish_each(begin(name) for name in "abc")) == [["a"], ["b"], ["c"]]
    assert said == ["begin a", "begin b", "finish a", "begin c", "finish b", "finish c"]
    assert list(_finish_each(iter(()))) == []


def test_a_group_that_cannot_be_begun_costs_none_before_it() -> None:
    def begun() -> Iterator[Any]:
        yield lambda: ["a"]
        yield lambda: ["b"]
        raise DataError("no c")

    made = _finish_each(begun())
    assert [next(made), next(made)] == [["a"], ["b"]]
    with pytest.raises(DataError, match="no c"):
        next(made)


class BlobMaps:
    def __call__(self, features: GroupFeatures) -> np.ndarray:
        return blob(features, 0.9)


def test_a_model_in_memory_refines_on_cuda_in_a_block_and_outside(
    features: GroupFeatures, config: PipelineConfig, on_cuda: type[Here]
) -> None:
    config = replace(config, refine=replace(config.refine, crf=CrfConfig(size_px=32, workers=4)))
    pair = build_backbones(config.features, torch.device("cpu"))
    model = CoSalPredictor(config, pair, torch.device("cuda"))
    pictures = list(features.pictures_NHW3)
    outside = model.predict_group(pictures)
    assert on_cuda.images == 3
    with model:
        inside = model.predict_group(pictures)
    assert on_cuda.images == 6
    for one, other in zip(outside, inside, strict=True):
        np.testing.assert_array_equal(one.mask_HW, other.mask_HW)
