"""Tiny groups with known tokens, keys and attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umscosod.types import GroupFeatures, GroupTokens, ImageGroup, ImageRef


def make_features(
    tokens: Sequence[NDArray[np.float64]],
    saliency: Sequence[NDArray[np.float64]],
    sizes_hw: Sequence[tuple[int, int]] | None = None,
    names: Sequence[str] | None = None,
) -> GroupFeatures:
    """Tokens (h, w, D) and saliency (h, w) per image; the tokens serve as keys too."""
    count, (height, width) = len(tokens), tokens[0].shape[:2]
    names = names or [f"cat/{i:04d}.jpg" for i in range(count)]
    images = tuple(ImageRef(id=n, path=Path("/nowhere") / n, output=n.replace(".jpg", ".png")) for n in names)
    tokens_NPD = np.stack(tokens).reshape(count, height * width, -1).astype(np.float16)
    saliency_NP = np.stack(saliency).reshape(count, -1).astype(np.float32)
    stream = GroupTokens(
        tokens_NPD=tokens_NPD,
        keys_NPK=tokens_NPD,
        attn_NAP=saliency_NP[:, None].astype(np.float16),
        grid_hw=(height, width),
        backbone_id="test",
    )
    return GroupFeatures(
        group=ImageGroup(name="cat", images=images),
        first=stream,
        second=stream,
        saliency_NP=saliency_NP,
        pictures_NHW3=np.zeros((count, 8, 8, 3), dtype=np.uint8),
        sizes_hw=tuple(sizes_hw or [(height, width)] * count),
    )


def paint(grid: int, patches: dict[tuple[int, int, int, int], int], dim: int = 6) -> NDArray[np.float64]:
    """Tokens of a plain background (axis 0) with rectangles (top, left, bottom, right) along other axes."""
    tokens = np.zeros((grid, grid, dim))
    tokens[..., 0] = 1.0
    for (top, left, bottom, right), axis in patches.items():
        tokens[top:bottom, left:right] = np.eye(dim)[axis]
    return tokens


def box(grid: int, top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((grid, grid), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask
