"""Pseudo-labels cleaned: by their group, and over the collection.

A pseudo-label is a union of clusters: it takes whole regions or none, and what surrounds an object often comes with
it. Two cues that know nothing of the clusters disagree there: a patch unlike its picture's border is rarely
background, and a patch nearer to what all labels of the group cover than to what they leave out belongs to the
object that recurs. Their product keeps what both vouch for.

Suffixes: ``N`` images of the group, ``P`` patches, ``B`` patches on the border, ``D`` token width, ``h w`` the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from umscosod.config import PipelineConfig, PseudoConfig
from umscosod.data.resize import mask_share
from umscosod.features.group import minmax
from umscosod.features.vectors import describe_patches
from umscosod.pseudo.probe import LinearProbe, ProbeSample, apply_probe, draw_sample, fit_probe
from umscosod.pseudo.store import HUMAN_SOURCE
from umscosod.types import FloatArray, GroupFeatures, PseudoLabel

CLEAN_GAIN = 4.0  # steepness of a cleaned map about 0.5: how much of it DenseCRF takes as settled
CLEAN_ROUNDS = 2  # prototypes of what the labels cover, then of what the maps before cover
PROBE_PATCHES = 15_000  # patches of the collection the probe is fitted on, drawn at random


def clean_labels(
    features: GroupFeatures, labels: Mapping[str, PseudoLabel], config: PseudoConfig
) -> dict[str, PseudoLabel]:
    """Replace the pseudo-labels of a group by soft maps that the group agrees on.

    Parameters
    ----------
    features : GroupFeatures
    labels : mapping of str to PseudoLabel
        By image id; images without one stay without, but get no say either.
    config : PseudoConfig
        Reads ``clean``.

    Returns
    -------
    dict of str to PseudoLabel
        With ``is_map`` set, on the token grid; the mask is where the map reaches 0.5. A person's label stays as it
        is, and so does every label where ``clean`` is none, where ``auto`` finds tokens whose attention has been
        fitted to the group already (``embedded``), or where the labels cover all or nothing of the group.

    References
    ----------
    Border contrast: Wei, Wen, Zhu and Sun, "Geodesic Saliency Using Background Priors", ECCV 2012
    (DOI 10.1007/978-3-642-33712-3_3), here on tokens. Prototypes: masked average pooling as in eq. 8.
    """
    own = {image.id: labels[image.id] for image in features.group.images if image.id in labels}
    if config.clean == "none" or (config.clean == "auto" and not features.first.has_attention) or not own:
        return own
    facets, grid_hw = describe_patches(features, "group"), features.first.grid_hw
    chosen = [i for i, image in enumerate(features.group.images) if image.id in own]
    kept = [own[features.group.images[i].id] for i in chosen]
    label_NP = cover_NP = np.stack([mask_share(label.mask_hw, grid_hw).ravel() for label in kept])
    is_human_N1 = np.array([[label.source == HUMAN_SOURCE] for label in kept])
    if not 0.0 < cover_NP.mean() < 1.0:
        return own
    contrast_NP = token_contrast(facets[0], grid_hw)
    maps_NP = np.zeros_like(contrast_NP)
    for _ in range(CLEAN_ROUNDS):
        nearness_NP = minmax(np.sum([prototype_nearness(facet, facet[chosen], cover_NP) for facet in facets], axis=0))
        product_NP = minmax(contrast_NP * nearness_NP)
        maps_NP = np.clip(0.5 + CLEAN_GAIN * (product_NP - 0.5), 0.0, 1.0)
        cover_NP = np.where(is_human_N1, label_NP, maps_NP[chosen])
    cleaned = {}
    for i, label in zip(chosen, kept, strict=True):
        map_hw = maps_NP[i].reshape(grid_hw).astype(np.float32)
        if label.source != HUMAN_SOURCE:
            label = replace(label, map_hw=map_hw, mask_hw=map_hw >= 0.5, is_map=True)
        cleaned[label.image_id] = label
    return cleaned


def token_contrast(tokens_NPD: FloatArray, grid_hw: tuple[int, int]) -> FloatArray:
    """How unlike its own picture's border each patch is: 1 - mean cosine, min-maxed per image.

    Parameters
    ----------
    tokens_NPD : ndarray, float, (N, P, D)
        Of unit length.
    grid_hw : (int, int)

    Returns
    -------
    ndarray, float64, (N, P), in [0, 1]
        All zero for an image whose patches are all alike.

    Examples
    --------
    >>> tokens = np.array([[[1.0, 0.0]] * 4 + [[0.0, 1.0]] + [[1.0, 0.0]] * 4])  # 3 x 3, the middle differs
    >>> token_contrast(tokens, (3, 3)).reshape(3, 3).tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    is_border_hw = np.ones(grid_hw, bool)
    is_border_hw[1:-1, 1:-1] = False
    border_NBD = tokens_NPD[:, is_border_hw.ravel()]
    # the mean of cosines is the cosine sum with the mean: P x B is never made
    return minmax(1.0 - np.einsum("npd,nd->np", tokens_NPD, border_NBD.mean(1), dtype=np.float64))


