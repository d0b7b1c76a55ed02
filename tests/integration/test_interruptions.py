"""Runs on a data set stopped at any point: nothing half-written is pointed to, and the next call does the rest only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.integration.servers import Mongod
from tests.integration.toys import DatasetFactory
from tests.jobs import quick_config
from umscosod.config import PipelineConfig
from umscosod.errors import Cancelled, DataError
from umscosod.integrations import fiftyone as ours
from umscosod.integrations.fiftyone import fields
from umscosod.progress import stage_name

pytestmark = pytest.mark.mongod

ROOT = Path(__file__).resolve().parents[2]
Label = tuple[bytes | None, bytes | None, float | None, str | None]
"""Files and values of one sample: mask, map, confidence, status."""


class Driver:
    """The program that kills itself; see kill_at_command.py."""

    def __init__(self, cache: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        line = [sys.executable, str(ROOT / "tests" / "integration" / "kill_at_command.py"), str(cache)]
        self.process = subprocess.Popen(
            line, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, dataset: Any, verb: str, *, kill: int | None = None, **options: Any) -> list[str]:
        """Do it in a process of its own; gives the changes that it made to the database."""
        task = {"dataset": dataset.name, "verb": verb, "options": options, "kill": kill}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["status"] == (0 if kill is None else -signal.SIGKILL), f"{task}: {answer}"
        dataset.reload()
        return list(answer["commands"])

    def close(self) -> None:
        self.process.communicate()  # it ends with its input


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


def read_labels(dataset: Any, field: str) -> dict[str, Label]:
    """By group and file name; asserts that all that is pointed to is whole, and that a status comes last."""
    labels: dict[str, Label] = {}
    if not dataset.has_field(f"{field}_review"):  # the last one declared: no label comes before
        assert not dataset.has_field(field) or not dataset.count(field)
        return labels
    has_maps = dataset.has_field(f"{field}_map")
    for sample in dataset.iter_samples():
        mask, status = sample[field], sample[f"{field}_status"]
        heatmap = sample[f"{field}_map"] if has_maps else None
        files = [None if label is None else Path(path) for label, path in ((mask, mask and mask.mask_path),)]
        files += [None if heatmap is None else Path(heatmap.map_path)]
        for file in filter(None, files):
            with Image.open(file) as picture:
                picture.load()
                assert picture.format == "PNG"
        if status is not None:
            assert status in ("labelled", "empty")
            assert mask is not None
            assert (heatmap is not None) == has_maps
            assert sample[f"{field}_confidence"] is not None
        contents = [None if file is None else file.read_bytes() for file in files]
        name = "/".join(Path(sample.filepath).parts[-2:])
        labels[name] = (contents[0], contents[1], sample[f"{field}_confidence"], status)
    return labels


def stop_at(stage: str) -> Callable[[int, int, str], None]:
    """Cancel in the middle of a stage."""

    def progress(done: int, total: int, name: str) -> None:
        if stage_name(name) == stage and done >= total // 2:
            raise Cancelled("stop")

    return progress


# ---- the calls, and what they give undisturbed


def label(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.label_dataset(dataset, group_field="cls", config=config, **options)


def pseudo(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.pseudo_label_dataset(dataset, group_field="cls", config=config, **options)


def train(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.train_dataset(dataset, group_field="cls", config=config, labels="ground_truth", **options)


def predict(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.predict_dataset(dataset, "network", group_field="cls", config=config, **options)


def refine(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.refine_dataset(dataset, "predicted", config=config, **options)


CALLS = {
    "label": (label, "cosal", ("features", "pseudo-labels", "training", "prediction", "refinement")),
    "pseudo": (pseudo, "pseudo", ("features", "pseudo-labels")),
    "train": (train, "network", ("features", "training", "prediction")),
    "predict": (predict, "predicted", ("features", "prediction", "refinement")),
    "refine": (refine, "refined", ("features", "stored maps", "refinement")),
}
NEEDS: dict[str, tuple[str, ...]] = {"predict": ("train",), "refine": ("train", "predict")}


def prepare(dataset: Any, config: PipelineConfig, name: str) -> None:
    for needed in NEEDS.get(name, ()):
        CALLS[needed][0](dataset, config)


def outcome_of(dataset: Any, field: str) -> Any:
    """Labels of a run, or the bytes of its network."""
    if dataset.has_field(field):
        return read_labels(dataset, field)
    return (Path(ours.get_run(dataset, field).checkpoint) / "model.safetensors").read_bytes()


def checkpoint_times(folder: Path) -> list[tuple[str, int]]:
    """When each checkpoint was written."""
    files = folder.glob("part-*/run/checkpoints/*/state.pt")
    return sorted((file.parent.name, file.stat().st_mtime_ns) for file in files)


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
        assert ours.get_run(dataset, field).state == "running"
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


def folder_of(dataset: Any, key: str = "cosal") -> Path:
    """Folder of a run, also of one that is not recorded yet."""
    from umscosod.integrations.fiftyone.places import run_folder

    return run_folder(dataset, key).resolve()


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


# ---- the tab is closed


def test_a_closed_tab_stops_the_job_and_a_second_click_is_turned_away(
    make: Callable[[], Any], config: PipelineConfig
) -> None:
    import fiftyone.operators as foo
    from fiftyone.operators.executor import ExecutionContext, Executor

    whole, dataset = make(), make()
    label(whole, config)
    operator = foo.get_operator("@umscosod/umscosod/label")
    settings = f"train.epochs={config.train.epochs}\nfeatures.cache_dir={config.features.cache_dir}"
    params = {"group_field": "cls", "field": "cosal", "preset": "smoke", "device": "cpu", "settings": settings}
    request = {"dataset_name": dataset.name, "params": params}
    reports = operator.execute(ExecutionContext(request_params=request, executor=Executor()))
    while not next(reports).body.params["label"].startswith("pseudo-labels"):
        pass
    with pytest.raises(DataError, match="is being worked on by another process"):
        label(dataset, config)
    reports.close()
    for thread in threading.enumerate():
        if thread.name == "umscosod-operator":
            thread.join(30)
    dataset.reload()
    assert all(status is None for *_, status in read_labels(dataset, "cosal").values())
    assert ours.get_run(dataset, "cosal").state == "running"
    foo.execute_operator(operator.uri, {"dataset": dataset, "params": params})
    dataset.reload()
    assert ours.get_run(dataset, "cosal").state == "complete"
    assert read_labels(dataset, "cosal") == read_labels(whole, "cosal")
