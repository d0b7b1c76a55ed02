"""Weight files: every original format loads to the same tokens, and whatever does not fit is named."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models import VisionTransformer

from umscosod.errors import WeightsError
from umscosod.features import weights as weights_module
from umscosod.features.architectures import build_vit
from umscosod.features.layouts import convert_state_dict
from umscosod.features.specs import VIT_SPECS, VitSpec
from umscosod.features.store import find_weights, obtain_weights
from umscosod.features.weights import load_weights, read_state_dict, recognise

NAMES = ("dino_vitb8", "dino_vits8", "dinov2_vitb14_reg", "dinov2_vits14", "dinov2_vits14_reg")
Make = Callable[[str], VisionTransformer]
State = dict[str, torch.Tensor]

DINO_BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def original_names(depth: int, *, dinov2: bool, registers: bool) -> set[str]:
    """Keys of the released files, written out from the authors' code."""
    names = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"}
    names |= {f"blocks.{i}.{m}.{p}" for i in range(depth) for m in DINO_BLOCK for p in ("weight", "bias")}
    if dinov2:
        names |= {"mask_token"} | {f"blocks.{i}.ls{n}.gamma" for i in range(depth) for n in (1, 2)}
    return names | ({"register_tokens"} if registers else set())


def to_original(state: State, spec: VitSpec) -> State:
    """Undo the conversion: the authors' names, and a position for CLS where timm has none."""
    state = {name: tensor.clone() for name, tensor in state.items()}
    if spec.patch_px == 14:
        state["mask_token"] = torch.randn(1, spec.dim)
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        slot = torch.randn(1, 1, spec.dim)
        state["pos_embed"] = torch.cat([slot, state["pos_embed"]], dim=1)
        state["cls_token"] = state["cls_token"] - slot
    return state


def training_checkpoint(state: State) -> dict[str, Any]:
    """DINO's full checkpoint: both networks with heads, optimiser, options as a Namespace."""
    student = {f"module.backbone.{name}": tensor + 1 for name, tensor in state.items()}
    teacher = {f"backbone.{name}": tensor for name, tensor in state.items()}
    return {
        "student": {**student, "module.head.mlp.0.weight": torch.zeros(3, 3)},
        "teacher": {**teacher, "head.mlp.0.weight": torch.zeros(3, 3)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=8),
    }


def save(state: State, spec: VitSpec, kind: str, folder: Path) -> Path:
    path = folder / f"file{'.safetensors' if kind == 'timm' else '.pth'}"
    if kind == "timm":
        save_file(state, path)
        return path
    original = to_original(state, spec)
    wrapped: dict[str, Any] = {
        "timm-pth": {**state, "head.weight": torch.zeros(1000, spec.dim)},
        "original": original,
        "checkpoint": training_checkpoint(original),
        "student": {"student": {f"module.backbone.{name}": tensor for name, tensor in original.items()}},
        "compiled": {"model": {f"_orig_mod.{name}": tensor for name, tensor in original.items()}},
        "half": {name: tensor.half() for name, tensor in original.items()},
    }[kind]
    torch.save(wrapped, path)
    return path


@pytest.mark.parametrize("kind", ["timm", "timm-pth", "original", "checkpoint", "student", "compiled"])
@pytest.mark.parametrize("name", NAMES)
def test_every_format_loads_to_the_same_tensors(
    make_tiny: Make, tiny_specs: dict[str, VitSpec], tmp_path: Path, name: str, kind: str
) -> None:
    spec = tiny_specs[name]
    expected = make_tiny(name).state_dict()
    path = save(expected, spec, kind, tmp_path)
    model = build_vit(spec)
    sha256 = load_weights(model, path)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[key], atol=1e-6, rtol=0)