def prototype_nearness(tokens_NPD: FloatArray, labelled_NPD: FloatArray, cover_NP: FloatArray) -> FloatArray:
    """How much nearer each patch is to what the labels cover than to what they leave out, min-maxed per image.

    Parameters
    ----------
    tokens_NPD : ndarray, float, (N, P, D)
        Of unit length.
    labelled_NPD : ndarray, float, (M, P, D)
        Those of the images that have a label.
    cover_NP : ndarray, float, (M, P), in [0, 1]
        Share of each patch that the label covers.

    Returns
    -------
    ndarray, float64, (N, P), in [0, 1]
        Difference of the cosines with the two prototypes.
    """
    weights = cover_NP.astype(np.float64)
    front_D = _unit(np.einsum("mpd,mp->d", labelled_NPD, weights))
    back_D = _unit(np.einsum("mpd,mp->d", labelled_NPD, 1.0 - weights))
    return minmax(tokens_NPD.astype(np.float64) @ (front_D - back_D))


def _unit(vector_D: FloatArray) -> FloatArray:
    length = float(np.linalg.norm(vector_D))
    return vector_D / length if length > 0 else vector_D


def clean_collection(
    collection: Sequence[GroupFeatures], labels: Mapping[str, PseudoLabel], config: PipelineConfig
) -> tuple[dict[str, PseudoLabel], LinearProbe | None]:
    """Clean the pseudo-labels of all groups, as ``pseudo.clean`` and ``pseudo.probe`` say.

    Parameters
    ----------
    collection : sequence of GroupFeatures
        Read twice, one group at a time, so a sequence that loads on access keeps one group in memory.
    labels : mapping of str to PseudoLabel
        By image id; images without one stay without.
    config : PipelineConfig
        Reads ``pseudo`` and ``seed``.

    Returns
    -------
    labels : dict of str to PseudoLabel
        By image id; see `umscosod.pseudo.cleaning.clean_labels` and `umscosod.pseudo.probe.apply_probe`.
    probe : LinearProbe or None
        Whose maps they are; None where ``pseudo.probe`` is none or there was nothing to fit.

    Notes
    -----
    `PROBE_PATCHES` are shared out by labelled images, rounded, at least one to a group. One order of groups and
    images gives equal bits; another sums in another order and, in a group of which not all patches are drawn, draws
    others.
    """
    cleaned: dict[str, PseudoLabel] = {}
    samples: list[ProbeSample] = []
    share = PROBE_PATCHES / max(1, len(labels))  # of an image
    for features in collection:
        own = clean_labels(features, labels, config.pseudo)
        cleaned |= own
        if config.pseudo.probe == "linear" and own:
            count = max(1, round(share * len(own)))
            sample = draw_sample(features, own, count, config.seed)
            samples += [] if sample is None else [sample]
    probe = fit_probe(samples)
    if probe is None:
        return cleaned, None
    probed: dict[str, PseudoLabel] = {}
    for features in collection:
        probed |= apply_probe(features, cleaned, probe)
    return probed, probe
