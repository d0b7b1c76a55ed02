"""Baseline ``dvfdvd``: patches clustered over the group, clusters chosen by vote (arXiv 2112.05814).

Its k-means has seeded starts: equal input and seed give equal labels.

Suffixes: ``N`` images, ``P`` patches, ``R`` rows, ``D`` width, ``K`` clusters, ``h w`` the token grid.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from umscosod.baselines.maps import average_with_evidence
from umscosod.device import numpy_generator
from umscosod.features.vectors import unit_patches
from umscosod.types import FloatArray, GroupFeatures

Labels = npt.NDArray[np.int64]

# As published but where it is said.
ELBOW = 0.975  # no more clusters once the mean squared distance stays above this share
MAX_CLUSTERS = 14
SAMPLE_PATCHES = 96  # an image lends to k-means; all are assigned (DVFDVD: every 100th of a finer grid, about 30)
ROUNDS = 300  # most rounds of one k-means; it ends when nothing moves
RESTARTS = 10  # k-means from so many starts; the best is kept
VOTES = 0.75  # share of the group's images that must vote for a cluster
VOTE_LEVEL = 0.065  # mean attention from which an image votes for a cluster, for DINO ViT-S/8


def fit_clusters(
    rows_RD: FloatArray, count: int, *, rounds: int, restarts: int, generator: np.random.Generator
) -> tuple[FloatArray, float]:
    """Cluster rows; of several starts the one with the smallest objective, the first of equals.

    Parameters
    ----------
    rows_RD : ndarray, float, (R, D)
        At least one.
    count : int
    rounds : int
        Most rounds of a start; it ends when no label changes.
    restarts : int
    generator : Generator

    Returns
    -------
    centres_KD : ndarray, float64, (K, D)
        K may be less than asked for, where there are fewer different rows.
    objective : float
        Mean squared distance of a row to its centre.

    References
    ----------
    Lloyd 1982 (DOI 10.1109/TIT.1982.1056489); starts by Arthur and Vassilvitskii, "k-means++", SODA 2007.

    Examples
    --------
    >>> rows = np.array([[0.0], [2.0], [10.0], [12.0]])
    >>> centres_KD, objective = fit_clusters(rows, 2, rounds=9, restarts=3, generator=np.random.default_rng(0))
    >>> sorted(centres_KD.ravel().tolist()), objective
    ([1.0, 11.0], 1.0)
    """
    rows = np.asarray(rows_RD, np.float64)
    found = [_fit_once(rows, _start(rows, count, generator), rounds) for _ in range(restarts if count > 1 else 1)]
    return min(found, key=lambda one: one[1])


def nearest(rows_RD: FloatArray, centres_KD: FloatArray) -> tuple[Labels, FloatArray]:
    """Label of each row, the lower one of equals, and its squared distance: int64 and float64, (R,)."""
    rows = np.asarray(rows_RD, np.float64)
    squared_RK = (rows**2).sum(1)[:, None] + (centres_KD**2).sum(1)[None] - 2.0 * rows @ centres_KD.T
    labels_R: Labels = squared_RK.argmin(1)
    return labels_R, np.maximum(squared_RK[np.arange(len(rows)), labels_R], 0.0)


def _start(rows: FloatArray, count: int, generator: np.random.Generator) -> FloatArray:
    """Draw rows as centres, each with a chance that grows with the squared distance to those drawn before."""
    centres = [rows[int(generator.integers(len(rows)))]]
    squared_R = ((rows - centres[0]) ** 2).sum(1)
    while len(centres) < count and squared_R.max() > 0:
        centres.append(rows[int(generator.choice(len(rows), p=squared_R / squared_R.sum()))])
        squared_R = np.minimum(squared_R, ((rows - centres[-1]) ** 2).sum(1))
    return np.stack(centres)


def _fit_once(rows: FloatArray, centres_KD: FloatArray, rounds: int) -> tuple[FloatArray, float]:
    labels_R, squared_R = nearest(rows, centres_KD)
    for _ in range(rounds):
        counts_K = np.bincount(labels_R, minlength=len(centres_KD))
        members_KR = (labels_R == np.arange(len(centres_KD))[:, None]).astype(np.float64)
        means_KD = (members_KR @ rows) / np.maximum(counts_K, 1)[:, None]
        # a centre that lost all its rows stays where it was
        centres_KD = np.where(counts_K[:, None] > 0, means_KD, centres_KD)
        before_R = labels_R
        labels_R, squared_R = nearest(rows, centres_KD)
        if np.array_equal(before_R, labels_R):
            break
    return centres_KD, float(squared_R.mean())


_ROUNDING = 1e-9


def dvfdvd_maps(features: GroupFeatures, seed: int) -> FloatArray:
    """Segment what clusters that the group's attention agrees on cover.

    Parameters
    ----------
    features : GroupFeatures
        Of the first stream a ViT's keys, as published; of ``embedded`` tokens, as its keys hold for one image. Votes by
        `features.saliency_NP`: above `VOTE_LEVEL`, or for ``embedded``, whose map lies above that level nearly
        everywhere, above the image's own mean.
    seed : int
        Of the run; the group's name is mixed in.

    Returns
    -------
    ndarray, float32, (N, h, w), in [0, 1]
        The mean of the mask and of the share of images that voted for a patch's cluster. Zeros where nothing is
        voted for, or all patches are alike.

    References
    ----------
    Amir, Gandelsman, Bagon and Dekel, "Deep ViT Features as Dense Visual Descriptors", ECCVW 2022 (arXiv 2112.05814),
    Sec. 4.1. Their GrabCut gives way to stage 3, which all methods share.
    """
    is_vit = features.first.has_attention
    patches_NPD = unit_patches(features.first, "keys" if is_vit else "tokens", "none")
    labels_NP = cluster_patches(patches_NPD, numpy_generator(seed, "dvfdvd", features.group.name))
    shares_K = count_votes(labels_NP, features.saliency_NP, VOTE_LEVEL if is_vit else None)
    evidence_NP = shares_K[labels_NP]
    mask_NP = evidence_NP >= VOTES - _ROUNDING
    return average_with_evidence(mask_NP, evidence_NP).reshape(len(labels_NP), *features.first.grid_hw)


def cluster_patches(patches_NPD: FloatArray, generator: np.random.Generator) -> Labels:
    """Cluster all patches of a group, with as many clusters as the elbow asks for.

    Parameters
    ----------
    patches_NPD : ndarray, float, (N, P, D)
    generator : Generator

    Returns
    -------
    ndarray, int64, (N, P)
        Of the first number of clusters that lowers the mean squared distance to no less than `ELBOW` of what
        one cluster less gave; of the largest number tried if none does.
    """
    count, patches = patches_NPD.shape[:2]
    picked = np.sort(generator.permutation(patches)[:SAMPLE_PATCHES])
    sample_SD = patches_NPD[:, picked].reshape(count * len(picked), -1)
    labels_NP, before = np.zeros((count, patches), np.int64), np.inf
    for clusters in range(1, MAX_CLUSTERS + 1):
        centres_KD, _ = fit_clusters(sample_SD, clusters, rounds=ROUNDS, restarts=RESTARTS, generator=generator)
        assigned = [nearest(patches_PD, centres_KD) for patches_PD in patches_NPD]
        labels_NP = np.stack([labels_P for labels_P, _ in assigned])
        objective = float(np.mean([squared_P.mean() for _, squared_P in assigned]))
        if objective > ELBOW * before or objective <= _ROUNDING:
            break
        before = objective
    return labels_NP


def count_votes(labels_NP: Labels, saliency_NP: FloatArray, level: float | None) -> FloatArray:
    """Share of the images that find a cluster salient: float64, (K,), in [0, 1].

    An image votes for a cluster whose mean attention in it exceeds `level`, or without a level the image's own mean. A
    cluster it does not hold gets no vote. One cluster alone parts nothing and gets none.

    Examples
    --------
    Cluster 1 stands out in both images, cluster 2 in the second only:

    >>> labels = np.array([[0, 0, 1, 2], [0, 0, 1, 2]])
    >>> count_votes(labels, np.array([[0.0, 0.0, 1.0, 0.2], [0.0, 0.0, 1.0, 0.9]]), None).tolist()
    [0.0, 1.0, 0.5]
    """
    votes_K = np.zeros(int(labels_NP.max()) + 1)
    if len(np.unique(labels_NP)) == 1:
        return votes_K
    for labels_P, saliency_P in zip(labels_NP, np.asarray(saliency_NP, np.float64), strict=True):
        counts_K = np.bincount(labels_P, minlength=len(votes_K))
        means_K = np.bincount(labels_P, saliency_P, len(votes_K)) / np.maximum(counts_K, 1)
        least = level if level is not None else float(saliency_P.mean()) * (1.0 + _ROUNDING)
        votes_K += (counts_K > 0) & (means_K > least)
    return np.asarray(votes_K / len(labels_NP))
