"""What peers compare of a patch: one facet of the first stream as unit vectors.

Suffixes: ``N`` images, ``P`` patches, ``D`` width.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from umscosod.types import FloatArray, GroupTokens

_TINY = 1e-6  # relative to the largest vector: shorter ones are rounding of equal patches


def unit_patches(
    tokens: GroupTokens, facet: Literal["keys", "tokens"], centre: Literal["group", "image", "none"]
) -> FloatArray:
    """Take a facet's common part out and bring its vectors to unit length.

    Parameters
    ----------
    tokens : GroupTokens
    facet : {"keys", "tokens"}
    centre : {"group", "image", "none"}
        Mean patch taken out first. ``group`` does nothing where it is out already (whitened tokens).

    Returns
    -------
    ndarray, float32, (N, P, D)
        Patches with nothing of their own, as all of a picture of one colour, are zero.

    Examples
    --------
    >>> stack = np.array([[[3.0, 4.0], [0.0, 0.0]]])
    >>> group = GroupTokens(tokens_NPD=stack, keys_NPK=stack, attn_NAP=np.ones((1, 1, 2)), grid_hw=(1, 2),
    ...                     backbone_id="x")
    >>> unit_patches(group, "keys", "none").tolist()
    [[[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]]
    """
    stack_NPD = np.asarray(tokens.keys_NPK if facet == "keys" else tokens.tokens_NPD, np.float32)
    longest = float(np.sqrt((stack_NPD**2).sum(-1)).max())
    if centre == "image":
        stack_NPD = stack_NPD - stack_NPD.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
    elif centre == "group" and not tokens.is_centred:
        stack_NPD = stack_NPD - stack_NPD.mean((0, 1), dtype=np.float64).astype(np.float32)
    length_NP1 = np.sqrt((stack_NPD**2).sum(-1, keepdims=True))
    is_own = length_NP1 > _TINY * longest
    return np.asarray(np.where(is_own, stack_NPD / np.where(is_own, length_NP1, 1.0), 0.0), np.float32)
