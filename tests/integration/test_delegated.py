"""Long jobs in FiftyOne's queue, with its real worker: done, killed, taken up again, stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.toys import DatasetFactory
from umscosod.config import PipelineConfig
from umscosod.config.io import load_config
from umscosod.errors import DataError
from umscosod.integrations import fiftyone as ours
from umscosod.integrations.fiftyone.runs.fields import run_folder

pytestmark = [pytest.mark.mongod, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 900  # starting a worker's child takes 7 s when nothing else runs
EPOCHS, MANY = 100, 5000


class Queue:
    """FiftyOne's queue, and the workers that a test starts and kills."""

    def __init__(self, log: Path) -> None:
        from fiftyone.operators.delegated import DelegatedOperationService

        self.service = DelegatedOperationService()
        self.log = log
        self.workers: list[subprocess.Popen[bytes]] = []
        self.seen: set[str] = set()

    def add(self, name: str, dataset: Any, **params: Any) -> Any:
        """Queue an operator as a call from Python does; gives the operation's id."""
        import fiftyone.operators as foo

        operator = foo.get_operator(f"@umscosod/umscosod/{name}")
        return operator(dataset, delegate=True, **params).result["id"]

    def launch(self) -> None:
        """``fiftyone delegated launch -m --monitor-interval 2``."""
        command = [Path(sys.executable).with_name("fiftyone"), "delegated", "launch", "-m", "--monitor-interval", "2"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self.workers.append(worker)

    def wait(self, operation: Any, is_there: Callable[[Any], bool]) -> Any:
        """Wait until an operation is as wanted, noting the progress that the queue shows meanwhile."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            found = self.service.get(operation)
            self.seen.add(found.status.label if found.status else "")
            if is_there(found):
                return found
            assert found.run_state != "failed", found.result.error
            time.sleep(0.1)
        raise TimeoutError(f"{found.run_state} {found.status}:\n{self.log.read_text(encoding='utf-8')[-4000:]}")

    def children(self) -> list[Any]:
        """Processes of the last worker: one job, and what Python keeps beside it."""
        import psutil

        return list(psutil.Process(self.workers[-1].pid).children(recursive=True))

    def kill_worker(self) -> None:
        self.workers[-1].kill()
        self.workers[-1].wait(WAIT_S)

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                children = self.children() if worker is self.workers[-1] else []
                worker.kill()  # first: a dead child stays in the list of processes while its parent lives
                worker.wait(WAIT_S)
                kill_all(children)


def kill_all(processes: list[Any]) -> None:
    import psutil

    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:  # it ended by itself
            continue
    psutil.wait_procs(processes, timeout=WAIT_S)


def is_training(operation: Any, steps: int = 10) -> bool:
    """Whether the queue shows training, some way in."""
    label = operation.status.label if operation.status else ""
    return label.startswith("training ") and int(label.split()[1].split("/")[0]) >= steps


@pytest.fixture
def queue(dataset_factory: DatasetFactory, tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path / "worker.log")
    yield queue
    queue.close()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Parameters of an operator."""
    lines = f"train.epochs={EPOCHS}\nfeatures.cache_dir={tmp_path / 'cache'}"
    return {"group_field": "cls", "preset": "smoke", "device": "cpu", "settings": lines}


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    """The same as a configuration."""
    overrides = {"train.epochs": EPOCHS, "features.cache_dir": str(tmp_path / "cache"), "device": "cpu"}
    return load_config("smoke", overrides=overrides)


def read_masks(dataset: Any) -> dict[str, bytes]:
    paths = zip(*dataset.values(["filepath", "cosal.mask_path"]), strict=True)
    return {"/".join(Path(image).parts[-2:]): Path(mask).read_bytes() for image, mask in paths}


def read_network(dataset: Any) -> bytes:
    return (Path(ours.get_run(dataset, "network").checkpoint) / "model.safetensors").read_bytes()


def test_a_delegated_job_killed_in_training_goes_on_and_others_follow(
    queue: Queue, dataset_factory: DatasetFactory, settings: dict[str, Any], config: PipelineConfig
) -> None:
    import psutil

    whole, dataset = (dataset_factory(n_images=2, size_hw=(64, 80)) for _ in range(2))
    train = {"labels": "ground_truth", **settings}

    # ---- worker and job are killed in the middle of training
    first = queue.add("train", dataset, key="network", **train)
    queue.launch()
    queue.wait(first, is_training)
    jobs = queue.children()
    queue.kill_worker()
    kill_all(jobs)
    part = run_folder(dataset, "network") / "part-001"
    stopped = sorted(folder.name for folder in (part / "run" / "checkpoints").iterdir())[-1]
    assert stopped < "step-00000200"
    dataset.reload()
    assert ours.get_run(dataset, "network").state == "interrupted"

    # ---- a new worker leaves the dead operation alone; a rerun goes on where it stopped
    queue.launch()
    label = queue.add("label", dataset, field="cosal", **settings)
    ours.train_dataset(whole, group_field="cls", labels="ground_truth", config=config)  # while the worker starts
    ours.label_dataset(whole, group_field="cls", config=config)
    queue.wait(label, lambda found: found.run_state in ("running", "completed"))
    assert queue.service.get(first).run_state == "running"
    again = queue.service.rerun_operation(first).id  # = fiftyone delegated rerun ID
    queue.wait(again, lambda found: found.run_state == "completed")
    dataset.reload()
    assert ours.get_run(dataset, "network").state == "complete"
    assert read_network(dataset) == read_network(whole)
    assert [file.name for file in part.parent.glob("part-*.json")] == ["part-001.json"]
    assert len((part / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 200

    # ---- the job that was in the queue beside it
    done = queue.wait(label, lambda found: found.run_state == "completed")
    assert done.status.label == "cosal: 4 labelled"
    assert any(shown.startswith("training ") for shown in queue.seen)
    assert ours.get_run(dataset, "cosal").state == "complete"
    assert read_masks(dataset) == read_masks(whole)
    assert set(dataset.values("cosal_status")) == {"labelled"}

    # ---- only the worker is killed: the job goes on, keeps others out, and heeds `fiftyone delegated fail ID` itself
    long = {**train, "settings": settings["settings"].replace(f"epochs={EPOCHS}", f"epochs={MANY}")}
    endless = queue.add("train", dataset, key="endless", **long)
    queue.wait(endless, is_training)
    jobs = queue.children()
    queue.kill_worker()
    with pytest.raises(DataError, match="is being worked on by another process"):
        ours.train_dataset(dataset, group_field="cls", labels="ground_truth", key="endless", config=config)
    steps = queue.service.get(endless).status.label
    queue.wait(endless, lambda found: found.status.label != steps)
    queue.service.set_failed(endless)  # = fiftyone delegated fail ID
    _, alive = psutil.wait_procs(jobs, timeout=WAIT_S)
    assert alive == []
    with pytest.raises(DataError, match=r"was interrupted, with other settings: .*train.epochs was 5000, now 100"):
        ours.train_dataset(dataset, group_field="cls", labels="ground_truth", key="endless", config=config)
