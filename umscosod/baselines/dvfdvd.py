"""Peer ``dvfdvd``: patches clustered over the whole group, clusters chosen by the images' votes (arXiv 2112.05814).

Suffixes: ``N`` images, ``P`` patches, ``D`` width, ``K`` clusters, ``h w`` the token grid.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from umscosod.baselines.kmeans import Labels, fit_clusters, nearest
from umscosod.baselines.maps import firm
from umscosod.config import DvfdvdConfig
from umscosod.features.vectors import unit_patches
from umscosod.seed import numpy_generator
from umscosod.types import FloatArray, GroupFeatures

_ROUNDING = 1e-9


def dvfdvd_maps(features: GroupFeatures, config: DvfdvdConfig, seed: int) -> FloatArray:
    """Segment what clusters that the group's attention agrees on cover.

    Parameters
    ----------
    features : GroupFeatures
        Patches of the first stream; votes by `features.saliency_NP`.
    config : DvfdvdConfig
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
    # whitened tokens are embedded's: see what the settings say of auto
    is_vit = not features.first.is_centred
    facet = config.facet if config.facet != "auto" else "keys" if is_vit else "tokens"
    if config.vote == "auto":
        config = replace(config, vote="fixed" if is_vit else "mean")
    patches_NPD = unit_patches(features.first, facet, config.centre)
    labels_NP = cluster_patches(patches_NPD, config, numpy_generator(seed, "dvfdvd", features.group.name))
    shares_K = count_votes(labels_NP, features.saliency_NP, config)
    evidence_NP = shares_K[labels_NP]
    mask_NP = evidence_NP >= config.votes - _ROUNDING
    return firm(mask_NP, evidence_NP).reshape(len(labels_NP), *features.first.grid_hw)


def cluster_patches(patches_NPD: FloatArray, config: DvfdvdConfig, generator: np.random.Generator) -> Labels:
    """Cluster all patches of a group, with as many clusters as the elbow asks for.

    Parameters
    ----------
    patches_NPD : ndarray, float, (N, P, D)
    config : DvfdvdConfig
    generator : Generator

    Returns
    -------
    ndarray, int64, (N, P)
        Of the first number of clusters that lowers the mean squared distance to no less than `config.elbow` of what
        one cluster less gave; of the largest number tried if none does.
    """
    count, patches = patches_NPD.shape[:2]
    picked = np.sort(generator.permutation(patches)[: config.sample_patches])
    sample_SD = patches_NPD[:, picked].reshape(count * len(picked), -1)
    labels_NP, before = np.zeros((count, patches), np.int64), np.inf
    for clusters in range(1, config.max_clusters + 1):
        found = fit_clusters(sample_SD, clusters, rounds=config.rounds, restarts=config.restarts, generator=generator)
        assigned = [nearest(patches_PD, found.centres_KD) for patches_PD in patches_NPD]
        labels_NP = np.stack([labels_P for labels_P, _ in assigned])
        objective = float(np.mean([squared_P.mean() for _, squared_P in assigned]))
        if objective > config.elbow * before or objective <= _ROUNDING:
            break
        before = objective
    return labels_NP


def count_votes(labels_NP: Labels, saliency_NP: FloatArray, config: DvfdvdConfig) -> FloatArray:
    """Share of the images that find a cluster salient: float64, (K,), in [0, 1].

    An image votes for a cluster whose mean attention in it exceeds the level; a cluster it does not hold gets no vote.
    One cluster alone parts nothing and gets none.

    Examples
    --------
    Cluster 1 stands out in both images, cluster 2 in the second only:

    >>> labels = np.array([[0, 0, 1, 2], [0, 0, 1, 2]])
    >>> count_votes(labels, np.array([[0.0, 0.0, 1.0, 0.2], [0.0, 0.0, 1.0, 0.9]]), DvfdvdConfig(vote="mean")).tolist()
    [0.0, 1.0, 0.5]
    """
    votes_K = np.zeros(int(labels_NP.max()) + 1)
    if len(np.unique(labels_NP)) == 1:
        return votes_K
    for labels_P, saliency_P in zip(labels_NP, np.asarray(saliency_NP, np.float64), strict=True):
        counts_K = np.bincount(labels_P, minlength=len(votes_K))
        means_K = np.bincount(labels_P, saliency_P, len(votes_K)) / np.maximum(counts_K, 1)
        level = config.vote_level if config.vote == "fixed" else float(saliency_P.mean()) * (1.0 + _ROUNDING)
        votes_K += (counts_K > 0) & (means_K > level)
    return np.asarray(votes_K / len(labels_NP))
