"""Baselines: methods of others, written anew from their papers, on the features that our own stages see.

Each turns a group's features into soft maps on the token grid in which 0.5 is the method's own decision; stage 3
refines them like any other maps.
"""

from __future__ import annotations

from typing import Literal, get_args

from umscosod.baselines.dvfdvd import dvfdvd_maps
from umscosod.baselines.maps import attention_maps
from umscosod.baselines.tokencut import tokencut_maps
from umscosod.types import FloatArray, GroupFeatures

Untrained = Literal["attention", "tokencut", "dvfdvd"]
UNTRAINED: tuple[Untrained, ...] = get_args(Untrained)
"""Baselines that need one group and no training."""
TRAINED = "scosparc"
BASELINES: tuple[str, ...] = (*UNTRAINED, TRAINED)


def untrained_maps(method: Untrained, features: GroupFeatures, seed: int) -> FloatArray:
    """Compute a group's maps by a baseline that needs no training: float32, (N, h, w), in [0, 1], 0.5 its decision."""
    if method == "attention":
        return attention_maps(features)
    if method == "tokencut":
        return tokencut_maps(features)
    return dvfdvd_maps(features, seed)
