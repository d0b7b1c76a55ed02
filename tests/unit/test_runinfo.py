"""The record of a run says what was asked for and where, and is never a reason to fail."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from umscosod.config import PipelineConfig
from umscosod.errors import DataError
from umscosod.runinfo import collect_run_info, git_state, write_run_info


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_record_is_json_and_says_what_was_asked_for(tmp_path: Path) -> None:
    config = PipelineConfig(seed=5, device="cpu")
    info = collect_run_info(config, ["label", "caf\u00e9"], timings_s={"features": 1.23456})
    write_run_info(tmp_path / "run.json", info)
    read = json.loads((tmp_path / "run.json").read_text(encoding="ascii"))
    assert read == info
    assert (read["seed"], read["device"], read["argv"]) == (5, "cpu", ["label", "caf\u00e9"])
    assert read["timings_s"] == {"features": 1.235}
    assert read["config"]["refine"]["crf"]["iterations"] == config.refine.crf.iterations
    assert {"python", "umscosod", "numpy", "torch"} <= set(read["versions"])
    assert read["platform"]


def test_the_device_really_used_is_recorded_instead_of_auto() -> None:
    assert collect_run_info(PipelineConfig(), device="cuda:1")["device"] == "cuda:1"


def test_two_records_of_one_call_are_equal() -> None:
    assert collect_run_info(PipelineConfig(), ["a"]) == collect_run_info(PipelineConfig(), ["a"])


def test_commit_and_changes_of_a_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1", encoding="utf-8")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "x")
    sha = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"sha": sha, "dirty": False}
    (tmp_path / "a").write_text("2", encoding="utf-8")
    assert git_state(tmp_path) == {"sha": sha, "dirty": True}


def test_a_checkout_further_up_is_not_ours(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    inner = tmp_path / "site-packages"
    inner.mkdir()
    assert git_state(inner) is None


def test_without_git_there_is_no_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".git").mkdir()
    assert git_state(tmp_path) is None  # a folder .git that is no repository
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None  # no program git
    assert capfd.readouterr() == ("", "")


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="file"):
        write_run_info(tmp_path / "file" / "run.json", {})
