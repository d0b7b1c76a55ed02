"""Several processes train one network: by the gradient of one, the first alone writes, and a killed one ends all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import umscosod
from tests.integration.shared_training import RUNS, config_of, images_of
from tests.jobs import assert_same, read_results
from tests.processes import PATIENCE_S, find_marked, kill_marked, read_command, wait_until, wait_until_gone
from tests.synthetic import tiny_collection
from umscosod.config.io import config_to_dict

ROOT = Path(__file__).resolve().parents[2]
COMPARED = ("one-step", "run")
LONG = {"train.epochs": 24, "train.groups_per_step": 2}
"""A run with a middle to be killed in."""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two and of three groups, pseudo-labels of both, and what one process trains on them."""
    folder = tmp_path_factory.mktemp("several")
    for name, groups in (("two", 2), ("three", 3)):
        tiny_collection(folder / name, groups, 3)
        umscosod.make_pseudo_labels(folder / name / "image", folder / f"pseudo-{name}", config_of(folder))
    shutil.copytree(folder / "pseudo-two", folder / "pseudo-other")
    next((folder / "pseudo-other" / "pseudo").glob("*/*.png")).unlink()
    for name in COMPARED:
        pseudo = folder / f"pseudo-{images_of(folder, name).parent.name}"
        config = config_of(folder, **{**RUNS[name], "train.groups_per_step": 2})
        umscosod.train(images_of(folder, name), pseudo, folder / "one" / name, config)
    return folder


def environment(**more: str) -> dict[str, str]:
    """Two processes on this machine's loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return {**os.environ, **own, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", **more}


@pytest.fixture(scope="module")
def said(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes says of the same runs."""
    line, shared = [sys.executable, "-m", "tests.integration.shared_training", str(folder)], environment()
    started = [
        subprocess.Popen(line, cwd=ROOT, env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    told = [process.communicate(timeout=PATIENCE_S)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    return [json.loads((folder / f"said-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


def last_checkpoint(out: Path) -> Path:
    return sorted((out / "run" / "checkpoints").iterdir())[-1]


def test_two_processes_take_the_step_of_one_that_gathers_both_groups(folder: Path, said: list[dict[str, Any]]) -> None:
    assert said[0]["reports"]["one-step"][1] == 1
    states = [
        torch.load(last_checkpoint(folder / kind / "one-step") / "state.pt", weights_only=True)
        for kind in ("one", "several")
    ]
    one, several = (state["optimizer"]["state"] for state in states)
    assert one.keys() == several.keys()  # a parameter without a gradient stays without one
    for index in one:  # after one step Adam's first moment is a tenth of the gradient
        gradients = [moments[index]["exp_avg"] * 10 for moments in (one, several)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)
    assert max(float(moments["exp_avg"].abs().max()) for moments in one.values()) > 1e-3


@pytest.mark.parametrize("name", COMPARED)
def test_two_processes_end_with_the_weights_and_losses_of_one(
    folder: Path, said: list[dict[str, Any]], name: str
) -> None:
    one, several = (last_checkpoint(folder / kind / name) for kind in ("one", "several"))
    assert one.name == several.name
    expected, found = load_file(one / "model.safetensors"), load_file(several / "model.safetensors")
    for part, weights in expected.items():
        torch.testing.assert_close(found[part], weights, rtol=0, atol=1e-5)
    rows = [
        [json.loads(line) for line in (folder / kind / name / "run" / "metrics.jsonl").read_text().splitlines()]
        for kind in ("one", "several")
    ]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    assert [row["loss"] for row in rows[1]] == pytest.approx([row["loss"] for row in rows[0]], abs=1e-5)


def test_two_runs_of_two_processes_give_equal_bytes(folder: Path, said: list[dict[str, Any]]) -> None:
    assert_same(read_tree_of(folder / "several" / "run"), read_tree_of(folder / "several" / "again"))


def read_tree_of(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_first_process_alone_writes(said: list[dict[str, Any]]) -> None:
    assert any("metrics.jsonl" in change for change in said[0]["changes"])
    assert any("job.json" in change or ".tmp" in change for change in said[0]["changes"])
    assert said[1]["changes"] == []
    assert said[0]["reports"] == said[1]["reports"]


def test_what_processes_cannot_share_is_refused_by_each_with_the_cure(said: list[dict[str, Any]]) -> None:
    for one in said:
        assert "train.groups_per_step is 3, which 2 processes cannot share" in one["refused"]["groups"]
        assert "give a multiple of 2" in one["refused"]["groups"]
        assert "features.use_cache is off" in one["refused"]["cache"]
        assert "do not have the same checkpoint, images and pseudo-labels" in one["refused"]["labels"]


@pytest.fixture
def mark() -> Iterator[str]:
    """A variable that all processes of a test carry, and that ends them."""
    mark = f"UMSCOSOD_SEVERAL={uuid.uuid4().hex}"
    yield mark
    kill_marked(mark)


def torchrun(folder: Path, verb: str, out: Path, mark: str) -> subprocess.Popen[str]:
    """Start ``torchrun --nproc-per-node 2 -m umscosod VERB``."""
    (folder / "own.yaml").write_text(json.dumps(config_to_dict(config_of(folder, **LONG))), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    line = [*launcher, "--nproc-per-node", "2", "-m", "umscosod", verb, str(folder / "three" / "image"), "--out", out]
    line += ["--pseudo", str(folder / "pseudo-three")] if verb == "train" else []
    settings = ["--preset", "smoke", "--config-file", str(folder / "own.yaml")]
    marked = {name: text for name, text in environment().items() if name not in ("WORLD_SIZE", "MASTER_PORT")}
    return subprocess.Popen(
        [*map(str, line), *settings],
        cwd=ROOT,
        env={**marked, **dict([mark.split("=")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_process_ends_the_others_and_the_same_command_resumes(folder: Path, mark: str) -> None:
    out, rows = folder / "killed", folder / "killed" / "run" / "metrics.jsonl"
    run = torchrun(folder, "train", out, mark)
    assert wait_until(lambda: run.poll() is not None or (rows.is_file() and rows.read_text().count("\n") >= 5))
    (second,) = [one for one in find_marked(mark) if b"\0RANK=1\0" in Path(f"/proc/{one}/environ").read_bytes()]
    assert "umscosod train" in read_command(second)
    os.kill(second, signal.SIGKILL)
    told = run.communicate(timeout=PATIENCE_S)[1]
    assert run.returncode != 0
    # whichever comes first: the closed connection, or the signal of torchrun
    assert "process 0 of 2 has lost the others" in told or "terminated; the same command resumes" in told
    assert wait_until_gone(mark) == []
    assert 5 <= rows.read_text().count("\n") < 48
    shutil.copytree(out, folder / "by-one")

    again = torchrun(folder, "train", out, mark)
    told, warned = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0, warned
    assert told.count("48 steps") == 1  # said once
    images, pseudo, config = folder / "three" / "image", folder / "pseudo-three", config_of(folder, **LONG)
    umscosod.train(images, pseudo, folder / "by-one", config)  # another number of processes may take it up
    umscosod.train(images, pseudo, folder / "whole", config)
    # Two processes add two numbers, whose order is nothing: here they give the very bytes of one.
    whole = read_results(folder / "whole")
    assert_same(whole, read_results(out))
    assert_same(whole, read_results(folder / "by-one"))
