"""Tokens equal those of the original codes of DINO and DINOv2, at their native size and at others.

The expected numbers were made once with the original codes: ``tests/data/vit/README.md``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from umscosod.features.specs import VIT_SPECS, VitSpec
from umscosod.features.vit import VitBackbone, load_vit
from umscosod.types import ByteArray

FILE = Path(__file__).parents[2] / "data" / "vit" / "original_tokens.safetensors"
STEP = 31  # every 31st token is kept
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
    torch.save({key: value for key, value in weights.items() if not key.startswith("tokens/")}, path)
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