def test_half_precision_files_become_float32(make_tiny: Make, tiny_specs: dict[str, VitSpec], tmp_path: Path) -> None:
    state = make_tiny("dino_vits8").state_dict()
    path = save(state, tiny_specs["dino_vits8"], "half", tmp_path)
    model = build_vit(tiny_specs["dino_vits8"])
    load_weights(model, path)
    assert model.cls_token.dtype == torch.float32
    torch.testing.assert_close(model.cls_token.detach(), state["cls_token"].half().float())


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_real_architectures_convert(name: str) -> None:
    """Without a byte of weights: names and shapes only, at full size."""
    spec = VIT_SPECS[name]
    with torch.device("meta"):
        model = build_vit(spec)
        expected = model.state_dict()
        original = to_original(expected, spec)
    registers = spec.prefix_tokens == 5
    assert set(original) == original_names(12, dinov2=spec.patch_px == 14, registers=registers)
    assert original["pos_embed"].shape[1] == 1 + (spec.native_px // spec.patch_px) ** 2
    for raw in (original, expected):
        converted = weights_module._fit(convert_state_dict(raw), model)
        assert {key: value.shape for key, value in converted.items()} == {k: v.shape for k, v in expected.items()}


@pytest.mark.parametrize("name", ["dino_vits8", "dinov2_vits14", "dinov2_vits14_reg"])
def test_position_embedding_of_another_square_grid_is_kept_as_stored(
    make_tiny: Make, tiny_specs: dict[str, VitSpec], tmp_path: Path, name: str
) -> None:
    spec = tiny_specs[name]
    state = make_tiny(name).state_dict()
    slots = 0 if spec.prefix_tokens == 5 else 1
    state["pos_embed"] = torch.randn(1, slots + 36, spec.dim, generator=torch.Generator().manual_seed(1))
    model = build_vit(spec)
    load_weights(model, save(state, spec, "original", tmp_path))
    assert torch.equal(model.pos_embed, state["pos_embed"])


def test_matching_position_embedding_keeps_its_bits(
    make_tiny: Make, tiny_specs: dict[str, VitSpec], tmp_path: Path
) -> None:
    state = make_tiny("dinov2_vits14").state_dict()
    model = build_vit(tiny_specs["dinov2_vits14"])
    load_weights(model, save(state, tiny_specs["dinov2_vits14"], "original", tmp_path))
    assert torch.equal(model.pos_embed, state["pos_embed"])


def misfit(state: State, how: str) -> State:
    state = dict(state)
    if how == "missing":
        del state["blocks.1.norm2.bias"]
    elif how == "unexpected":
        state["neck.weight"] = torch.zeros(1000, 32)
    elif how == "shape":
        state["blocks.0.attn.qkv.weight"] = torch.zeros(64, 32)
    elif how == "pos_embed":
        state["pos_embed"] = torch.zeros(1, 15, 32)
    elif how == "pos_embed width":
        state["pos_embed"] = torch.zeros(1, 37, 30)
    elif how == "registers":
        state["reg_token"] = torch.zeros(4)
    elif how == "control":
        state["a\n\x1b[31m"] = torch.zeros(1)
    elif how == "type":
        state["norm.weight"] = torch.ones(32, dtype=torch.int8)
    elif how == "bool":
        state["blocks.0.norm1.bias"] = torch.ones(32, dtype=torch.bool)
    elif how == "nan":
        state["norm.weight"] = torch.full((32,), float("nan"))
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"blocks\.1\.norm2\.bias is missing, expected \(32,\)"),
        ("unexpected", r"neck\.weight \(1000, 32\) is not expected"),
        ("shape", r"blocks\.0\.attn\.qkv\.weight has the shape \(64, 32\), expected \(96, 32\)"),
        ("pos_embed", r"pos_embed has the shape \(1, 15, 32\), expected \(1, 17, 32\)"),
        ("pos_embed width", r"pos_embed has the shape \(1, 37, 30\), expected \(1, 17, 32\)"),
        ("registers", r"reg_token \(4,\) is not expected"),
        ("control", r"a\?\?\[31m \(1,\) is not expected"),
        ("type", r"norm\.weight is of type int8, expected floating point"),
        ("bool", r"blocks\.0\.norm1\.bias is of type bool, expected floating point"),
        ("nan", r"norm\.weight holds values that are not finite"),
    ],
)
def test_first_mismatch_is_named_with_shapes_and_file(
    make_tiny: Make, tiny_specs: dict[str, VitSpec], tmp_path: Path, how: str, message: str
) -> None:
    path = save(misfit(make_tiny("dino_vits8").state_dict(), how), tiny_specs["dino_vits8"], "timm", tmp_path)
    model = build_vit(tiny_specs["dino_vits8"])
    before = model.state_dict()["cls_token"].clone()
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(model, path)
    assert str(path) in str(caught.value)
    assert torch.equal(model.cls_token, before)


