"""How far each mask of a group can be trusted, and in words why not further.

Suffixes: ``N`` images of the group, ``H W`` network size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from umscosod.confidence.cues import mask_cues, separation
from umscosod.confidence.evidence import GroupEvidence, gather_evidence
from umscosod.confidence.group import group_cues, image_cues, kinship, predictability
from umscosod.confidence.model import CueModel, calibration
from umscosod.config import ConfidenceConfig
from umscosod.types import BoolArray, GroupFeatures

MIXED = "no common object seen in the group"
UNLIKE = "nothing here resembles what the rest of the group shares"
_WORDS = {
    "inner_sides": "reaches across the image like a background",
    "inner_outline": "cut off by the frame",
    "compactness": "ragged outline",
    "wholeness": "in several pieces",
    "size": "very small",
    "centrality": "at the edge of the image",
    "colour_contrast": "weak border",
    "separation": "hardly differs from its background",
    "agreement": "the group's masks do not agree",
    "kinship": "unlike any other mask of the group",
}
_NAMED = 2  # reasons of a mask that are told


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskJudgement:
    """What is thought of one mask.

    Attributes
    ----------
    confidence : float
        In [0, 1]: an estimate of the IoU with what a person would draw, lowered where the image is unlike its group;
        0 for an empty mask. A doubt about the whole group is a flag of its own and leaves the order of its masks.
    reason : str
        In words where the confidence is low or the group is mixed; else ``""``.
    is_unlike : bool
        The foreground resembles none of the group's others.
    is_withdrawn : bool
        By the settings the mask is to be left empty; `reason` says why.
    cues : dict of str to float
        All that were measured, by name.
    """

    confidence: float
    reason: str = ""
    is_unlike: bool = False
    is_withdrawn: bool = False
    cues: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupJudgement:
    """What is thought of a group.

    Attributes
    ----------
    is_mixed : bool
        No common object is seen.
    cues : dict of str to float
    masks : tuple of MaskJudgement
        In the order given.
    """

    is_mixed: bool
    cues: dict[str, float]
    masks: tuple[MaskJudgement, ...]


def judge_group(features: GroupFeatures, masks: Sequence[BoolArray], config: ConfidenceConfig) -> GroupJudgement:
    """Judge the masks of a group without any ground truth.

    Parameters
    ----------
    features : GroupFeatures
    masks : sequence of ndarray, bool, (any height, any width)
        One per image.
    config : ConfidenceConfig

    Returns
    -------
    GroupJudgement
        Up to rounding the same for any order of the images. Cues that cannot be measured, such as those of a group in
        a group of one or those of tokens where no backbone was loaded, are left out.

    Raises
    ------
    DataError
        Masks and features are not of the same images.
    """
    return judge_evidence(gather_evidence(features, masks, config), config)


def judge_evidence(evidence: GroupEvidence, config: ConfidenceConfig) -> GroupJudgement:
    """Judge a group by what `gather_evidence` brought together; see `judge_group`."""
    models = calibration()
    kind = "whitened" if evidence.is_centred else "plain"
    shared, cues = measure_cues(evidence, config)
    is_mixed = bool(
        shared
        and config.mixed != "off"
        and sum(bool(found) for found in cues) >= config.mixed_images
        and models[f"group-{kind}"].estimate(shared) < config.mixed_level
    )
    masks = []
    for found in cues:
        judged = _judge_mask(found, models[f"mask-{kind}"], models[f"image-{kind}"], config)
        masks.append(_flag_mixed(judged, config) if is_mixed and found else judged)
    return GroupJudgement(is_mixed=is_mixed, cues=shared, masks=tuple(masks))


def measure_cues(evidence: GroupEvidence, config: ConfidenceConfig) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Measure all cues: those of the group, and those of each mask; an empty or full mask has none.

    Parameters
    ----------
    evidence : GroupEvidence
    config : ConfidenceConfig

    Returns
    -------
    group : dict of str to float
        Empty where fewer than two masks can be compared.
    masks : list of dict of str to float
    """
    cues: list[dict[str, float]] = []
    for mask_HW, picture_HW3 in zip(evidence.masks_NHW, evidence.pictures_NHW3, strict=True):
        is_usable = mask_HW.any() and not mask_HW.all()
        cues.append(mask_cues(mask_HW, picture_HW3, config) if is_usable else {})
    usable = np.flatnonzero([bool(found) for found in cues])
    if len(evidence.streams) != 2 or not usable.size:
        return {}, cues
    first, second = (
        replace(stream, tokens_NPD=stream.tokens_NPD[usable], share_NP=stream.share_NP[usable])
        for stream in evidence.streams
    )
    for at, index in enumerate(usable):
        parts = [separation(stream.tokens_NPD[at], stream.share_NP[at]) for stream in (first, second)]
        cues[index]["separation"] = float(np.mean(parts))
    if usable.size < 2:
        return {}, cues
    predicted_N = np.mean([predictability(stream, config.agreement_ridge) for stream in (first, second)], axis=0)
    resemblance = image_cues((first, second), config)
    kinship_N = kinship(evidence.prototype_NF[usable])
    for at, index in enumerate(usable):
        # what the others say of each other: an image's own mask is judged by its own cues
        others = (predicted_N.sum() - predicted_N[at]) / (usable.size - 1)
        cues[index] |= {"agreement": float(others), "kinship": float(kinship_N[at]), **resemblance[at]}
    return group_cues((first, second), config), cues


def _judge_mask(
    cues: dict[str, float], mask_model: CueModel, image_model: CueModel, config: ConfidenceConfig
) -> MaskJudgement:
    if not cues:
        return MaskJudgement(confidence=0.0)
    confidence = mask_model.estimate(cues)
    is_unlike = "nearness" in cues and config.absent != "off" and image_model.estimate(cues) < config.absent_level
    if is_unlike:
        confidence = _cap(confidence, config)
    words = [UNLIKE] if is_unlike else []
    if confidence < config.low:
        words += _weakest(mask_model.contributions(cues))
    return MaskJudgement(
        confidence=confidence,
        reason="; ".join(words),
        is_unlike=is_unlike,
        is_withdrawn=is_unlike and config.absent == "empty",
        cues=cues,
    )


def _flag_mixed(judged: MaskJudgement, config: ConfidenceConfig) -> MaskJudgement:
    words = [MIXED, *([judged.reason] if judged.reason else [])]
    return replace(
        judged,
        reason="; ".join(words),
        is_withdrawn=judged.is_withdrawn or config.mixed == "empty",
    )


def _cap(confidence: float, config: ConfidenceConfig) -> float:
    """Bring a confidence below the level of low ones; the order of those capped stays."""
    return min(confidence, config.low * (config.doubt_cap + (1.0 - config.doubt_cap) * confidence))


def _weakest(contributions: Mapping[str, float]) -> list[str]:
    """Words for the cues that lower a confidence most."""
    against = sorted((value, name) for name, value in contributions.items() if value < 0.0)
    return [_WORDS[name] for _, name in against[:_NAMED]]
