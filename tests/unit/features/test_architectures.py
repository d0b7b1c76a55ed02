"""What timm's architectures say equals the table, and every kind of them gives tokens, keys and attention."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import Eva

from umscosod.errors import ConfigError, WeightsError
from umscosod.features import architectures
from umscosod.features.architectures import Vit, build_empty, build_vit
from umscosod.features.specs import VIT_SPECS, VitSpec, vit_spec
from umscosod.features.store import find_weights, obtain_weights
from umscosod.features.vit import LoadedVit, VitBackbone, _to_picture, border_contrast, load_vit
from umscosod.types import ByteArray

CPU = torch.device("cpu")
SMALL = (("depth", 2), ("embed_dim", 32), ("num_heads", 2))


def is_here(name: str) -> bool:
    return timm.is_model(VIT_SPECS[name].timm_name)


def tokens_of(module: Vit, picture: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return module.forward_features(picture)


@pytest.mark.parametrize("name", VIT_SPECS)
def test_table_agrees_with_timm(name: str) -> None:
    spec = VIT_SPECS[name]
    if not is_here(name):
        with pytest.raises(ConfigError, match=f"timm >= {spec.needs_timm} has"):
            build_vit(spec)
        return
    module = build_empty(spec)
    assert (module.embed_dim, module.num_prefix_tokens) == (spec.dim, spec.prefix_tokens)
    assert module.patch_embed.patch_size == (spec.patch_px, spec.patch_px)
    size_mb = 4e-6 * sum(parameter.numel() for parameter in module.parameters())
    assert spec.size_mb == pytest.approx(size_mb, rel=0.02)
    assert spec.partner in ("", *VIT_SPECS)
    assert VIT_SPECS[spec.partner or name].is_label_free == spec.is_label_free
    if spec.timm_name not in timm.list_pretrained(f"{spec.timm_name.partition('.')[0]}.*"):
        pytest.skip(f"timm {timm.__version__} does not know these weights")
    config = timm.get_pretrained_cfg(spec.timm_name)
    assert config is not None
    assert config.input_size == (3, spec.native_px, spec.native_px)
    assert (config.mean, config.std) == (spec.mean, spec.std)
    assert config.hf_hub_id == f"timm/{spec.timm_name}"
    if config.url:
        assert str(config.url).rsplit("/", 1)[1] == spec.original_file
    assert config.license is None or config.license.split("-")[0] == spec.licence.split("-")[0].split()[0].lower()


def test_an_older_timm_is_named_with_what_it_lacks() -> None:
    spec = replace(VIT_SPECS["dinov3_vits16"], timm_name="vit_small_patch16_dinov9.lvd1689m")
    with pytest.raises(
        ConfigError, match=rf"dinov3_vits16: timm {timm.__version__} has no .* \(timm >= 1\.0\.20 has\)"
    ):
        build_vit(spec)


@pytest.mark.parametrize("prefix", ["timm:", "hf-hub:timm/"])
def test_another_name_of_a_table_entry_is_that_entry(prefix: str) -> None:
    assert vit_spec(f"{prefix}vit_small_patch16_224.dino") is VIT_SPECS["dino_vits16"]


def test_traits_of_other_names_are_read_from_the_model() -> None:
    spec = vit_spec("timm:deit_tiny_distilled_patch16_224")
    assert (spec.patch_px, spec.dim, spec.prefix_tokens, spec.native_px) == (16, 192, 2, 224)
    assert spec.timm_name == "deit_tiny_distilled_patch16_224.fb_in1k"  # the weights that timm takes by default
    assert not spec.is_label_free
    assert spec.mean == (0.485, 0.456, 0.406)
    assert vit_spec("timm:vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "hiera_tiny_224", "convnext_atto", "vit_tiny_r_s16_p8_224"]
)
def test_what_has_no_single_grid_of_tokens_is_refused(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^backbone timm:{name}: it is no plain Vision Transformer.*; take another$"
    ):
        vit_spec(f"timm:{name}")


def test_an_unknown_timm_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="no model 'vit_tiny_patch16_22', did you mean timm:vit_tiny_patch16_224"):
        vit_spec("timm:vit_tiny_patch16_22")
    with pytest.raises(ConfigError, match=r"no model 'vit_tiny_patch16_224\.nobody'"):
        vit_spec("timm:vit_tiny_patch16_224.nobody")


def write_model(folder: Path, **changes: Any) -> str:
    """Save a small model as ``save_for_hf`` of timm does: architecture, arguments, statistics; weights with a head."""
    arguments: dict[str, Any] = {"depth": 1, "embed_dim": 32, "num_heads": 2, "patch_size": 8, "img_size": 32}
    known = {"input_size": [3, 32, 32], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "license": "mit"}
    content = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": arguments,
        "pretrained_cfg": known,
        "num_classes": 9,
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", num_classes=9, **arguments)
    save_file(module.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**content, **changes}))
    return f"local-dir:{folder}"


def test_a_folder_is_a_backbone(tmp_path: Path, pictures: list[ByteArray]) -> None:
    name = write_model(tmp_path / "mine")
    spec = vit_spec(name)
    assert (spec.patch_px, spec.dim, spec.native_px, spec.mean, spec.licence) == (8, 32, 32, (0.1, 0.2, 0.3), "mit")
    assert find_weights(spec) == tmp_path / "mine" / "model.safetensors"
    backbone = VitBackbone(load_vit(spec, obtain_weights(spec), CPU), size_px=48, device=CPU)
    encoded = backbone.encode(pictures[:1])[0]
    assert (encoded.grid_hw, encoded.tokens_PD.shape, encoded.attn_AP.shape) == ((6, 6), (36, 32), (2, 36))
    write_model(tmp_path / "mine", pretrained_cfg={"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3})
    other = VitBackbone(load_vit(vit_spec(name), obtain_weights(spec), CPU), size_px=48, device=CPU)
    assert other.id != backbone.id  # equal name and weights, other tokens
    assert np.abs(other.encode(pictures[:1])[0].tokens_PD - encoded.tokens_PD).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"architecture": None, "model_type": "dinov2"},
            "names no 'architecture' of timm; pass the weights with --weights",
        ),
        ({"architecture": "vit_nobody"}, "has no vit_nobody"),
        ({"pretrained_cfg": {"input_size": [3, 32, 48], "mean": [0.5] * 3, "std": [0.5] * 3}}, "square RGB"),
        ({"pretrained_cfg": {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5]}}, "square RGB"),
        ({"pretrained_cfg": {"mean": "x"}}, "no number"),
        ({"pretrained_cfg": 3}, "damaged"),
        ({"model_args": {"depths": [1]}}, "cannot build it"),
        ({"model_args": {"patch_size": [16, 8]}}, "16 x 8 pixels, not square"),
    ],
)
def test_a_config_that_does_not_serve_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    name = write_model(tmp_path, **changes)
    with pytest.raises((ConfigError, WeightsError), match=reason) as caught:
        vit_spec(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_without_their_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json cannot be read: No such file"):
        vit_spec(f"local-dir:{tmp_path}")
    spec = vit_spec(write_model(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no weights in .*: expected model\.safetensors or pytorch_model\.bin"):
        obtain_weights(spec)


def test_a_repository_is_looked_up_in_the_cache_only(no_weights: Path) -> None:
    with pytest.raises(WeightsError, match="run: umscosod weights get hf-hub:me/mine"):
        vit_spec("hf-hub:me/mine")
    snapshot = no_weights / "models--me--mine" / "snapshots" / ("0" * 40)
    write_model(snapshot)
    (no_weights / "models--me--mine" / "refs").mkdir()
    (no_weights / "models--me--mine" / "refs" / "main").write_text("0" * 40)
    spec = vit_spec("hf-hub:me/mine")
    assert (spec.patch_px, spec.is_label_free) == (8, False)
    assert find_weights(spec) == snapshot / "model.safetensors"


def test_old_versions_of_timm_build_with_values(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(VIT_SPECS["dino_vits16"], overrides=SMALL)
    build, devices = architectures.build_vit, []

    def needs_values(spec: VitSpec) -> Vit:
        devices.append(torch.empty(0).device.type)
        if devices[-1] == "meta":
            raise RuntimeError("Tensor.item() cannot be called on meta tensors")
        return build(spec)

    monkeypatch.setattr(architectures, "build_vit", needs_values)
    assert build_empty(spec).embed_dim == 32
    assert devices == ["meta", "cpu"]


@pytest.fixture
def load(make_tiny: Callable[[str], Vit], tiny_specs: dict[str, VitSpec]) -> Callable[[str], LoadedVit]:
    def load(name: str) -> LoadedVit:
        if not is_here(name):
            pytest.skip(f"timm {timm.__version__} has no {name}")
        return LoadedVit(spec=tiny_specs[name], module=make_tiny(name), weights_sha256="0" * 64)

    return load


def other_vit(timm_name: str, *, prefix: int, **more: Any) -> LoadedVit:
    """A small model that the table does not have, with weights large enough for an attention that is not uniform."""
    overrides = tuple((dict(SMALL) | more).items())
    spec = VitSpec(
        name=timm_name,
        timm_name=timm_name,
        patch_px=16,
        dim=32,
        prefix_tokens=prefix,
        native_px=64,
        overrides=overrides,
    )
    module = build_vit(spec).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return LoadedVit(spec=spec, module=module, weights_sha256="0" * 64)


def input_of_last_block(module: Vit, picture: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = module.blocks[-1].norm1.register_forward_hook(lambda _m, _a, out: seen.append(out))
    tokens_of(module, picture)
    handle.remove()
    return seen[0]


def split_heads(values_NTD: torch.Tensor, heads: int) -> torch.Tensor:
    return values_NTD.unflatten(-1, (heads, -1)).transpose(1, 2)


@pytest.mark.parametrize("name", ["dinov3_vits16", "dinov3_vits16plus", "dinov3_vitb16"])
@pytest.mark.parametrize("side", [4, 6])
def test_rotary_positions_turn_the_attention_and_not_the_keys(
    load: Callable[[str], LoadedVit], pictures: list[ByteArray], name: str, side: int
) -> None:
    vit = load(name)
    assert isinstance(vit.module, Eva)
    backbone = VitBackbone(vit, size_px=16 * side, device=CPU)
    with torch.inference_mode():
        tokens_NTD, keys_NPK, attn_NAP = backbone._forward(pictures[:1])
        picture = torch.from_numpy(_to_picture(pictures[0], 16 * side, vit.spec)[None])
        attention, heads = vit.module.blocks[-1].attn, dict(vit.spec.overrides)["num_heads"]
        x_NTD = input_of_last_block(vit.module, picture)
        q, k, _ = (split_heads(part, heads) for part in attention.qkv(x_NTD).chunk(3, -1))
        torch.testing.assert_close(keys_NPK, k.transpose(1, 2).flatten(2)[:, 5:], atol=1e-5, rtol=1e-5)
        sin, cos = vit.module.rope.get_embed(shape=(side, side)).chunk(2, -1)

        def turn(heads_NATd: torch.Tensor) -> torch.Tensor:  # each half with the other, of patches only
            low, high = heads_NATd[:, :, 5:].chunk(2, -1)
            turned = heads_NATd[:, :, 5:] * cos + torch.cat([-high, low], -1) * sin
            return torch.cat([heads_NATd[:, :, :5], turned], 2)

        scores = turn(q)[:, :, :1] @ turn(k).transpose(-2, -1) * q.shape[-1] ** -0.5
        expected_NAP = scores.softmax(-1)[:, :, 0, 5:]
        torch.testing.assert_close(tokens_NTD, tokens_of(vit.module, picture), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attn_NAP, expected_NAP, atol=1e-5, rtol=1e-4)
    assert attn_NAP.std() > 1e-3
    assert not attention._forward_pre_hooks
    assert not attention.attn_drop._forward_hooks
    assert attention.fused_attn


def test_a_distillation_token_is_no_patch(pictures: list[ByteArray]) -> None:
    vit = other_vit("deit_tiny_distilled_patch16_224", prefix=2)
    encoded = VitBackbone(vit, size_px=96, device=CPU).encode(pictures[:1])[0]
    assert (encoded.tokens_PD.shape, encoded.keys_PK.shape, encoded.attn_AP.shape) == ((36, 32), (36, 32), (2, 36))


def test_relative_positions_shift_the_attention(pictures: list[ByteArray]) -> None:
    vit = other_vit("beit_base_patch16_224", prefix=1)
    backbone = VitBackbone(vit, size_px=64, device=CPU) if hasattr(vit.module, "set_input_size") else None
    if backbone is None:
        with pytest.raises(ConfigError, match=r"timm >= 1\.0\.31"):
            VitBackbone(vit, size_px=64, device=CPU)
        return
    with torch.inference_mode():
        _, keys_NPK, attn_NAP = backbone._forward(pictures[:1])
        attention = vit.module.blocks[-1].attn
        x_NTD = input_of_last_block(vit.module, torch.from_numpy(_to_picture(pictures[0], 64, vit.spec)[None]))
        bias_3D = torch.cat([attention.q_bias, torch.zeros(32), attention.v_bias])
        q, k, _ = (split_heads(part, 2) for part in (x_NTD @ attention.qkv.weight.T + bias_3D).chunk(3, -1))
        scores = q @ k.transpose(-2, -1) * attention.scale + attention._get_rel_pos_bias()
    torch.testing.assert_close(keys_NPK, k.transpose(1, 2).flatten(2)[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attn_NAP, scores.softmax(-1)[:, :, 0, 1:], atol=1e-5, rtol=1e-4)
    finer = VitBackbone(vit, size_px=112, device=CPU)
    assert finer.encode(pictures[:1])[0].grid_hw == (7, 7)
    assert vit.module.patch_embed.img_size == (64, 64)  # a copy is fitted


@pytest.mark.parametrize(
    ("timm_name", "prefix"),
    [
        ("vit_base_patch16_siglip_224.v2_webli", 0),
        ("vit_medium_patch16_gap_256", 0),
        ("vit_medium_patch16_reg4_gap_256", 4),
    ],
)
def test_without_a_cls_token_the_contrast_to_the_border_stands_in(
    pictures: list[ByteArray], timm_name: str, prefix: int
) -> None:
    if not timm.is_model(timm_name):
        pytest.skip(f"timm {timm.__version__} has no {timm_name}")
    vit = other_vit(timm_name, prefix=prefix)
    backbone = VitBackbone(vit, size_px=96, device=CPU)
    with torch.inference_mode():
        tokens_NTD, keys_NPK, attn_NAP = backbone._forward(pictures[:1])
    tokens_NPD = tokens_NTD[:, prefix:]
    assert (tokens_NPD.shape, keys_NPK.shape, attn_NAP.shape) == ((1, 36, 32), (1, 36, 32), (1, 1, 36))
    unit_PD = (tokens_NPD[0] / tokens_NPD[0].norm(dim=-1, keepdim=True)).reshape(6, 6, 32)
    border = torch.cat([unit_PD[0], unit_PD[-1], unit_PD[1:-1, 0], unit_PD[1:-1, -1]])
    expected = (1 - (unit_PD.reshape(36, 1, 32) * border).sum(-1).mean(1)).clip(0, 1)
    torch.testing.assert_close(attn_NAP[0, 0], expected, atol=1e-5, rtol=0)


def test_the_stand_in_finds_what_the_border_lacks() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens_PD = torch.tensor([1.0, 0, 0]).repeat(49, 1) + 0.1 * torch.randn(49, 3, generator=generator)
    is_object = torch.zeros(7, 7, dtype=torch.bool)
    is_object[2:5, 2:5] = True
    tokens_PD[is_object.flatten()] = torch.tensor([0, 1.0, 0])
    contrast_P = border_contrast(tokens_PD[None], (7, 7))[0, 0]
    assert contrast_P[is_object.flatten()].min() > 0.7
    assert contrast_P[~is_object.flatten()].max() < 0.3


def test_blocks_of_another_kind_give_their_tokens_for_keys(pictures: list[ByteArray]) -> None:
    vit = other_vit("vit_small_patch16_224", prefix=1, block_fn=timm.models.vision_transformer.ParallelScalingBlock)
    with torch.inference_mode():
        tokens_NTD, keys_NPK, attn_NAP = VitBackbone(vit, size_px=64, device=CPU)._forward(pictures[:1])
    torch.testing.assert_close(keys_NPK, tokens_NTD[:, 1:])
    assert attn_NAP.shape == (1, 1, 16)
