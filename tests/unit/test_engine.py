"""Labelling on Ray: the same bytes as here, whoever dies. One cluster of two workers for all tests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.jobs import assert_same, read_results
from tests.processes import PATIENCE_S, read_command, wait_until
from tests.synthetic import tiny_collection
from umscosod import cli
from umscosod.engine import RayEngine, _Connection
from umscosod.errors import ConfigError, EngineError, MissingDependencyError

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.xdist_group("ray")  # one cluster, in one of the processes of the tests
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
HEAD = """
import sys, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}


def python(*words: str, cache: Path | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, **QUIET, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    if cache is not None:
        environment["UMSCOSOD_CACHE"] = str(cache)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *words], env=environment, text=True, **pipes)


class Place:
    """Images, one of them broken, with a cache and an output folder for each way of labelling them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        tiny_collection(root, groups=2, images=3, size=64)
        (root / "image" / "coffee" / "broken.jpg").write_bytes(b"no picture")
        self.told = finish(self.label("here"))

    def label(self, name: str, *flags: str) -> subprocess.Popen[str]:
        line = [str(self.root / "image"), "--out", str(self.root / name), "--preset", "smoke", "--device", "cpu"]
        line += ["--train", "always", "--config.train.epochs", "1", *flags]
        return python("-m", "umscosod.cli", "label", *line, cache=self.root / f"cache-{name}")

    def results(self, name: str) -> dict[str, bytes]:
        return read_results(self.root / name)


def finish(job: subprocess.Popen[str]) -> str:
    said, complaint = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1, f"{said}\n{complaint}"  # one image is broken
    return complaint


def processes_below(process: int) -> list[int]:
    """All that a process has started, and these; by parents, as Ray's processes write over their environment."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found, left = [], [process]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def kill_one(head: int, title: str) -> None:
    """End the first worker that is at such work."""
    found: list[int] = []

    def look() -> bool:
        found.extend(one for one in processes_below(head) if read_command(one).startswith(title))
        return bool(found)

    assert wait_until(look, 120.0), f"no {title}"
    os.kill(found[0], signal.SIGKILL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[int, str]]:
    """Process and address of a Ray with two workers."""
    head = python("-c", HEAD)
    assert head.stdout is not None
    yield head.pid, head.stdout.readline().strip()
    below = processes_below(head.pid)
    for one in (head.pid, *below):  # not asked to end: that is Ray's own affair
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    head.communicate()


def ray_flags(address: str) -> Sequence[str]:
    return "--engine", "ray", "--address", address


@needs_ray
def test_ray_gives_the_same_bytes_with_a_broken_image_and_killed_workers(
    place: Place, cluster: tuple[int, str]
) -> None:
    head, address = cluster
    job = place.label("ray", *ray_flags(address))
    kill_one(head, "ray::_Actor")  # encodes
    kill_one(head, "ray::call_at_home")  # has a group
    told = finish(job)
    assert_same(place.results("here"), place.results("ray"))
    assert "coffee/broken.jpg: left out" in told
    assert set(place.told.splitlines()) <= set(told.splitlines())


@needs_ray
def test_a_killed_driver_leaves_nothing_running_and_is_resumed(place: Place, cluster: tuple[int, str]) -> None:
    job = place.label("resumed", "--engine", "ray")  # a Ray of its own
    wait_until((place.root / "resumed" / "pseudo" / "manifest.jsonl").is_file)
    started = {one: read_command(one) for one in processes_below(job.pid)}
    assert any("raylet" in command for command in started.values())
    job.kill()
    job.communicate(timeout=PATIENCE_S)
    # Ray's two agents look for their raylet now and then only: they take up to a minute
    own = [one for one, command in started.items() if "Agent" not in command]
    assert wait_until(lambda: not any(read_command(one) for one in own), 60.0), [read_command(one) for one in own]
    told = finish(place.label("resumed", *ray_flags(cluster[1])))
    assert set(told.splitlines()) <= set(place.told.splitlines()), "Ray itself says nothing"
    assert_same(place.results("here"), place.results("resumed"))


@needs_ray
def test_a_terminated_driver_ends_its_ray(place: Place) -> None:
    job = place.label("stopped", "--engine", "ray")
    wait_until(lambda: any((place.root / "cache-stopped").rglob("*.safetensors")))  # a worker has begun
    started = processes_below(job.pid)
    job.terminate()
    _, complaint = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 143
    assert "terminated; the same command resumes" in complaint
    assert wait_until(lambda: not any(read_command(one) for one in started), 60.0)


