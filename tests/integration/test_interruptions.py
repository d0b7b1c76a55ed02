"""Runs on a data set stopped at any point: nothing half-written is pointed to, and the next call does the rest only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.interrupted import (
    CALLS,
    Driver,
    checkpoint_times,
    folder_of,
    label,
    outcome_of,
    prepare,
    read_labels,
    stop_at,
)
from tests.integration.servers import Mongod
from tests.integration.toys import DatasetFactory
from tests.jobs import quick_config
from tests.processes import PATIENCE_S
from umscosod.config import PipelineConfig
from umscosod.errors import Cancelled, DataError
from umscosod.integrations import fiftyone as ours
from umscosod.integrations.fiftyone.runs import fields
from umscosod.progress import ProgressFn, stage_name

pytestmark = pytest.mark.mongod


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def driver(mongod: Mongod, cache: Path) -> Iterator[Driver]:
    """Started first of all: it loads its libraries while the tests before its first use run."""
    driver = Driver(cache)
    yield driver
    driver.close()


@pytest.fixture(scope="module")
def config(cache: Path) -> PipelineConfig:
    return quick_config(cache)


@pytest.fixture
def make(dataset_factory: DatasetFactory) -> Callable[[], Any]:
    """A data set of 2 x 2 small pictures, each time of the same ones."""
    return lambda: dataset_factory(n_images=2, size_hw=(64, 80))


@pytest.mark.parametrize("name", CALLS)
def test_a_call_cancelled_in_each_stage_is_finished_by_the_same_call(
    make: Callable[[], Any], config: PipelineConfig, name: str
) -> None:
    call, field, stages = CALLS[name]
    whole, seen = make(), []
    prepare(whole, config, name)
    call(whole, config, progress=lambda done, total, stage: seen.append(stage_name(stage)))
    assert tuple(dict.fromkeys(seen)) == stages
    dataset = make()
    prepare(dataset, config, name)
    trained = []
    for stage in stages:
        with pytest.raises(Cancelled):
            call(dataset, config, progress=stop_at(stage))
        assert ours.get_run(dataset, field).state == "interrupted"
        assert all(status is None for *_, status in read_labels(dataset, field).values())
        if "training" in stages and stages.index(stage) > stages.index("training"):
            trained.append(checkpoint_times(ours.get_run(dataset, field).folder))
    call(dataset, config)
    if trained:  # what was trained is not trained again
        assert trained[0]
        assert all(times == checkpoint_times(ours.get_run(dataset, field).folder) for times in trained)
    assert ours.get_run(dataset, field).state == "complete"
    assert outcome_of(dataset, field) == outcome_of(whole, field)
    assert sorted(file.name for file in ours.get_run(dataset, field).folder.glob("part-*.json")) == ["part-001.json"]


# ---- killed


def from_first(commands: list[str], wanted: str) -> list[int]:
    """Numbers of the commands from the first of a kind on."""
    first = next(number for number, command in enumerate(commands, 1) if command.startswith(wanted))
    return list(range(first, len(commands) + 1))


def test_killed_at_any_change_to_the_database(make: Callable[[], Any], driver: Driver) -> None:
    whole = make()
    commands = driver(whole, "label", train=False)
    labels = read_labels(whole, "cosal")
    assert all(mask is not None and status for mask, _, _, status in labels.values())
    first_batch = from_first(commands, "update samples")[:12]  # all six values of it
    for kill in sorted({*first_batch, *from_first(commands, "insert runs")[::4], len(commands)}):
        dataset = make()
        driver(dataset, "label", train=False, kill=kill)
        before = read_labels(dataset, "cosal")
        done = {name for name, (*_, status) in before.items() if status is not None}
        assert all(before[name] == labels[name] for name in done)
        written = {file: file.stat().st_mtime_ns for file in folder_of(dataset).glob("part-001/masks/**/*.png")}
        driver(dataset, "label", train=False)
        assert read_labels(dataset, "cosal") == labels, f"killed before {commands[kill - 1]}, number {kill}"
        assert all(file.stat().st_mtime_ns == time_ns for file, time_ns in written.items())
        (run,) = ours.list_runs(dataset)
        assert (run.state, run.n_samples, sum(run.counts.values())) == ("complete", 4, 4)
        assert run.backbones
        assert [file.name for file in folder_of(dataset).iterdir() if file.suffix] == ["part-001.json"]


def test_killed_while_labels_are_replaced(make: Callable[[], Any], driver: Driver) -> None:
    def replace(kill: int | None = None) -> tuple[Any, list[str]]:
        dataset = make()
        driver(dataset, "label", train=False)
        return dataset, driver(dataset, "label", train=False, overwrite=True, seed=5, kill=kill)

    whole, commands = replace()
    labels, last = read_labels(whole, "cosal"), len(commands)
    writes = [n for n in range(1, last + 1) if commands[n - 1].startswith("update samples")]
    for kill in (*writes[1::5], last - 4, last - 1, last):
        dataset, _ = replace(kill)
        read_labels(dataset, "cosal")  # every file that is pointed to is there
        driver(dataset, "label", train=False, overwrite=True, seed=5)
        assert read_labels(dataset, "cosal") == labels, f"killed before {commands[kill - 1]}, number {kill}"
        assert sorted(file.name for file in folder_of(dataset).iterdir()) == ["part-002", "part-002.json"]


def test_killed_while_training_is_recorded(make: Callable[[], Any], driver: Driver) -> None:
    whole = make()
    commands = driver(whole, "train", labels="ground_truth")
    network = outcome_of(whole, "network")
    for kill in from_first(commands, "insert runs"):
        dataset = make()
        driver(dataset, "train", labels="ground_truth", kill=kill)
        before = checkpoint_times(folder_of(dataset, "network"))
        if ours.list_runs(dataset) and ours.get_run(dataset, "network").state == "complete":
            assert outcome_of(dataset, "network") == network
            continue
        driver(dataset, "train", labels="ground_truth")
        assert not before or checkpoint_times(folder_of(dataset, "network")) == before
        assert outcome_of(dataset, "network") == network, f"killed before {commands[kill - 1]}, number {kill}"
        assert len(list(folder_of(dataset, "network").glob("part-*.json"))) == 1


def test_a_deletion_killed_at_any_change_can_be_repeated(make: Callable[[], Any], driver: Driver) -> None:
    dataset = make()
    schema = set(dataset.get_field_schema())
    pictures = dataset.values("filepath")
    driver(dataset, "label", train=False)
    folder = folder_of(dataset)
    commands = driver(dataset, "delete", key="cosal")
    for kill in from_first(commands, "update samples"):
        driver(dataset, "label", train=False)
        driver(dataset, "delete", key="cosal", kill=kill)
        read_labels(dataset, "cosal")
        if ours.list_runs(dataset):
            driver(dataset, "delete", key="cosal")
        assert set(dataset.get_field_schema()) == schema, f"killed before {commands[kill - 1]}, number {kill}"
        assert ours.list_runs(dataset) == []
        assert not folder.exists()
    assert all(Path(path).is_file() for path in pictures)


# ---- the database goes away


def test_a_database_that_stops_while_labels_are_written(
    make: Callable[[], Any], config: PipelineConfig, mongod: Mongod, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fiftyone as fo
    from pymongo.errors import PyMongoError

    whole, dataset = make(), make()
    label(whole, config, train=False)
    set_values, calls = fo.Dataset.set_values, []

    def stop_first(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(args[0])
        if len(calls) == 9:  # in the second batch
            mongod.stop()
        return set_values(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fields, "WRITE_BATCH", 2)
        patch.setattr(fo.Dataset, "set_values", stop_first)
        with pytest.raises(PyMongoError):
            label(dataset, config, train=False)
    mongod.start()
    dataset.reload()
    statuses = [status for *_, status in read_labels(dataset, "cosal").values()]
    assert statuses.count(None) == 2
    assert label(dataset, config, train=False).is_success
    assert read_labels(dataset, "cosal") == read_labels(whole, "cosal")


# ---- the job is stopped in the App


def test_a_stopped_job_goes_on_and_a_second_click_is_turned_away(
    make: Callable[[], Any], config: PipelineConfig
) -> None:
    from plugin.jobs import AppJob, JobEnd

    whole, dataset = make(), make()
    label(whole, config)
    begun, go_on = threading.Event(), threading.Event()

    def work(report: ProgressFn, whole_job: Any) -> JobEnd:
        def tell(done: int, total: int, stage: str) -> None:
            if stage.startswith("pseudo-labels"):
                begun.set()
                go_on.wait(PATIENCE_S)
            report(done, total, stage)

        return JobEnd(summary=label(dataset, config, progress=tell).summary)

    job = AppJob("label", dataset.name, "@umscosod/umscosod/label", {}, work)
    job.start()
    assert begun.wait(PATIENCE_S)
    with pytest.raises(DataError, match="is being worked on by another process"):
        label(dataset, config)
    job.stop()
    go_on.set()
    job.join(PATIENCE_S)
    assert job.message.startswith("Stopped.")
    dataset.reload()
    assert all(status is None for *_, status in read_labels(dataset, "cosal").values())
    assert ours.get_run(dataset, "cosal").state == "interrupted"
    assert label(dataset, config).is_success
    dataset.reload()
    assert ours.get_run(dataset, "cosal").state == "complete"
    assert read_labels(dataset, "cosal") == read_labels(whole, "cosal")


def test_a_run_begun_by_another_process_is_found(
    make: Callable[[], Any], config: PipelineConfig, driver: Driver
) -> None:
    dataset = make()
    driver(dataset, "label", train=False, reload=False)
    assert not dataset.has_field("cosal")  # as it was when it was loaded here
    assert label(dataset, config, train=False).summary == "cosal: 4 kept"
