"""From cues to a confidence in [0, 1]: a logistic model of standardised cues, each with a weight that is not negative.

Suffixes: ``N`` images of the group, ``H W`` network size.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources

import numpy as np

from umscosod.confidence.cues import GroupEvidence, gather_evidence, mask_cues, separation
from umscosod.confidence.group import group_cues, image_cues, max_group_cosine, measure_sides, predictability
from umscosod.config import ConfidenceConfig
from umscosod.types import BoolArray, GroupFeatures

CUE_CLIP = 3.0  # standard deviations at which a cue is cut, so that none decides alone: part of the calibration
AGREEMENT_RIDGE = 0.1  # of the classifier that predicts an image from the others, in mean variances
MIXED_IMAGES = 4  # smaller groups are never called mixed: too little to go by
UNLIKE_CAP = 0.8  # of the level `low`: what a mask unlike its group gets at most, rising with its estimate to `low`


@dataclass(frozen=True, kw_only=True, slots=True)
class CueWeight:
    """How one cue counts.

    Attributes
    ----------
    mean, scale : float
        Of the cue where the model was calibrated.
    weight : float
        At least 0: a higher cue never lowers the estimate.
    """

    mean: float
    scale: float
    weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CueModel:
    """A calibrated model.

    Attributes
    ----------
    bias : float
    cues : mapping of str to CueWeight
    """

    bias: float
    cues: Mapping[str, CueWeight]

    def estimate(self, values: Mapping[str, float]) -> float:
        """Estimate from the cues that are there; a missing one counts as average, and so not at all.

        Examples
        --------
        >>> model = CueModel(bias=0.0, cues={"size": CueWeight(mean=2.0, scale=1.0, weight=1.0)})
        >>> model.estimate({"size": 2.0}), model.estimate({}), round(model.estimate({"size": 9.0}), 3)
        (0.5, 0.5, 0.953)
        """
        return 1.0 / (1.0 + math.exp(-self.bias - math.fsum(self.contributions(values).values())))

    def contributions(self, values: Mapping[str, float]) -> dict[str, float]:
        """What each cue that is there adds to the logit."""
        return {
            name: cue.weight * min(CUE_CLIP, max(-CUE_CLIP, (values[name] - cue.mean) / cue.scale))
            for name, cue in self.cues.items()
            if name in values
        }


@functools.cache
def calibration() -> Mapping[str, CueModel]:
    """The models that come with the package.

    Returns
    -------
    mapping of str to CueModel
        ``mask``: IoU of a mask with what a person would draw. ``group`` and ``image``: that a group shares an object
        and that an image belongs to its group. Each for a ViT's tokens as they are (``mask-plain``) and for tokens
        whitened over the collection (``mask-whitened``). Made by ``python -m benchmarks.confidence --write``.
    """
    text = resources.files("umscosod.confidence").joinpath("calibration.json").read_text(encoding="utf-8")
    return {name: read_model(content) for name, content in json.loads(text)["models"].items()}


def read_model(content: Mapping[str, object]) -> CueModel:
    """Build a model from plain JSON values."""
    bias, cues = content["bias"], content["cues"]
    assert isinstance(bias, float)
    assert isinstance(cues, dict)
    return CueModel(bias=bias, cues={name: CueWeight(**cue) for name, cue in cues.items()})


MIXED = "no common object seen in the group"
UNLIKE = "nothing here resembles what the rest of the group shares"
_WORDS = {
    "border_contact": "reaches across the image like a background",
    "inner_outline": "cut off by the frame",
    "compactness": "ragged outline",
    "largest_component_share": "in several pieces",
    "size": "very small",
    "centrality": "at the edge of the image",
    "colour_contrast": "weak border",
    "separation": "hardly differs from its background",
    "agreement": "the group's masks do not agree",
    "max_group_cosine": "unlike any other mask of the group",
}
_NAMED = 2  # reasons of a mask that are told


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskJudgement:
    """What is thought of one mask.

    Attributes
    ----------
    confidence : float
        In [0, 1]: an estimate of the IoU with what a person would draw, lowered where the image is unlike its group;
        0 for an empty mask. That the group is mixed is a flag of its own and leaves the order of its masks.
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
    return judge_evidence(gather_evidence(features, masks), config)


def judge_evidence(evidence: GroupEvidence, config: ConfidenceConfig) -> GroupJudgement:
    """Judge a group by what `gather_evidence` brought together; see `judge_group`."""
    models = calibration()
    kind = "whitened" if evidence.is_whitened else "plain"
    shared, cues = measure_cues(evidence)
    is_mixed = bool(
        shared
        and config.mixed != "off"
        and sum(bool(found) for found in cues) >= MIXED_IMAGES
        and models[f"group-{kind}"].estimate(shared) < config.mixed_level
    )
    masks = []
    for found in cues:
        judged = _judge_mask(found, models[f"mask-{kind}"], models[f"image-{kind}"], config)
        if is_mixed and found:
            reason = "; ".join(filter(None, (MIXED, judged.reason)))
            judged = replace(judged, reason=reason, is_withdrawn=judged.is_withdrawn or config.mixed == "empty")
        masks.append(judged)
    return GroupJudgement(is_mixed=is_mixed, cues=shared, masks=tuple(masks))


def measure_cues(evidence: GroupEvidence) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Measure all cues: those of the group, and those of each mask; an empty or full mask has none.

    Parameters
    ----------
    evidence : GroupEvidence

    Returns
    -------
    group : dict of str to float
        Empty where fewer than two masks can be compared.
    masks : list of dict of str to float
    """
    cues: list[dict[str, float]] = []
    for mask_HW, picture_HW3 in zip(evidence.masks_NHW, evidence.pictures_NHW3, strict=True):
        is_usable = mask_HW.any() and not mask_HW.all()
        cues.append(mask_cues(mask_HW, picture_HW3) if is_usable else {})
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
    predicted_N = np.mean([predictability(stream, AGREEMENT_RIDGE) for stream in (first, second)], axis=0)
    sides = (measure_sides(first), measure_sides(second))
    resemblance = image_cues(sides)
    cosine_N = max_group_cosine(evidence.prototype_NF[usable])
    for at, index in enumerate(usable):
        # what the others say of each other: an image's own mask is judged by its own cues
        others = (predicted_N.sum() - predicted_N[at]) / (usable.size - 1)
        cues[index] |= {"agreement": float(others), "max_group_cosine": float(cosine_N[at]), **resemblance[at]}
    return group_cues(first, sides), cues


def _judge_mask(
    cues: dict[str, float], mask_model: CueModel, image_model: CueModel, config: ConfidenceConfig
) -> MaskJudgement:
    if not cues:
        return MaskJudgement(confidence=0.0)
    confidence = mask_model.estimate(cues)
    is_unlike = "knn_distance" in cues and config.absent != "off" and image_model.estimate(cues) < config.absent_level
    if is_unlike:  # below the level of low ones; the order of those capped stays
        confidence = min(confidence, config.low * (UNLIKE_CAP + (1.0 - UNLIKE_CAP) * confidence))
    words = [UNLIKE] if is_unlike else []
    if confidence < config.low:
        against = sorted((value, name) for name, value in mask_model.contributions(cues).items() if value < 0.0)
        words += [_WORDS[name] for _, name in against[:_NAMED]]  # those that lower it most
    return MaskJudgement(
        confidence=confidence,
        reason="; ".join(words),
        is_unlike=is_unlike,
        is_withdrawn=is_unlike and config.absent == "empty",
        cues=cues,
    )