@needs_ray
def test_an_address_without_a_cluster_is_an_error_in_one_line(place: Place) -> None:
    job = place.label("nowhere", *ray_flags("127.0.0.1:9"))
    _, complaint = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 2
    assert complaint.splitlines()[-1].startswith("error: Ray (127.0.0.1:9) cannot be started or reached")


@needs_ray
def test_engines_of_one_process_share_its_ray_and_the_last_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"on": False}

    def switch(on: bool) -> Callable[..., None]:
        return lambda **_: state.update(on=on)

    first, second, elsewhere = RayEngine(), RayEngine(), RayEngine("10.0.0.5:6379")
    fake = SimpleNamespace(init=switch(True), shutdown=switch(False), is_initialized=lambda: state["on"])
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr("umscosod.engine._connection", _Connection())
    for engine in (first, second, second):
        engine._start()
    with pytest.raises(EngineError, match="another job of this process works on Ray"):
        elsewhere._start()
    first.close()
    first.close()
    assert state["on"], "the second still needs it"
    second.close()
    assert not state["on"]


@needs_ray
def test_something_else_at_the_address_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umscosod.engine._PATIENCE_S", 1.0)
    monkeypatch.setattr("umscosod.engine._START_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"what listens at {address} does not answer as Ray"):
            RayEngine(address).__enter__()


@needs_ray
@pytest.mark.parametrize(
    ("nodes", "share", "actors"),
    [
        ([(8, 2)], 0.4, 4),  # two on each GPU, and none on both
        ([(1, 4), (16, 0)], 1.0, 1),  # one core beside four GPUs, and no GPU beside the others
        ([(8, 4), (8, 3)], 2.0, 3),
        ([(8, 2), (4, 0)], 0.0, 12),
    ],
)
def test_no_more_actors_than_find_room_at_once(
    nodes: list[tuple[int, int]], share: float, actors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = RayEngine(gpus_per_actor=share)
    listed = [{"Alive": True, "Resources": {"CPU": float(cpu), "GPU": float(gpu)}} for cpu, gpu in nodes]
    monkeypatch.setattr(engine, "_ray", SimpleNamespace(nodes=lambda: [*listed, {"Alive": False, "Resources": {}}]))
    assert engine._count_actors(share) == actors


@needs_ray
@pytest.mark.parametrize("has_ended", [False, True])
def test_work_that_is_left_after_its_ray_has_ended_starts_no_other(
    monkeypatch: pytest.MonkeyPatch, *, has_ended: bool
) -> None:
    """Ray starts itself anew at a call after its end; a stopped job's results are let go of late."""
    cancelled: list[object] = []
    task = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: object()))
    ray = SimpleNamespace(
        put=lambda work: work,
        cluster_resources=lambda: {"CPU": 1.0},
        remote=lambda function: task,
        get=lambda one: (one, []),
        cancel=lambda one, force: cancelled.append(one),
        is_initialized=lambda: not has_ended,
        exceptions=SimpleNamespace(RayTaskError=RuntimeError, RayError=RuntimeError),
    )
    engine = RayEngine()
    monkeypatch.setattr(engine, "_ray", ray)
    monkeypatch.setattr(engine, "_start", lambda: ray)
    results = engine.map(str, range(20))
    next(results)
    results.close()
    assert bool(cancelled) is not has_ended


def test_without_ray_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="the package ray"):
        RayEngine()
    assert cli.main(["label", str(tmp_path), "--out", str(tmp_path / "out"), "--engine", "ray"]) == 2
    assert capsys.readouterr().err.endswith('run: pip install "umscosod[ray]"\n')


@pytest.mark.parametrize("flags", [["--address", "auto"], ["--gpus-per-actor", "0.5"]])
def test_flags_of_ray_are_refused_without_it(
    flags: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["label", str(tmp_path), "--out", str(tmp_path / "out"), *flags]) == 2
    assert f"{' '.join(flags)} is of use with --engine ray only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"address": " "}, "no address"),
        ({"address": "ray://a:1"}, "no address"),
        ({"gpus_per_actor": -1.0}, "a share from 0 to 1 or a whole number"),
        ({"gpus_per_actor": 1.5}, "a share from 0 to 1 or a whole number"),
        ({"gpus_per_actor": float("nan")}, "nan"),
    ],
)
def test_what_is_no_address_or_share_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RayEngine(**arguments)  # type: ignore[arg-type]


@needs_ray
@pytest.mark.parametrize(
    ("share", "here", "there"),
    [(None, "cuda:1", "cuda"), (None, "cpu", "cpu"), (0.0, "cuda", "cpu"), (0.5, "cpu", "cuda")],
)
def test_a_share_of_a_gpu_decides_where_networks_run(share: float | None, here: str, there: str) -> None:
    assert RayEngine(gpus_per_actor=share).network_device(here) == there
