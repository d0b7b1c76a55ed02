"""Stage 3 and the confidence of one group: features and soft maps in, masks out; nothing is written.

A job on disk and a model in memory both end here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from umscosod.confidence.judge import GroupJudgement, judge_group
from umscosod.config import PipelineConfig
from umscosod.data.blend import blend_maps
from umscosod.pipeline.maps import MEAN, Source
from umscosod.pseudo.store import HUMAN_SOURCE
from umscosod.refine.crf_pool import Refiner
from umscosod.refine.rrbe import begin_refining
from umscosod.types import BoolArray, FloatArray, GroupFeatures, RefinedMask

_NO_MASKS: Mapping[str, BoolArray] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """What was found in one image.

    Attributes
    ----------
    map_HW : ndarray, float32, (H, W), in [0, 1]
        At network size.
    mask_HW : ndarray, bool, (H, W)
        At the image's own size.
    source : str
        Name of the map's source, `umscosod.pipeline.maps.MEAN`, or ``human``.
    confidence : float
        In [0, 1]; 0 where the mask is empty.
    reason : str
        Why it is empty or of low confidence; else ``""``.
    threshold : float
        Adaptive threshold of eq. 6.
    """

    map_HW: FloatArray
    mask_HW: BoolArray
    source: str
    confidence: float
    reason: str
    threshold: float


def segment_group(
    features: GroupFeatures,
    sources: Sequence[Source],
    config: PipelineConfig,
    *,
    own_masks: Mapping[str, BoolArray] = _NO_MASKS,
    pool: Refiner | None = None,
) -> tuple[list[Segment], GroupJudgement]:
    """Mix the maps of a group, refine them once, and judge the masks.

    Parameters
    ----------
    features : GroupFeatures
    sources : sequence of Source
        One; or the network and one other, whose maps are blended.
    config : PipelineConfig
        Reads ``mean_network_share``, ``refine`` and ``confidence``.
    own_masks : mapping of str to ndarray, bool, (H, W)
        A person's masks by image id, at the image's own size: they replace ours, and the group is judged with them.
    pool : Refiner, optional
        What does DenseCRF, from `umscosod.refine.crf_pool.open_pool`; None: this process.

    Returns
    -------
    list of Segment
        In the order of the images.
    GroupJudgement
        See `umscosod.confidence.judge.judge_group`.
    """
    return begin_segmenting(features, sources, config, own_masks=own_masks, pool=pool)()


def begin_segmenting(
    features: GroupFeatures,
    sources: Sequence[Source],
    config: PipelineConfig,
    *,
    own_masks: Mapping[str, BoolArray] = _NO_MASKS,
    pool: Refiner | None = None,
) -> Callable[[], tuple[list[Segment], GroupJudgement]]:
    """Begin `segment_group`: what is returned waits for DenseCRF, at which a pool is then at work, and judges."""
    source, maps_NHW, b_bar = _mix(features, sources, config.mean_network_share)
    tokens_NPD, grid_hw = features.first.tokens_NPD, features.first.grid_hw
    refine = begin_refining(
        maps_NHW, features.pictures_NHW3, tokens_NPD, grid_hw, features.sizes_hw, config.refine, b_bar, pool
    )
    return partial(_judge, features, source, maps_NHW, refine, own_masks, config)


def _judge(
    features: GroupFeatures,
    source: str,
    maps_NHW: FloatArray,
    refine: Callable[[], list[RefinedMask]],
    own_masks: Mapping[str, BoolArray],
    config: PipelineConfig,
) -> tuple[list[Segment], GroupJudgement]:
    refined = refine()
    masks = [own_masks.get(image.id, one.mask_HW) for image, one in zip(features.group.images, refined, strict=True)]
    judged = judge_group(features, masks, config.confidence)
    segments = []
    for image, map_HW, one, judgement in zip(features.group.images, maps_NHW, refined, judged.masks, strict=True):
        mask_HW = np.zeros_like(one.mask_HW) if judgement.is_withdrawn else one.mask_HW
        origin, confidence = source, judgement.confidence
        reason = "; ".join(filter(None, (judgement.reason, one.failure)))
        if image.id in own_masks:
            mask_HW, origin, confidence, reason = own_masks[image.id], HUMAN_SOURCE, 1.0, ""
        if not mask_HW.any():
            confidence, reason = 0.0, reason or _why_empty(origin, one.threshold)
        segments.append(
            Segment(
                map_HW=map_HW,
                mask_HW=mask_HW,
                source=origin,
                confidence=confidence,
                reason=reason,
                threshold=one.threshold,
            )
        )
    return segments, judged


def _mix(features: GroupFeatures, sources: Sequence[Source], share: float) -> tuple[str, FloatArray, float]:
    """Name, maps and b_bar of the only source; or of the mean of both, weighted alike."""
    maps = [source.make_maps(features) for source in sources]
    if len(sources) == 1:
        return sources[0].name, maps[0], sources[0].b_bar
    return MEAN, blend_maps(maps[1], maps[0], share), mixed_b_bar(sources, share)


def mixed_b_bar(sources: Sequence[Source], share: float) -> float:
    """Mean uncertainty of the maps of a collection: of the only source; or of both, weighted as their maps are."""
    if len(sources) == 1:
        return sources[0].b_bar
    network, other = sources
    return share * network.b_bar + (1.0 - share) * other.b_bar


def _why_empty(source: str, threshold: float) -> str:
    return "a person left it empty" if source == HUMAN_SOURCE else f"no region passed the threshold {threshold:.2f}"
