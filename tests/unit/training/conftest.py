"""A collection small enough to train on in a second: a bright square that recurs in noise."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from umscosod.config import DecoderConfig, NetworkConfig, PipelineConfig, TrainConfig
from umscosod.types import GroupFeatures, GroupTokens, ImageGroup, ImageRef, PseudoLabel

GRID, DIM, SIZE = 4, 8, 16


class Collection(NamedTuple):
    """Features and labels of a few groups."""

    features: list[GroupFeatures]
    labels: dict[str, PseudoLabel]


def build_collection(sizes: tuple[int, ...], seed: int = 0) -> Collection:
    """Build one group per entry of `sizes`; a 2x2 block of tokens stands out in each image and is its label."""
    rng = np.random.default_rng(seed)
    features, labels = [], {}
    for number, count in enumerate(sizes):
        name = f"group{number}"
        images = tuple(
            ImageRef(id=f"{name}/{i}.png", path=Path(f"{name}/{i}.png"), output=f"{name}/{i}.png") for i in range(count)
        )
        masks = np.zeros((count, GRID, GRID), dtype=bool)
        for index, image in enumerate(images):
            row, column = rng.integers(0, GRID - 1, size=2)
            masks[index, row : row + 2, column : column + 2] = True
            labels[image.id] = PseudoLabel(
                image_id=image.id,
                map_hw=masks[index].astype(np.float32),
                mask_hw=masks[index],
                confidence=1.0,
                source="hac",
            )
        flat = masks.reshape(count, -1)
        tokens = (rng.standard_normal((count, GRID * GRID, DIM)) + 3 * flat[:, :, None]).astype(np.float16)
        stream = GroupTokens(
            tokens_NPD=tokens,
            keys_NPK=tokens,
            attn_NAP=flat[:, None].astype(np.float16),
            grid_hw=(GRID, GRID),
            backbone_id="toy-1",
        )
        features.append(
            GroupFeatures(
                group=ImageGroup(name=name, images=images),
                first=stream,
                second=stream,
                saliency_NP=flat.astype(np.float32),
                pictures_NHW3=np.zeros((count, SIZE, SIZE, 3), dtype=np.uint8),
                sizes_hw=((SIZE, SIZE),) * count,
            )
        )
    return Collection(features, labels)


@pytest.fixture
def collection() -> Collection:
    return build_collection((3, 5, 2))


@pytest.fixture
def config() -> PipelineConfig:
    return PipelineConfig(
        seed=5,
        device="cpu",
        network=NetworkConfig(decoder=DecoderConfig(channels=8)),
        train=TrainConfig(epochs=4, batch_images=3, learning_rate=3e-3),
    )
