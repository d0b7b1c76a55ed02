"""CM-SPLG: categories of masks, their frequency in the group, their overlap with the attention (eq. 1).

Suffixes: ``N`` images of the group, ``M`` masks, ``P`` patches, ``D`` token width, ``h w`` the token grid, ``H W`` the
size of an image's masks.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.cluster.hierarchy import fcluster, linkage

from umscosod.config import PseudoConfig
from umscosod.data.masks import encode_rle
from umscosod.data.resize import mask_share, resize_centred
from umscosod.device import map_on_cores
from umscosod.pseudo.proposals import MaskProposer, RunLengths, compute_overlap, merge_rles
from umscosod.types import BoolArray, FloatArray, GroupFeatures, PseudoLabel

MAX_LEVEL = 1  # deepest level of the masks used: 0 whole, 1 part, 2 subpart
MAX_GROUP_MASKS = 6000  # of a group, that are clustered at most: memory grows with the square
WEAK_WEIGHT = 0.5  # of a weak pseudo-label in the loss
SA_MASS = 0.6  # share of the attention that its set holds, as in DINO's visualisation (spec A1.2)


def attention_threshold(map_P: FloatArray) -> float:
    """Compute the value from which a patch belongs to the attention's set.

    The fewest of the highest patches that hold the share `SA_MASS` of the sum, as DINO's visualisation takes per head.

    Parameters
    ----------
    map_P : ndarray, float, any shape, in [0, 1]

    Returns
    -------
    float
        The set is ``map >= threshold``, so tied patches go in together. Infinity for a map of zeros: an empty set.

    Examples
    --------
    The two highest hold 7 of 10:

    >>> attention_threshold(np.array([1.0, 2.0, 3.0, 4.0]))
    3.0
    """
    values_P = np.sort(np.asarray(map_P, dtype=np.float64).ravel())[::-1]
    positive = values_P[values_P > 0]
    if positive.size == 0:
        return float("inf")
    summed = np.cumsum(positive)
    # a share met but for rounding counts as met
    index = int(np.searchsorted(summed, SA_MASS * summed[-1] * (1 - 1e-12)))
    return float(positive[min(index, positive.size - 1)])


def largest_component(mask_hw: BoolArray) -> BoolArray:
    """Keep the largest 8-connected component; of equals the one met first in row order. Empty stays empty.

    Examples
    --------
    >>> largest_component(np.array([[True, False, True], [False, False, True]])).astype(int).tolist()
    [[0, 0, 1], [0, 0, 1]]
    """
    labels_hw, count = ndimage.label(mask_hw, structure=np.ones((3, 3)))
    if count == 0:
        return np.zeros(mask_hw.shape, dtype=bool)
    areas = np.bincount(labels_hw.ravel())[1:]
    return np.asarray(labels_hw == 1 + int(np.argmax(areas)))


# Means and distances are compared after rounding to this many digits, so that values that differ by the order of a
# sum alone tie, and the order of the images does not decide.
TIE_DIGITS = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """A kind of mask that recurs in a group.

    Attributes
    ----------
    id : int
        From 0 in the order of the first mask of each category.
    frequency : float
        Share of the group's images with at least one mask of it, in (0, 1].
    mean_overlap : float
        Mean over these images of the overlap with the attention (eq. 1).
    masks : int
        Masks in the cluster.
    """

    id: int
    frequency: float
    mean_overlap: float
    masks: int


def embed_mask(tokens_PD: FloatArray, weights_hw: FloatArray) -> FloatArray:
    """Describe a mask by the mean token inside it, of unit length.

    Parameters
    ----------
    tokens_PD : ndarray, float, (P, D)
    weights_hw : ndarray, float, (h, w), >= 0
        Share of each grid cell that the mask covers.

    Returns
    -------
    ndarray, float64, (D,)
        Zeros for an empty mask or where the tokens cancel.

    Examples
    --------
    >>> embed_mask(np.array([[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]), np.array([[1.0, 1.0, 0.0]])).tolist()
    [0.6, 0.8]
    """
    weights_P = np.asarray(weights_hw, dtype=np.float64).ravel()
    inside = np.flatnonzero(weights_P)
    summed_D: FloatArray = weights_P[inside] @ np.asarray(tokens_PD[inside], dtype=np.float64)
    norm = float(np.linalg.norm(summed_D))
    return summed_D / norm if norm > 0 else np.zeros_like(summed_D)


def cluster_embeddings(embeddings_MD: FloatArray, max_distance: float) -> npt.NDArray[np.int64]:
    """Group embeddings by average-linkage agglomeration on the cosine distance.

    Clusters merge while the mean distance between their members is at most `max_distance`; needs no number of
    clusters and no seed.

    Parameters
    ----------
    embeddings_MD : ndarray, float64, (M, D)
        Rows of unit length; a zero row is at distance 1 from all others.
    max_distance : float
        In (0, 2].

    Returns
    -------
    ndarray, int64, (M,)
        Category of each mask, numbered by first appearance. Empty for M = 0.

    Examples
    --------
    >>> cluster_embeddings(np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]), 0.3).tolist()
    [0, 1, 0]
    """
    count = len(embeddings_MD)
    if count < 2:
        return np.zeros(count, dtype=np.int64)
    rows, cols = np.triu_indices(count, k=1)
    cosines_MM = embeddings_MD @ embeddings_MD.T
    distances = np.round(np.clip(1.0 - cosines_MM[rows, cols], 0.0, 2.0), TIE_DIGITS)
    del cosines_MM, rows, cols
    flat_M = fcluster(linkage(distances, method="average"), t=max_distance, criterion="distance")
    _, first, inverse = np.unique(flat_M, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return np.asarray(number[inverse])


def order_categories(categories: Sequence[Category]) -> list[Category]:
    """Sort by frequency; ties by higher mean overlap, then more masks, then lower id (spec A1.4).

    Examples
    --------
    >>> often = Category(id=1, frequency=1.0, mean_overlap=0.1, masks=4)
    >>> rare = Category(id=0, frequency=0.5, mean_overlap=0.9, masks=9)
    >>> [category.id for category in order_categories([rare, often])]
    [1, 0]
    """
    return sorted(
        categories, key=lambda one: (-one.frequency, -round(one.mean_overlap, TIE_DIGITS), -one.masks, one.id)
    )


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
    overlap: float
    embedding_D: FloatArray | None = None  # None: too deep a level, or over the group's limit
    category: int | None = None

    def row(self) -> dict[str, Any]:
        """All that the manifest tells."""
        return {name: getattr(self, name) for name in ("rle", "score", "level", "source", "overlap", "category")}


class _Attention:
    """The attention of one image, comparable to masks of any size."""

    def __init__(self, saliency_hw: FloatArray) -> None:
        self.saliency_hw = saliency_hw
        self.threshold = attention_threshold(saliency_hw)
        self._sets: dict[tuple[int, ...], BoolArray] = {}

    def as_set(self, size_hw: tuple[int, ...]) -> BoolArray:
        """Set of pixels at or above the threshold found on the grid, at the size asked for."""
        if size_hw not in self._sets:
            self._sets[size_hw] = resize_centred(self.saliency_hw, (size_hw[0], size_hw[1])) >= self.threshold
        return self._sets[size_hw]

    def overlap(self, mask_HW: BoolArray) -> float:
        """Overlap O of eq. 1, in [0, 1]."""
        return compute_overlap(mask_HW, self.as_set(mask_HW.shape))


def choose_labels(features: GroupFeatures, proposer: MaskProposer, config: PseudoConfig) -> list[PseudoLabel]:
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
        many images share the category and how well it agrees with the attention; times `WEAK_WEIGHT` for weak
        labels. A fallback label has no co-occurrence to speak for it: ``WEAK_WEIGHT * O``. ``details`` holds all
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
    attentions = [_Attention(saliency_P.reshape(grid_hw)) for saliency_P in saliency_NP]
    candidates = [_gather(features, i, proposer, attentions[i]) for i in range(count)]
    _limit_masks(candidates, features.group.name)
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

    def centre(stack_NPD: FloatArray) -> FloatArray:
        centred_NPD = stack_NPD.astype(np.float32)
        centred_NPD -= centred_NPD.mean((0, 1))
        return centred_NPD

    tokens_NPD, keys_NPK = map_on_cores(centre, (first.tokens_NPD, first.keys_NPK))
    return replace(features, first=replace(first, tokens_NPD=tokens_NPD, keys_NPK=keys_NPK, is_centred=True))


def _gather(features: GroupFeatures, index: int, proposer: MaskProposer, attention: _Attention) -> list[_Candidate]:
    """Propose masks for one image; embed those of the levels in use."""
    tokens_PD = features.first.tokens_NPD[index]
    found = []
    for proposal in proposer.propose(features, index):
        mask_hw, level = proposal.mask_hw, proposal.level
        one = _Candidate(encode_rle(mask_hw), proposal.score, level, proposal.source, attention.overlap(mask_hw))
        if level <= MAX_LEVEL:
            one.embedding_D = embed_mask(tokens_PD, mask_share(mask_hw, features.first.grid_hw))
        found.append(one)
    return found


def _limit_masks(candidates: Sequence[list[_Candidate]], group: str) -> None:
    """Leave masks out of a group with too many: an equal share for each image, best overlap first."""
    total = sum(one.embedding_D is not None for ones in candidates for one in ones)
    if total <= MAX_GROUP_MASKS:
        return
    share = max(1, MAX_GROUP_MASKS // len(candidates))
    message = "group %s: of %d masks %d can be clustered; the best %d per image are used"
    _log.warning(message, group, total, MAX_GROUP_MASKS, share)
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
        confidence = WEAK_WEIGHT * overlap
        details |= {"category": None, "rank": None}
    else:
        members = [one for one in candidates if one.category == chosen.id]
        mask_HW = merge_rles([one.rle for one in members])
        source, overlap, frequency = members[0].source, overlaps[chosen.id], chosen.frequency
        confidence = frequency if is_blind else float(np.sqrt(frequency * overlap))
        details |= {"category": chosen.id, "rank": [one.id for one in order].index(chosen.id)}
    is_weak = overlap < config.weak_overlap and not is_blind
    if is_weak and chosen is not None:
        confidence *= WEAK_WEIGHT
    details |= {
        "frequency": frequency,
        "overlap": overlap,
        "categories": [{**asdict(one), "overlap": overlaps[one.id]} for one in order if one.id in overlaps],
        "candidates": [one.row() for one in candidates],
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
