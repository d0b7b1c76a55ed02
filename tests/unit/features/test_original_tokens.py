"""Tokens, keys and attention equal those of the original codes of DINO and DINOv2; tokens also at other sizes.

The expected numbers were made once with the original codes: ``tests/data/vit/README.md``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models import VisionTransformer

from umscosod.features.specs import VIT_SPECS, VitSpec
from umscosod.features.vit import VitBackbone, _to_picture, load_vit
from umscosod.features.weights import resize_pos_embed
from umscosod.types import ByteArray

FILE = Path(__file__).parents[2] / "data" / "vit" / "original_tokens.safetensors"
STEP = 31  # every 31st token is kept
OUTPUTS = ("tokens", "keys", "attention")
SMALL = (("embed_dim", 24), ("depth", 2), ("num_heads", 2))
CPU = torch.device("cpu")
SPECS = {
    "dino_p8": VIT_SPECS["dino_vits8"],
    "dino_p16": replace(VIT_SPECS["dino_vits8"], timm_name="vit_small_patch16_224.dino", patch_px=16),
    "dinov2_p14": VIT_SPECS["dinov2_vits14"],
    "dinov2_p14_reg": VIT_SPECS["dinov2_vits14_reg"],
}


def make_picture(size_px: int) -> ByteArray:
    y, x, channel = np.mgrid[:size_px, :size_px, :3]
    return ((x * x + 3 * x * y + 5 * y + 70 * channel) % 256).astype(np.uint8)


def spec_of(name: str) -> VitSpec:
    return replace(SPECS[name], dim=24, overrides=SMALL)


@pytest.fixture(scope="module")
def stored() -> dict[str, torch.Tensor]:
    return load_file(FILE)


def write_weights(stored: dict[str, torch.Tensor], name: str, folder: Path) -> Path:
    """Write a file as the authors publish it: their names, a bare dictionary."""
    prefixes = ("dinov2_p14/", "dinov2_p14_reg/") if name == "dinov2_p14_reg" else (f"{name}/",)
    weights = {key.removeprefix(prefix): stored[key] for prefix in prefixes for key in stored if key.startswith(prefix)}
    path = folder / "original.pth"
    torch.save({key: value for key, value in weights.items() if key.split("/")[0] not in OUTPUTS}, path)
    return path


@pytest.mark.parametrize("size_px", [112, 224, 280, 392, 518])
@pytest.mark.parametrize("name", SPECS)
def test_tokens_equal_the_original_code_at_every_size(
    stored: dict[str, torch.Tensor], tmp_path: Path, name: str, size_px: int
) -> None:
    spec = spec_of(name)
    vit = load_vit(spec, write_weights(stored, name, tmp_path), CPU)
    backbone = VitBackbone(vit, size_px=size_px, device=CPU)
    with torch.inference_mode():
        tokens_NTD, _, _ = backbone._forward([make_picture(backbone.size_px)])
    tokens_PD = tokens_NTD[0, spec.prefix_tokens :]
    torch.testing.assert_close(tokens_PD[::STEP], stored[f"{name}/tokens/{size_px}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SPECS)
def test_keys_and_attention_of_the_last_block_equal_the_original_code(
    stored: dict[str, torch.Tensor], tmp_path: Path, name: str
) -> None:
    spec = spec_of(name)
    backbone = VitBackbone(load_vit(spec, write_weights(stored, name, tmp_path), CPU), size_px=224, device=CPU)
    with torch.inference_mode():
        _, (keys_PD,), (attn_AP,) = backbone._forward([make_picture(224)])
    torch.testing.assert_close(keys_PD[::STEP], stored[f"{name}/keys/224"], atol=1e-5, rtol=0)
    torch.testing.assert_close(attn_AP[:, ::STEP], stored[f"{name}/attention/224"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", SPECS)
def test_timm_resizes_positions_as_dinov2_with_registers_does_and_unlike_the_others(
    stored: dict[str, torch.Tensor], tmp_path: Path, name: str
) -> None:
    """DINO, and DINOv2 without registers: scale (side + 0.1) / M. DINOv2 with registers, and timm: antialiased."""
    spec = spec_of(name)
    size_px = 224 if spec.patch_px == 14 else 112  # half or less of the native size
    module = load_vit(spec, write_weights(stored, name, tmp_path), CPU).module
    side, prefix = size_px // spec.patch_px, 0 if module.no_embed_class else 1
    timms_1TD = resample_abs_pos_embed(module.pos_embed, [side, side], num_prefix_tokens=prefix)
    offset_1TD, antialias_1TD = (
        resize_pos_embed(module.pos_embed, side, prefix=prefix, rule=rule) for rule in ("offset", "antialias")
    )
    assert torch.equal(timms_1TD, antialias_1TD)
    expected = stored[f"{name}/tokens/{size_px}"]
    differences = {
        rule: float((tokens_with(module, pos_1TD, size_px, spec)[spec.prefix_tokens :: STEP] - expected).abs().max())
        for rule, pos_1TD in (("offset", offset_1TD), ("antialias", antialias_1TD))
    }
    assert differences.pop(spec.pos_embed) < 1e-5
    assert max(differences.values()) > 1e-3


def tokens_with(module: VisionTransformer, pos_1TD: torch.Tensor, size_px: int, spec: VitSpec) -> torch.Tensor:
    module.pos_embed = torch.nn.Parameter(pos_1TD)
    picture_3HW = torch.from_numpy(_to_picture(make_picture(size_px), size_px, spec))
    with torch.inference_mode():
        return module.forward_features(picture_3HW[None])[0]
