"""Tiny transformers with the real architectures' names and traits, and empty weight folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from umscosod.features.architectures import Vit, build_vit
from umscosod.features.specs import VIT_SPECS, VitSpec
from umscosod.types import ByteArray


def shrink(spec: VitSpec) -> VitSpec:
    """Two thin blocks on a 4x4 position embedding; larger models stay wider than smaller ones."""
    dim, heads = {384: (32, 2), 768: (48, 3), 1024: (64, 4)}[spec.dim]
    return replace(
        spec,
        dim=dim,
        native_px=4 * spec.patch_px,
        overrides=(("embed_dim", dim), ("depth", 2), ("num_heads", heads)),
    )


def randomise(module: Vit, seed: int = 0) -> Vit:
    """Weights large enough for attention that is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.eval()


@pytest.fixture(scope="session")
def tiny_specs() -> dict[str, VitSpec]:
    return {name: shrink(spec) for name, spec in VIT_SPECS.items()}


@pytest.fixture
def make_tiny(tiny_specs: dict[str, VitSpec]) -> Callable[[str], Vit]:
    return lambda name: randomise(build_vit(tiny_specs[name]))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Point every place where weights may lie to empty folders; returns the hub cache's."""
    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub._hub_dir", None)
    monkeypatch.setenv("UMSCOSOD_WEIGHTS", str(tmp_path / "own"))

    def refuse(*args: object, **kwargs: object) -> str:
        raise AssertionError("the network must not be used")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    return hub


@pytest.fixture
def pictures() -> list[ByteArray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((40, 60), (70, 30), (1, 1))]
