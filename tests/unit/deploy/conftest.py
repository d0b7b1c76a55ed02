"""A trained checkpoint on a tiny ViT, and its export by the command line; both are made once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from tests.jobs import quick_config
from tests.synthetic import tiny_collection
from umscosod.cli import main
from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.pipeline import label_groups
from umscosod.training.checkpoint import MODEL_FILE, find_checkpoint
from umscosod.types import ByteArray

SIZE_PX = 64
_MODEL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
_GAIN = 3.0  # of the decoder's weights: a network that has seen six steps gives one grey all over


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of two blocks, as ``local-dir:`` reads one."""
    folder = tmp_path_factory.mktemp("vit")
    known = {"input_size": [3, SIZE_PX, SIZE_PX], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "license": "mit"}
    content = {"architecture": "vit_tiny_patch16_224", "model_args": _MODEL, "pretrained_cfg": known}
    (folder / "config.json").write_text(json.dumps(content))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model("vit_tiny_patch16_224", img_size=SIZE_PX, num_classes=0, **_MODEL)
        weights = {name: tensor + 0.1 * torch.randn(tensor.shape) for name, tensor in module.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of three."""
    root = tmp_path_factory.mktemp("collection")
    tiny_collection(root, groups=2, images=3, size=96)
    return root / "image"


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Callable[[str], Path]:
    """Train on the features of a backbone; gives the job's folder."""

    def make(backbone: str) -> Path:
        root = tmp_path_factory.mktemp("trained")
        config = quick_config(root / "cache")
        features = replace(config.features, backbone=backbone, size_px=SIZE_PX)
        network = replace(config.network, decoder=replace(config.network.decoder, picture=True))
        config = replace(config, features=features, network=network)
        label_groups(images, root / "out", config, train=True)
        file = find_checkpoint(root / "out") / MODEL_FILE
        weights = load_file(file)
        scaled = {name: tensor * _GAIN if name.startswith("decoder.") else tensor for name, tensor in weights.items()}
        save_file(scaled, file)
        return root / "out"

    return make


@pytest.fixture(scope="session")
def trained(train: Callable[[str], Path], vit_folder: Path) -> Path:
    return train(f"local-dir:{vit_folder}")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, trained: Path, images: Path) -> Path:
    """What ``umscosod export-model`` writes, int8 included."""
    out = tmp_path_factory.mktemp("export") / "onnx"
    line = ["export-model", trained, "--onnx", "--out", out, "--int8", "--images", images]
    assert main([str(word) for word in line]) == 0
    return out


@pytest.fixture(scope="session")
def settings() -> PipelineConfig:
    """With which `umscosod.load_model` gives the network's own maps, in the arithmetic of the graphs."""
    return PipelineConfig(device="cpu", keep="network", features=FeaturesConfig(precision="float32"))


@pytest.fixture(scope="session")
def pictures() -> list[ByteArray]:
    """Five pictures of one disc on noise, of several sizes."""
    rng = np.random.default_rng(1)
    made = []
    for height, width in ((90, 70), (64, 64), (130, 100), (50, 120), (77, 77)):
        picture_HW3 = rng.integers(0, 120, (height, width, 3), np.uint8)
        rows, columns = np.ogrid[:height, :width]
        is_disc_HW = (rows - 0.4 * height) ** 2 + (columns - 0.6 * width) ** 2 < (0.25 * min(height, width)) ** 2
        picture_HW3[is_disc_HW] = (220, 60, 40)
        made.append(picture_HW3)
    return made
