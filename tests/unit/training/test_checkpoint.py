"""Checkpoints: whole or absent, strict, and clear about what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from umscosod.config import CfmmConfig, DecoderConfig, NetworkConfig
from umscosod.errors import CheckpointError
from umscosod.network.model import UmsNetwork, build_network
from umscosod.training.checkpoint import (
    META_FILE,
    MODEL_FILE,
    STATE_FILE,
    CheckpointMeta,
    find_checkpoint,
    load_meta,
    load_model,
    load_state,
    save_calibration,
    save_checkpoint,
)

CONFIG = NetworkConfig(cfmm=CfmmConfig(affinity="dot", block_images=2), decoder=DecoderConfig(channels=4))


def _save(run_dir: Path, step: int = 1, keep: int = 2) -> tuple[UmsNetwork, Path]:
    model = build_network(CONFIG, 8, 6, seed=step)
    network = {"cfmm": {"affinity": "dot", "block_images": 2}, "decoder": {"channels": 4}}
    meta = CheckpointMeta(
        config={"seed": 1, "network": network},
        backbone_ids=("first-a", "second-b"),
        dims=(8, 6),
        fingerprint="f" * 64,
        step=step,
        epoch=1,
    )
    state = {"optimizer": {"state": {}}, "rng": torch.get_rng_state(), "step": step}
    return model, save_checkpoint(run_dir, model, meta, state, keep=keep)


def test_round_trip(tmp_path: Path) -> None:
    model, folder = _save(tmp_path)
    loaded, meta = load_model(folder, ("first-a", "second-b"))
    assert loaded.config == CONFIG
    assert not loaded.training
    assert meta.dims == (8, 6)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert load_state(folder)["step"] == 1


def test_any_folder_of_a_run_leads_to_the_last_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    _save(run, 9)
    _, last = _save(run, 10)
    for path in (last, run, run / "checkpoints", run / "checkpoints" / "last", tmp_path):
        assert find_checkpoint(path) == last
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        find_checkpoint(tmp_path / "elsewhere")


def test_only_the_latest_are_kept_and_leftovers_of_a_kill_go(tmp_path: Path) -> None:
    leftover = tmp_path / "checkpoints" / ".writing-step-00000002"
    leftover.mkdir(parents=True)
    (leftover / MODEL_FILE).write_bytes(b"torn")
    for step in (1, 2, 3):
        _save(tmp_path, step)
    assert sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]


def test_other_backbones_are_named(tmp_path: Path) -> None:
    _, folder = _save(tmp_path)
    with pytest.raises(CheckpointError, match="second stream: trained on 'second-b', given 'second-c'") as caught:
        load_model(folder, ("first-a", "second-c"))
    assert "first stream" not in str(caught.value)


def test_damaged_files_and_other_versions_are_refused(tmp_path: Path) -> None:
    _, folder = _save(tmp_path)
    meta = json.loads((folder / META_FILE).read_text())
    (folder / META_FILE).write_text(json.dumps(meta | {"schema": 99}))
    with pytest.raises(CheckpointError, match="schema 99"):
        load_meta(folder)
    (folder / META_FILE).write_text(json.dumps(meta)[:-5])
    with pytest.raises(CheckpointError, match="damaged"):
        load_meta(folder)
    (folder / META_FILE).write_text(json.dumps(meta | {"config": {"network": {"cfmm": {"colour": 1}}}}))
    with pytest.raises(CheckpointError, match=r"network\.cfmm has settings .* colour"):
        load_model(folder)
    (folder / META_FILE).write_text(json.dumps(meta | {"dims": [8, 8]}))
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit"):
        load_model(folder)
    (folder / META_FILE).write_text(json.dumps(meta))
    (folder / MODEL_FILE).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(folder)
    (folder / STATE_FILE).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        load_state(folder)


def test_state_with_code_in_it_is_refused(tmp_path: Path) -> None:
    _, folder = _save(tmp_path)
    torch.save({"optimizer": Path("/")}, folder / STATE_FILE)
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        load_state(folder)


def test_calibration_is_added(tmp_path: Path) -> None:
    _, folder = _save(tmp_path)
    save_calibration(tmp_path, {"b_bar": 0.25})
    save_calibration(folder, {"other": 1.0})
    assert load_meta(folder).calibration == {"b_bar": 0.25, "other": 1.0}
    assert sorted(entry.name for entry in folder.iterdir()) == [META_FILE, MODEL_FILE, STATE_FILE]
