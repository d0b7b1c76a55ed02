"""Collections whose groups are known: points around directions, and pictures in one heap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.types import FloatArray


@pytest.fixture
def make_points() -> Callable[..., tuple[FloatArray, FloatArray]]:
    """Unit vectors about orthogonal directions, `sizes` of each, and the true labels; shuffled."""

    def make(*sizes: int, noise: float = 0.3, width: int = 24, seed: int = 0) -> tuple[FloatArray, FloatArray]:
        random = np.random.default_rng(seed)
        truth = np.repeat(np.arange(len(sizes)), sizes)
        rows = np.eye(width)[truth] + noise * random.standard_normal((len(truth), width)) / np.sqrt(width)
        order = random.permutation(len(truth))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True))[order], truth[order]

    return make


@pytest.fixture
def heap(tmp_path: Path) -> Path:
    """Twelve pictures in one folder: a disc of one of three colours on grey noise; the colour starts the name."""
    folder = tmp_path / "heap"
    folder.mkdir()
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]
    for index in range(4):
        for kind, colour in (("red", (200, 30, 40)), ("green", (30, 170, 60)), ("blue", (40, 60, 220))):
            picture = np.repeat(random.integers(90, 150, (96, 96, 1)), 3, 2)
            row, column = random.integers(36, 60, 2)
            picture[(rows - row) ** 2 + (columns - column) ** 2 < random.integers(18, 26) ** 2] = colour
            Image.fromarray(picture.astype(np.uint8)).save(folder / f"{kind}-{index}.png")
    return folder


@pytest.fixture
def quick() -> PipelineConfig:
    """Weight-free features of small pictures."""
    return PipelineConfig(device="cpu", features=FeaturesConfig(backbone="embedded", size_px=112))
