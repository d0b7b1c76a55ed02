"""One pseudo-label per image: the frequent category that agrees best with the attention (CM-SPLG, spec A1).

Suffixes: ``N`` images of the group, ``M`` masks, ``h w`` the token grid, ``H W`` the size of an image's masks.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from umscosod.config import PseudoConfig
from umscosod.data.masks import encode_rle
from umscosod.data.resize import resize_centred
from umscosod.pseudo.attention import attention_threshold, largest_component
from umscosod.pseudo.categories import TIE_DIGITS, Category, cluster_embeddings, embed_mask, order_categories
from umscosod.pseudo.overlap import (
    RunLengths,
    compute_overlap,
    compute_soft_overlap,
    merge_rles,
    pool_to_grid,
)
from umscosod.pseudo.proposals import MaskProposal, MaskProposer
from umscosod.types import BoolArray, FloatArray, GroupFeatures, PseudoLabel

_log = logging.getLogger(__name__)

FALLBACK_SOURCE = "attention"
NO_MASK_SOURCE = "none"
"""Of an empty label: no usable mask, and ``select=masks`` forbids the attention."""


@dataclass(slots=True, eq=False)
class _Candidate:
    """A proposal kept as run lengths, so that a large group of large photos fits in memory."""

    rle: RunLengths
    score: float
    level: int
    source: str
    embedding_D: FloatArray | None = None  # None: too deep a level, or over the group's limit
    overlap: float = 0.0
    category: int | None = None


class _Attention:
    """The attention of one image, comparable to masks of any size."""

    def __init__(self, saliency_hw: FloatArray, config: PseudoConfig) -> None:
        self.saliency_hw = saliency_hw
        self.is_soft = config.sa_binarize == "soft"
        # soft still needs a set for images without masks: the default rule's
        mode = "mass" if config.sa_binarize == "soft" else config.sa_binarize
        self.threshold = attention_threshold(saliency_hw, mode, config.sa_mass)
        self._sets: dict[tuple[int, ...], BoolArray] = {}

    def as_set(self, size_hw: tuple[int, ...]) -> BoolArray:
        """Set of pixels at or above the threshold found on the grid, at the size asked for."""
        if size_hw not in self._sets:
            self._sets[size_hw] = resize_centred(self.saliency_hw, (size_hw[0], size_hw[1])) >= self.threshold
        return self._sets[size_hw]

    def overlap(self, mask_HW: BoolArray) -> float:
        """Overlap O of eq. 1, in [0, 1]."""
        if self.is_soft:
            grid_hw = (self.saliency_hw.shape[0], self.saliency_hw.shape[1])
            return compute_soft_overlap(pool_to_grid(mask_HW, grid_hw), self.saliency_hw)
        return compute_overlap(mask_HW, self.as_set(mask_HW.shape))


def make_pseudo_labels(features: GroupFeatures, proposer: MaskProposer, config: PseudoConfig) -> list[PseudoLabel]:
    """Make the pseudo-label of every image of a group.

    Masks of all images are clustered into categories; an image's k most frequent categories compete, and the union
    of its masks of the one with the largest overlap with the attention (eq. 1) is its label. An image without a
    usable mask gets the largest component of its binarised attention (source ``attention``).

    Parameters
    ----------
    features : GroupFeatures
        The attention is `features.saliency_NP` as it stands.
    proposer : MaskProposer
    config : PseudoConfig

    Returns
    -------
    list of PseudoLabel
        In the order of the images. ``map_hw`` is the mask as float32, on the grid (hac) or at the masks' own size
        (coco-json). ``confidence`` is ``sqrt(f * O)``, the geometric mean of the two cues that chose the label: how
        many images share the category and how well it agrees with the attention; times ``weak_weight`` for weak
        labels. A fallback label has no co-occurrence to speak for it: ``weak_weight * O``. ``details`` holds all
        candidates as run lengths, with which top-k can be swept without a second pass.

        With ``select=masks`` the attention is not looked at: every overlap is 0, the most frequent category wins (of
        equals the one with more masks in the group), the confidence is its frequency, no label is weak, and an image
        without a usable mask has an empty label (source ``none``).

    References
    ----------
    UMS-CoSOD, Sec. 2.1, eq. 1; gaps settled by spec A1.
    """
    features = _centred(features, config)
    count, grid_hw = len(features.group.images), features.first.grid_hw
    # an attention of zeros overlaps with nothing, so that frequency and the number of masks are left to decide
    saliency_NP = np.zeros_like(features.saliency_NP) if config.select == "masks" else features.saliency_NP
    attentions = [_Attention(saliency_P.reshape(grid_hw), config) for saliency_P in saliency_NP]
    candidates = [_gather(features, i, proposer, attentions[i], config) for i in range(count)]
    _limit_masks(candidates, config.max_group_masks, features.group.name)
    clustered = [(i, one) for i, ones in enumerate(candidates) for one in ones if one.embedding_D is not None]
    if clustered:
        embeddings_MD = np.stack([one.embedding_D for _, one in clustered if one.embedding_D is not None])
        numbers_M = cluster_embeddings(embeddings_MD, config.category_distance)
        for (_, one), number in zip(clustered, numbers_M.tolist(), strict=True):
            one.category = number
    overlaps = [_union_overlaps(ones, attention) for ones, attention in zip(candidates, attentions, strict=True)]
    order = order_categories(_count_categories(candidates, overlaps))
    labels = [
        _label(features.group.images[i].id, candidates[i], overlaps[i], order, attentions[i], config)
        for i in range(count)
    ]
    fallbacks = sum(label.source in (FALLBACK_SOURCE, NO_MASK_SOURCE) for label in labels)
    if fallbacks:
        instead = "are empty" if config.select == "masks" else "come from the attention alone"
        _log.info(
            "group %s: %d of %d images have no mask; their labels %s", features.group.name, fallbacks, count, instead
        )
    return labels


def choose_category(overlaps: Mapping[int, float], order: Sequence[Category], top_k: int) -> Category | None:
    """Choose among an image's first k categories the one with the largest overlap.

    Parameters
    ----------
    overlaps : mapping of int to float
        Category id -> O (eq. 1), for the categories the image holds.
    order : sequence of Category
        All categories of the group, most frequent first.
    top_k : int
        At least 1. With 1 frequency alone decides, with as many as there are categories the attention alone.

    Returns
    -------
    Category or None
        Ties go to the more frequent one, that is the first in the order. None for an image without categories.

    Examples
    --------
    >>> order = [Category(id=7, frequency=1.0, mean_overlap=0.2, masks=3),
    ...          Category(id=2, frequency=0.5, mean_overlap=0.9, masks=1)]
    >>> [choose_category({7: 0.2, 2: 0.9}, order, k).id for k in (1, 2)]
    [7, 2]
    """
    competing = [category for category in order if category.id in overlaps][:top_k]
    return max(competing, key=lambda one: round(overlaps[one.id], TIE_DIGITS), default=None)


def _centred(features: GroupFeatures, config: PseudoConfig) -> GroupFeatures:
    """Take the group's mean patch out of tokens and keys, where the configuration asks and nobody has."""
    first = features.first
    if config.centre == "none" or first.is_centred:
        return features
    tokens_NPD, keys_NPK = (stack.astype(np.float32) for stack in (first.tokens_NPD, first.keys_NPK))
    first = replace(
        first,
        tokens_NPD=tokens_NPD - tokens_NPD.mean((0, 1)),
        keys_NPK=keys_NPK - keys_NPK.mean((0, 1)),
        is_centred=True,
    )
    return replace(features, first=first)


