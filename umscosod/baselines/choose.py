"""The peers by name."""

from __future__ import annotations

from typing import Literal, get_args

from umscosod.baselines.dvfdvd import dvfdvd_maps
from umscosod.baselines.maps import attention_maps
from umscosod.baselines.tokencut import tokencut_maps
from umscosod.config import BaselinesConfig
from umscosod.types import FloatArray, GroupFeatures

Untrained = Literal["attention", "tokencut", "dvfdvd"]
UNTRAINED: tuple[Untrained, ...] = get_args(Untrained)
"""Peers that need one group and no training."""
TRAINED = "scosparc"
BASELINES: tuple[str, ...] = (*UNTRAINED, TRAINED)


def untrained_maps(method: Untrained, features: GroupFeatures, config: BaselinesConfig, seed: int) -> FloatArray:
    """Compute a group's maps by a peer that needs no training: float32, (N, h, w), in [0, 1], 0.5 its decision."""
    if method == "attention":
        return attention_maps(features, config.attention)
    if method == "tokencut":
        return tokencut_maps(features, config.tokencut)
    return dvfdvd_maps(features, config.dvfdvd, seed)
