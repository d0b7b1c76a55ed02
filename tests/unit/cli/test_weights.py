"""``umscosod weights``: what it asks, prints and exits with; the work is tested beside `umscosod.features.hub`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback_hub import LoopbackHub, serve_hub, set_constant, set_endpoint
from umscosod.cli import main
from umscosod.features.hub import SETS
from umscosod.features.specs import VIT_SPECS

ROOT = Path(__file__).resolve().parents[3]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub whose files are no weights, which a download does not look at, and a fresh home."""
    files = {(f"timm/{VIT_SPECS[name].timm_name}", "model.safetensors"): name.encode() for name in SETS["small"]}
    set_constant(monkeypatch, "HF_HUB_CACHE", str(tmp_path / "hub"))
    set_constant(monkeypatch, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("UMSCOSOD_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub._hub_dir", None)
    with serve_hub(LoopbackHub(files=files)) as served:
        set_endpoint(monkeypatch, served.endpoint)
        yield served


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_it_asks_once(
    hub: LoopbackHub, answer: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["weights", "get", "small"]) == code
    out = capsys.readouterr().out
    assert "dino_vits8: 87 MB from http://127.0.0.1" in out
    assert "licence Apache-2.0" in out
    assert out.count("download 175 MB? [y/N]") == 1
    assert len(hub.ranges) == (2 if code == 0 else 0)


def test_without_a_terminal_it_says_to_pass_yes(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["weights", "get", "small"]) == 2
    assert "pass --yes" in capsys.readouterr().err
    assert hub.ranges == []


def test_list_verify_and_import_say_what_is_here(
    hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "verify"]) == 0
    assert "run: umscosod weights get paper" in capsys.readouterr().out
    assert main(["weights", "get", "dino_vits8", "--yes"]) == 0
    capsys.readouterr()
    assert main(["weights", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(VIT_SPECS)
    assert Path(rows["dino_vits8"]["path"]).is_file()
    assert len(rows["dino_vits8"]["sha256"]) == 64
    assert rows["dino_vitb8"]["path"] is None
    assert main(["weights", "list"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("dino_vits8"))
    assert rows["dino_vits8"]["sha256"][:12] in line
    assert main(["weights", "verify"]) == 1  # the hash is right, but these are no tensors
    assert capsys.readouterr().out.startswith("BAD  dino_vits8  weights ")
    (tmp_path / "w.pth").write_bytes(b"no tensors")
    assert main(["weights", "import", str(tmp_path / "w.pth")]) == 2
    assert "w.pth cannot be read" in capsys.readouterr().err


def test_the_environment_of_hugging_face_is_obeyed(hub: LoopbackHub, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "elsewhere")}
    environment |= {"HF_TOKEN": "hf_secret", "NO_PROXY": "127.0.0.1,localhost", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "umscosod.cli", "weights", "get", "dino_vits8", "--yes"]
    quiet = {"capture_output": True, "text": True, "check": False, "stdin": subprocess.DEVNULL}
    offline = subprocess.run(line, env={**environment, "HF_HUB_OFFLINE": "1"}, **quiet)
    assert (offline.returncode, hub.tokens) == (2, [])
    assert offline.stderr.splitlines()[-1].startswith("error: HF_HUB_OFFLINE is set")
    online = subprocess.run(line, env=environment, **quiet)
    assert online.returncode == 0, online.stderr
    assert set(hub.tokens) == {"Bearer hf_secret"}
    found = list((tmp_path / "elsewhere").rglob("model.safetensors"))
    assert [path.read_bytes() for path in found] == [b"dino_vits8"]
