"""Runs whose work is done on Ray: the same labels, from Python, from the queue, from a thread, and gone on with."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits

from tests.integration.interrupted import stop_at
from tests.integration.toys import DatasetFactory
from tests.jobs import quick_config
from umscosod import engine as engines
from umscosod.config import PipelineConfig
from umscosod.engine import RayEngine
from umscosod.errors import Cancelled, ConfigError, EngineError
from umscosod.integrations import fiftyone as ours

pytestmark = [
    pytest.mark.mongod,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]
URI = "@umscosod/umscosod"


@pytest.fixture(scope="module")
def ray() -> Iterator[RayEngine]:
    """A Ray of two workers: the engines of this process share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "count_cores", lambda: 2)
        with RayEngine() as engine:
            assert list(engine.map(len, ["ab"])) == [2]
            yield engine
    assert not importlib.import_module("ray").is_initialized(), "a job has left its share open"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As Ray's workers have: with more, sums round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return quick_config(tmp_path / "cache")


def read_fields(dataset: Any, field: str = "cosal") -> dict[str, Any]:
    """All that a run has written of each picture, files by their bytes."""
    dataset.reload()
    found = {}
    for sample in dataset:
        mask, soft = Path(sample[field].mask_path), Path(sample[f"{field}_map"].map_path)
        values = [sample[f"{field}_{name}"] for name in ("confidence", "status", "reason")]
        key = "/".join(Path(sample.filepath).parts[-2:])
        found[key] = (mask.read_bytes(), soft.read_bytes(), sample[field].provenance, *values)
    return found


def tasks_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is sent to Ray from now on."""
    sent: list[str] = []
    real = RayEngine.map

    def watched(self: RayEngine, work: Any, items: Any, **given: Any) -> Iterator[Any]:
        sent.append(work.func.__name__)
        return real(self, work, items, **given)

    monkeypatch.setattr(RayEngine, "map", watched)
    return sent


@pytest.mark.parametrize(
    ("engine", "error", "message"),
    [("127.0.0.1:9", EngineError, "cannot be started or reached"), ("nowhere", ConfigError, "no address")],
)
def test_an_engine_that_is_not_there_leaves_no_run(
    engine: str, error: type[Exception], message: str, toy_dataset: Any, config: PipelineConfig
) -> None:
    with pytest.raises(error, match=message):
        ours.label_dataset(toy_dataset, group_field="cls", config=config, engine=engine)
    assert toy_dataset.list_runs() == []


def test_what_an_engine_cannot_do_leaves_no_run(toy_dataset: Any, tmp_path: Path) -> None:
    config = quick_config(tmp_path)
    with pytest.raises(Cancelled):
        ours.pseudo_label_dataset(toy_dataset, group_field="cls", config=config, progress=stop_at("features"))
    with pytest.raises(ConfigError, match="'pseudo' is a run of pseudo, which works in this process"):
        ours.resume_dataset(toy_dataset, "pseudo", engine="ray")
    private = replace(config, features=replace(config.features, use_cache=False))
    with pytest.raises(ConfigError, match="use_cache is off"):
        ours.label_dataset(toy_dataset, group_field="cls", config=private, engine="ray")
    assert toy_dataset.list_runs() == ["pseudo"]


def test_a_thread_of_the_app_starts_a_ray_ends_it_and_has_the_same_labels(
    dataset_factory: DatasetFactory, tmp_path: Path
) -> None:
    here, there = (dataset_factory(n_images=2, size_hw=(64, 80)) for _ in range(2))
    call: dict[str, Any] = {"group_field": "cls", "train": True}
    ours.label_dataset(here, **call, config=quick_config(tmp_path / "here"))
    outcome: list[Any] = []

    def work() -> None:
        own = quick_config(tmp_path / "there")  # a cache of its own: images are encoded on Ray
        outcome.append(ours.label_dataset(there, **call, config=own, engine="ray"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcome[0].summary == "cosal: 4 labelled"
    assert read_fields(there) == read_fields(here)
    assert not importlib.import_module("ray").is_initialized()


def test_a_prediction_in_the_queue_works_on_it(
    dataset_factory: DatasetFactory, ray: RayEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import fiftyone.operators as foo
    from fiftyone.operators.delegated import DelegatedOperationService

    here, there = (dataset_factory(n_images=2, size_hw=(64, 80)) for _ in range(2))
    ours.label_dataset(here, group_field="cls", config=quick_config(tmp_path / "cache"), train=True)
    sent = tasks_of(monkeypatch)
    for dataset, engine in ((here, "here"), (there, "ray")):
        settings = f"features.cache_dir={tmp_path / dataset.name}"
        params = {"checkpoint": f"{here.name}/cosal", "group_field": "cls", "preset": "smoke", "device": "cpu"}
        predict = foo.get_operator(f"{URI}/predict")
        operation = predict(dataset, delegate=True, engine=engine, settings=settings, **params).result["id"]
        assert not sent
        DelegatedOperationService().execute_queued_operations(dataset_name=dataset.name, limit=1)
        assert DelegatedOperationService().get(operation).run_state == "completed"
    assert "_encode_chunk" in sent
    assert read_fields(there, "predicted") == read_fields(here, "predicted")


def test_an_interrupted_run_goes_on_with_or_without_it(
    dataset_factory: DatasetFactory, config: PipelineConfig, ray: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, first, second = (dataset_factory(n_images=2, size_hw=(64, 80)) for _ in range(3))
    call: dict[str, Any] = {"group_field": "cls", "config": config, "train": False}
    ours.label_dataset(whole, **call)
    for dataset, begun, ended in ((first, "ray", None), (second, None, "ray")):
        with pytest.raises(Cancelled):
            ours.label_dataset(dataset, **call, engine=begun, progress=stop_at("pseudo-labels"))
        sent = tasks_of(monkeypatch)
        ours.resume_dataset(dataset, "cosal", engine=ended)
        assert bool(sent) == (ended == "ray")
        assert read_fields(dataset) == read_fields(whole)