def test_file_of_another_architecture_is_told_by_its_name(
    make_tiny: Make, tiny_specs: dict[str, VitSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "VIT_SPECS", tiny_specs)
    for name in NAMES:
        path = save(make_tiny(name).state_dict(), tiny_specs[name], "original", tmp_path)
        assert recognise(path) is tiny_specs[name]
    path = save(make_tiny("dino_vitb8").state_dict(), tiny_specs["dino_vitb8"], "original", tmp_path)
    with pytest.raises(WeightsError, match=r"cls_token has .*the file has the architecture of dino_vitb8"):
        load_weights(build_vit(tiny_specs["dino_vits8"]), path)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    assert recognise(tmp_path / "other.pth") is None


def test_a_position_embedding_of_another_width_is_named_not_added_to_cls(
    make_tiny: Make, tiny_specs: dict[str, VitSpec], tmp_path: Path
) -> None:
    state = make_tiny("dinov2_vits14_reg").state_dict()
    path = save({**state, "pos_embed": torch.zeros(1, 17, 48)}, tiny_specs["dinov2_vits14_reg"], "timm", tmp_path)
    with pytest.raises(WeightsError, match=r"pos_embed has the shape \(1, 17, 48\), expected \(1, 16, 32\)"):
        load_weights(build_vit(tiny_specs["dinov2_vits14_reg"]), path)


def test_a_file_changed_while_it_is_read_is_refused(
    make_tiny: Make, tiny_specs: dict[str, VitSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash names all features made with it, so the tensors must be those that were hashed."""
    spec = tiny_specs["dino_vits8"]
    state = make_tiny("dino_vits8").state_dict()
    path = save(state, spec, "timm-pth", tmp_path)

    def read_then_overwrite(file: Path) -> State:
        read = read_state_dict(file)
        torch.save({**state, "norm.bias": torch.ones(spec.dim)}, path)
        return read

    monkeypatch.setattr(weights_module, "read_state_dict", read_then_overwrite)
    with pytest.raises(WeightsError, match=r"file\.pth: the file was changed while it was read; run again"):
        load_weights(build_vit(spec), path)


@pytest.mark.parametrize("kind", ["folder", "fifo", "absent", "long", "user"])
def test_weights_that_are_no_regular_file_are_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("w" * 300 if kind == "long" else "w.pth")
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    file = "~nobody-of-this-name/w.pth" if kind == "user" else str(path)
    with pytest.raises(WeightsError) as caught:
        obtain_weights(VIT_SPECS["dino_vits8"], file)
    assert "\n" not in str(caught.value)
    assert file in str(caught.value)


def test_hub_cache_counts_as_at_hand_without_network(no_weights: Path, tmp_path: Path) -> None:
    spec = VIT_SPECS["dino_vits8"]
    assert find_weights(spec) is None
    repository = no_weights / f"models--timm--{spec.timm_name}"
    file = repository / "snapshots" / "abc" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert find_weights(spec) == file
    assert obtain_weights(spec) == file
    assert find_weights(VIT_SPECS["dino_vitb8"]) is None


def test_file_fetched_by_torch_hub_counts(no_weights: Path, tmp_path: Path) -> None:
    spec = VIT_SPECS["dino_vitb8"]
    file = tmp_path / "torch" / "hub" / "checkpoints" / "dino_vitbase8_pretrain.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert obtain_weights(spec) == file


def test_missing_weights_say_what_to_do(no_weights: Path, tmp_path: Path) -> None:
    spec = VIT_SPECS["dino_vitb8"]
    with pytest.raises(
        WeightsError, match=r"umscosod weights get dino_vitb8 .*--weights FILE: dino_vitbase8_pretrain\.pth"
    ):
        obtain_weights(spec)
    with pytest.raises(WeightsError, match=r"no weights of dino_vitb8 at .*gone\.pth .*; check --second"):
        obtain_weights(spec, str(tmp_path / "gone.pth"), option="--second")
