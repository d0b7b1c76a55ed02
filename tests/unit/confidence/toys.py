"""Groups of made-up tokens whose truth is known: a square object on a background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from umscosod.confidence.cues import GroupEvidence, Stream, principal_tokens
from umscosod.data.resize import mask_share
from umscosod.types import BoolArray

GRID, PIXELS = 8, 64


def make_mask(at: int) -> BoolArray:
    """A square of 24 pixels somewhere inside the image."""
    mask_HW = np.zeros((PIXELS, PIXELS), bool)
    row, column = 8 + 8 * (at % 3), 8 + 8 * (at // 3 % 3)
    mask_HW[row : row + 24, column : column + 24] = True
    return mask_HW


def make_streams(objects: Sequence[int], noise: float = 0.3, seed: int = 0) -> tuple[Stream, Stream]:
    """Tokens of two backbones: `objects` says which thing each image shows; backgrounds vary."""
    rng = np.random.default_rng(seed)
    share_NP = np.stack([mask_share(make_mask(at), (GRID, GRID)).ravel() for at in range(len(objects))])
    streams = []
    for width in (24, 20):
        things = rng.normal(size=(max(objects) + 1, width)) * 1.5
        common = np.ones(width)  # what any foreground has in common
        grounds = rng.normal(size=(len(objects), width)) * (0.5 if noise else 0.0)
        tokens = share_NP[..., None] * (common + things[list(objects)][:, None]) - common
        tokens = tokens + (1.0 - share_NP[..., None]) * grounds[:, None]
        tokens = tokens + rng.normal(size=tokens.shape) * noise
        streams.append(Stream(tokens_NPD=principal_tokens(tokens, 64), share_NP=share_NP))
    return streams[0], streams[1]


def make_evidence(objects: Sequence[int], *, seed: int = 0, is_whitened: bool = False) -> GroupEvidence:
    """A whole group; objects are red on grey."""
    masks_NHW = np.stack([make_mask(at) for at in range(len(objects))])
    pictures = np.full((*masks_NHW.shape, 3), 90, np.uint8)
    pictures[masks_NHW] = (200, 30, 30)
    streams = make_streams(objects, seed=seed)
    weight_NP = streams[0].share_NP / streams[0].share_NP.sum(axis=1, keepdims=True)
    return GroupEvidence(
        masks_NHW=masks_NHW,
        pictures_NHW3=pictures,
        streams=streams,
        prototype_NF=np.einsum("np,npd->nd", weight_NP, streams[0].tokens_NPD),
        is_whitened=is_whitened,
    )
