"""Whose maps a group keeps: the network's, those of its labels or of the probe, or a mean of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from umscosod.config import PipelineConfig
from umscosod.pipeline.blend import blend_maps
from umscosod.pipeline.stages import refine_features
from umscosod.refine.choice import group_agreement
from umscosod.refine.crf_pool import CrfPool
from umscosod.types import FloatArray, GroupFeatures, RefinedMask

NETWORK, PSEUDO, PROBE, MEAN, STORED = "network", "pseudo-label", "probe", "mean", "stored map"
"""Whose maps a group's masks come from; the probe's own where no pseudo-label was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeMaps:
    """One maker's maps of a group.

    Attributes
    ----------
    maps_NHW : ndarray, float32, (N, H, W), in [0, 1]
        At network size.
    b_bar : float
        Mean doubt of this maker's maps (eq. 6).
    """

    maps_NHW: FloatArray
    b_bar: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One maker's maps of a group, refined."""

    source: str
    maps_NHW: FloatArray
    refined: list[RefinedMask]


def choose_maps(
    features: GroupFeatures, made: Mapping[str, MadeMaps], config: PipelineConfig, pool: CrfPool | None
) -> Candidate:
    """Refine every maker's maps of a group; return what is to be kept.

    Parameters
    ----------
    features : GroupFeatures
    made : mapping of str to MadeMaps
        By maker: one of any name, kept as it is, or `NETWORK` and one other.
    config : PipelineConfig
        Reads ``keep``, ``keep_margin``, ``mean_network_share`` and ``refine``.
    pool : CrfPool or None
        Processes for DenseCRF.

    Returns
    -------
    Candidate
        Of the maker whose masks agree better across the group by more than ``keep_margin``, or that ``keep`` names;
        else of the mean of both makers' maps, named `MEAN`, with the mean of their b_bar, weighted alike.
    """
    if len(made) == 1:
        ((source, only),) = made.items()
        return _refine(features, source, only, config, pool)
    network = _refine(features, NETWORK, made[NETWORK], config, pool)
    (other_source,) = made.keys() - {NETWORK}
    other = _refine(features, other_source, made[other_source], config, pool)
    lead = _agreement(features, network, config) - _agreement(features, other, config)
    if config.keep == "network" or (config.keep == "better" and lead > config.keep_margin):
        return network
    if config.keep == "pseudo" or lead < -config.keep_margin:
        return other
    share = config.mean_network_share
    mean = MadeMaps(
        maps_NHW=blend_maps(other.maps_NHW, network.maps_NHW, share),
        b_bar=share * made[NETWORK].b_bar + (1.0 - share) * made[other_source].b_bar,
    )
    return _refine(features, MEAN, mean, config, pool)


def _refine(
    features: GroupFeatures, source: str, made: MadeMaps, config: PipelineConfig, pool: CrfPool | None
) -> Candidate:
    refined = refine_features(features, made.maps_NHW, config.refine, made.b_bar, pool)
    return Candidate(source=source, maps_NHW=made.maps_NHW, refined=refined)


def _agreement(features: GroupFeatures, one: Candidate, config: PipelineConfig) -> float:
    """Judged on the second stream: neither the pseudo-labels' masks nor the region filter looked at it."""
    second = features.second
    return group_agreement([mask.mask_HW for mask in one.refined], second.tokens_NPD, second.grid_hw, config.refine)
