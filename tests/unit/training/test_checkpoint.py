"""Checkpoints: whole or absent, strict, and clear about what does not fit."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

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
    load_network,
    load_state,
    save_calibration,
    save_checkpoint,
)

CONFIG = NetworkConfig(cfmm=CfmmConfig(init="kaiming"), decoder=DecoderConfig(channels=4))


def _save(run_dir: Path, step: int = 1, keep: int = 2) -> tuple[UmsNetwork, Path]:
    model = build_network(CONFIG, 8, 6, seed=step)
    network = {"cfmm": {"init": "kaiming"}, "decoder": {"channels": 4}}
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
    loaded, meta = load_network(folder, ("first-a", "second-b"))
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
        load_network(folder, ("first-a", "second-c"))
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
        load_network(folder)
    (folder / META_FILE).write_text(json.dumps(meta | {"dims": [8, 8]}))
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit"):
        load_network(folder)
    (folder / META_FILE).write_text(json.dumps(meta))
    (folder / MODEL_FILE).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_network(folder)
    (folder / STATE_FILE).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        load_state(folder)


def test_state_with_code_in_it_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    _, folder = _save(tmp_path)
    for content in ({"optimizer": Path("/")}, {"rng": Touch(tmp_path / "ran")}):
        torch.save(content, folder / STATE_FILE)
        message = _refusal(lambda: load_state(folder), folder / STATE_FILE)
        assert "holds more than tensors and numbers" in message
        assert "weights_only" not in message
    assert not (tmp_path / "ran").exists()
    torch.save([1, 2], folder / STATE_FILE)
    assert "holds a list where fields by name belong" in _refusal(lambda: load_state(folder), folder / STATE_FILE)


class Touch:
    """A pickle of it makes a file when it is read by a reader that runs code."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.file,)