def _gather(
    features: GroupFeatures, index: int, proposer: MaskProposer, attention: _Attention, config: PseudoConfig
) -> list[_Candidate]:
    """Propose masks for one image; embed those of the levels in use."""
    tokens_PD = features.first.tokens_NPD[index]
    found = []
    for proposal in proposer.propose(features, index):
        one = _candidate(proposal, attention)
        if proposal.level <= config.max_level:
            one.embedding_D = embed_mask(tokens_PD, pool_to_grid(proposal.mask_hw, features.first.grid_hw))
        found.append(one)
    return found


def _candidate(proposal: MaskProposal, attention: _Attention) -> _Candidate:
    return _Candidate(
        rle=encode_rle(proposal.mask_hw),
        score=proposal.score,
        level=proposal.level,
        source=proposal.source,
        overlap=attention.overlap(proposal.mask_hw),
    )


def _limit_masks(candidates: Sequence[list[_Candidate]], limit: int, group: str) -> None:
    """Leave masks out of a group with too many: an equal share for each image, best overlap first."""
    total = sum(one.embedding_D is not None for ones in candidates for one in ones)
    if total <= limit:
        return
    share = max(1, limit // len(candidates))
    message = "group %s: %d masks exceed pseudo.max_group_masks=%d; the best %d per image are used"
    _log.warning(message, group, total, limit, share)
    for ones in candidates:
        used = sorted((one for one in ones if one.embedding_D is not None), key=lambda one: -one.overlap)
        for one in used[share:]:
            one.embedding_D = None


def _union_overlaps(candidates: Sequence[_Candidate], attention: _Attention) -> dict[int, float]:
    """Overlap O of each category an image holds, on the union of its masks."""
    rles: defaultdict[int, list[RunLengths]] = defaultdict(list)
    for one in candidates:
        if one.category is not None:
            rles[one.category].append(one.rle)
    return {category: attention.overlap(merge_rles(members)) for category, members in rles.items()}


def _count_categories(
    candidates: Sequence[Sequence[_Candidate]], overlaps: Sequence[Mapping[int, float]]
) -> list[Category]:
    """Document frequency, mean overlap and size of every category of the group."""
    masks: defaultdict[int, int] = defaultdict(int)
    for ones in candidates:
        for one in ones:
            if one.category is not None:
                masks[one.category] += 1
    counted = []
    for number in sorted(masks):
        held = [by_category[number] for by_category in overlaps if number in by_category]
        frequency, mean = len(held) / len(overlaps), sum(held) / len(held)
        counted.append(Category(id=number, frequency=frequency, mean_overlap=mean, masks=masks[number]))
    return counted


def _label(
    image_id: str,
    candidates: Sequence[_Candidate],
    overlaps: Mapping[int, float],
    order: Sequence[Category],
    attention: _Attention,
    config: PseudoConfig,
) -> PseudoLabel:
    """Decide one image."""
    chosen = choose_category(overlaps, order, config.top_k)
    is_blind = config.select == "masks"
    details: dict[str, Any] = {"top_k": config.top_k}
    if chosen is None:
        mask_HW = largest_component(attention.as_set(attention.saliency_hw.shape))
        source, overlap, frequency = NO_MASK_SOURCE if is_blind else FALLBACK_SOURCE, attention.overlap(mask_HW), 0.0
        confidence = config.weak_weight * overlap
        details |= {"category": None, "rank": None}
    else:
        members = [one for one in candidates if one.category == chosen.id]
        mask_HW = merge_rles([one.rle for one in members])
        source, overlap, frequency = members[0].source, overlaps[chosen.id], chosen.frequency
        confidence = frequency if is_blind else float(np.sqrt(frequency * overlap))
        details |= {"category": chosen.id, "rank": [one.id for one in order].index(chosen.id)}
    is_weak = overlap < config.weak_overlap and not is_blind
    if is_weak and chosen is not None:
        confidence *= config.weak_weight
    details |= {
        "frequency": frequency,
        "overlap": overlap,
        "categories": [_category_row(one, overlaps[one.id]) for one in order if one.id in overlaps],
        "candidates": [_candidate_row(one) for one in candidates],
    }
    return PseudoLabel(
        image_id=image_id,
        map_hw=mask_HW.astype(np.float32),
        mask_hw=mask_HW,
        confidence=min(confidence, 1.0),
        source=source,
        is_weak=is_weak,
        details=details,
    )


def _category_row(category: Category, overlap: float) -> dict[str, Any]:
    return {
        "id": category.id,
        "frequency": category.frequency,
        "mean_overlap": category.mean_overlap,
        "masks": category.masks,
        "overlap": overlap,
    }


def _candidate_row(one: _Candidate) -> dict[str, Any]:
    return {
        "rle": one.rle,
        "score": one.score,
        "level": one.level,
        "source": one.source,
        "overlap": one.overlap,
        "category": one.category,
    }
