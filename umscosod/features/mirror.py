"""A group's features mirrored left to right on their grids: another view at no cost, as nothing is encoded again.

A ViT is not quite blind to left and right, so this is near to, not the same as, the features of mirrored pictures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from umscosod.features.lazy import LazyFeatures, LazyTokens
from umscosod.types import GroupFeatures, GroupTokens


def mirror_features(features: GroupFeatures) -> GroupFeatures:
    """Mirror tokens, keys, attention, saliency and pictures of a group; mirroring twice gives back the same.

    Parameters
    ----------
    features : GroupFeatures

    Returns
    -------
    GroupFeatures
        Copies, each made when it is asked for; the features given stay as they are.
    """
    return LazyFeatures.of(
        features.group,
        _mirror_stream(features.first),
        _mirror_stream(features.second),
        {
            "saliency_NP": lambda: _mirror(features.saliency_NP[:, None, :], features.first.grid_hw, axis=2)[:, 0],
            "pictures_NHW3": lambda: np.ascontiguousarray(features.pictures_NHW3[:, :, ::-1]),
            "sizes_hw": lambda: features.sizes_hw,
        },
    )


def _mirror_stream(tokens: GroupTokens) -> GroupTokens:
    return LazyTokens.like(
        tokens,
        {
            "tokens_NPD": lambda: _mirror(tokens.tokens_NPD, tokens.grid_hw, axis=1),
            "keys_NPK": lambda: _mirror(tokens.keys_NPK, tokens.grid_hw, axis=1),
            "attn_NAP": lambda: _mirror(tokens.attn_NAP, tokens.grid_hw, axis=2),
        },
    )


def _mirror(stack: npt.NDArray[Any], grid_hw: tuple[int, int], *, axis: int) -> npt.NDArray[Any]:
    """Reverse the columns of the grid that lies flattened along an axis of a stack of three."""
    order_P = np.arange(grid_hw[0] * grid_hw[1]).reshape(grid_hw)[:, ::-1].ravel()
    return np.ascontiguousarray(np.take(stack, order_P, axis=axis))