def _refusal(call: Callable[[], object], file: Path) -> str:
    """The one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert str(file) in message
    assert len(message) < len(str(file)) + 300
    return message


PAIR = "two whole numbers from 1 to 16384"
SHARES = "numbers from 0 to 1 by name"


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("dims", [10**18, 6], f"dims must be {PAIR}, got [1000000000000000000, 6]"),
        ("dims", [100_000, 6], f"dims must be {PAIR}, got [100000, 6]"),
        ("dims", [-8, 6], f"dims must be {PAIR}, got [-8, 6]"),
        ("dims", [0, 6], f"dims must be {PAIR}, got [0, 6]"),
        ("dims", ["8", "6"], f"dims must be {PAIR}, got ['8', '6']"),
        ("dims", [8.0, 6.0], f"dims must be {PAIR}, got [8.0, 6.0]"),
        ("dims", [True, 6], f"dims must be {PAIR}, got [True, 6]"),
        ("dims", [8], f"dims must be {PAIR}, got [8]"),
        ("dims", [8, 6, 6], f"dims must be {PAIR}, got [8, 6, 6]"),
        ("dims", None, f"dims must be {PAIR}, got None"),
        ("dims", "86", f"dims must be {PAIR}, got '86'"),
        ("dims", {"a": 1, "b": 2}, f"dims must be {PAIR}, got {{'a': 1, 'b': 2}}"),
        ("config", 5, "config must be settings by name, at most 8 levels deep, got 5"),
        ("config", [], "config must be settings by name, at most 8 levels deep, got []"),
        ("config", None, "config must be settings by name, at most 8 levels deep, got None"),
        ("config", {"a": [[[[[[[[[[]]]]]]]]]]}, "config must be settings by name, at most 8 levels deep"),
        ("backbone_ids", "ab", "backbone_ids must be two texts, got 'ab'"),
        ("backbone_ids", [1, 2], "backbone_ids must be two texts, got [1, 2]"),
        ("fingerprint", 5, "fingerprint must be text, got 5"),
        ("step", -1, "step must be a whole number >= 0, got -1"),
        ("step", 10**30, "step must be a whole number >= 0, got 1000"),
        ("step", "1", "step must be a whole number >= 0, got '1'"),
        ("epoch", 1.5, "epoch must be a whole number >= 0, got 1.5"),
        ("calibration", {"b_bar": "0.5"}, f"calibration must be {SHARES}, got {{'b_bar': '0.5'}}"),
        ("calibration", {"b_bar": None}, f"calibration must be {SHARES}, got {{'b_bar': None}}"),
        ("calibration", {"b_bar": float("nan")}, f"calibration must be {SHARES}, got {{'b_bar': nan}}"),
        ("calibration", {"b_bar": float("inf")}, f"calibration must be {SHARES}, got {{'b_bar': inf}}"),
        ("calibration", {"b_bar": 1e300}, f"calibration must be {SHARES}, got {{'b_bar': 1e+300}}"),
        ("calibration", {"b_bar": True}, f"calibration must be {SHARES}, got {{'b_bar': True}}"),
        ("calibration", [0.5], f"calibration must be {SHARES}, got [0.5]"),
        ("schema", "1", "schema must be a whole number >= 0, got '1'"),
        ("schema", None, "schema must be a whole number >= 0, got None"),
        ("schema", True, "schema must be a whole number >= 0, got True"),
        ("colour", 1, "'colour' is no field of it"),
    ],
)
def test_a_field_of_the_metadata_of_another_kind_is_named_with_its_value(
    tmp_path: Path, field: str, value: object, part: str
) -> None:
    _, folder = _save(tmp_path)
    file = folder / META_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    assert part in _refusal(lambda: load_meta(folder), file)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[]", "it holds [] where fields by name belong"),
        ("5", "it holds 5 where fields by name belong"),
        ("null", "it holds None where fields by name belong"),
        ("{}", "backbone_ids is missing"),
        ("", "is damaged"),
        ("[" * 100_000, "is damaged (it is nested too deeply)"),
        ('{"step": ' + "9" * 5000 + "}", "is damaged (Exceeds the limit"),
        ("\0", "is damaged"),
    ],
)
def test_other_content_of_the_metadata_is_refused(tmp_path: Path, text: str, part: str) -> None:
    _, folder = _save(tmp_path)
    (folder / META_FILE).write_text(text)
    assert part in _refusal(lambda: load_meta(folder), folder / META_FILE)


@pytest.mark.parametrize(
    ("network", "part"),
    [
        (5, "network must hold settings by name, got 5"),
        ([], "network must hold settings by name, got []"),
        ({"decoder": []}, "network.decoder must hold settings by name, got []"),
        ({"decoder": None}, "network.decoder must hold settings by name, got None"),
        ({"decoder": {"channels": "4"}}, "network.decoder.channels must be a whole number, got '4'"),
        ({"decoder": {"channels": 10**9}}, "network.decoder.channels must be >= 4 and <= 512, got 1000000000"),
        ({"cfmm": {"init": "x"}}, "network.cfmm.init must be one of identity, kaiming, got 'x'"),
        ({"fram": {"alpha": float("nan")}}, "network.fram.alpha is no setting any more; its value is fixed at 3.0"),
        ({"common_dim": 8}, "network.common_dim is no setting any more; its value is fixed at 0"),
        ({"x" * 999: 1}, "network has settings this version does not know: xxx"),
    ],
)
def test_settings_of_another_kind_in_a_checkpoint_are_named(tmp_path: Path, network: object, part: str) -> None:
    _, folder = _save(tmp_path)
    file = folder / META_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"config": {"network": network}}))
    assert part in _refusal(lambda: load_network(folder), file)


def test_a_checkpoint_of_an_earlier_version_loads_where_what_is_no_setting_any_more_had_todays_value(
    tmp_path: Path,
) -> None:
    _, folder = _save(tmp_path)
    file = folder / META_FILE
    meta = json.loads(file.read_text())
    meta["config"]["network"] |= {"common_dim": 0, "mirror_average": False, "afmm": {"enabled": True, "heads": 4}}
    file.write_text(json.dumps(meta))
    model, _ = load_network(folder)
    assert model.config == CONFIG


def test_metadata_of_a_huge_network_takes_no_memory(tmp_path: Path) -> None:
    """At this width the weights would take more than 10 GB; the file of weights is compared first."""
    _, folder = _save(tmp_path)
    file = folder / META_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dims": [16_384, 16_384]}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "does not fit its meta.json" in _refusal(lambda: load_network(folder), folder / MODEL_FILE)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KiB


def test_weights_of_another_network_or_not_finite_are_named(tmp_path: Path) -> None:
    model, folder = _save(tmp_path)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] * float("nan")}, folder / MODEL_FILE)
    assert f"{name} holds NaN or infinity" in _refusal(lambda: load_network(folder), folder / MODEL_FILE)
    save_file({**weights, "more": torch.zeros(1)}, folder / MODEL_FILE)
    assert "'more' has the shape [1], expected no such tensor" in _refusal(
        lambda: load_network(folder), folder / MODEL_FILE
    )
    for kind, other in (("F16", torch.float16), ("I32", torch.int32), ("BOOL", torch.bool), ("C64", torch.complex64)):
        save_file({**weights, name: weights[name].to(other)}, folder / MODEL_FILE)
        said = _refusal(lambda: load_network(folder), folder / MODEL_FILE)
        assert f"{name!r} holds numbers of type {kind!r}, expected F32" in said
    save_file({"only": torch.zeros(1)}, folder / MODEL_FILE)
    assert "more do not fit" in _refusal(lambda: load_network(folder), folder / MODEL_FILE)


@pytest.mark.parametrize("name", [META_FILE, MODEL_FILE, STATE_FILE])
@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "nothing"])
def test_a_part_that_is_no_regular_file_is_never_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    _, folder = _save(tmp_path)
    file = folder / name
    file.unlink()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "loop":
        file.symlink_to(file.name)
    call = load_state if name == STATE_FILE else load_network
    _refusal(lambda: call(folder), folder)


def test_a_path_that_cannot_be_a_checkpoint_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    for path in (*(tmp_path / name for name in ("fifo", "loop", "file", "x" * 300, "a\0b")), Path()):
        assert "no checkpoint in" in _refusal(lambda path=path: find_checkpoint(path), path)  # type: ignore[misc]


def test_a_stranger_among_the_leftovers_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "checkpoints" / ".writing-notes"
    kept.parent.mkdir()
    kept.write_text("mine")
    (kept.parent / ".writing-link").symlink_to(tmp_path)
    _save(tmp_path)
    assert kept.read_text() == "mine"
    assert tmp_path.is_dir()


def test_calibration_is_added(tmp_path: Path) -> None:
    _, folder = _save(tmp_path)
    save_calibration(tmp_path, {"b_bar": 0.25})
    save_calibration(folder, {"other": 1.0})
    assert load_meta(folder).calibration == {"b_bar": 0.25, "other": 1.0}
    assert sorted(entry.name for entry in folder.iterdir()) == [META_FILE, MODEL_FILE, STATE_FILE]


def test_a_setting_whose_path_is_not_utf_8_comes_back(tmp_path: Path) -> None:
    model, folder = _save(tmp_path)
    settings = {"features": {"cache_dir": os.fsdecode(b"caf\xe9")}}
    meta = dataclasses.replace(load_meta(folder), config=settings, step=2)
    assert load_meta(save_checkpoint(tmp_path, model, meta, {}, keep=1)).config == settings
