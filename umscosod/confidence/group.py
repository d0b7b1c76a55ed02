"""Cues that only a group gives: what its foregrounds share, and how an image's resembles the others'.

Suffixes: ``N`` images of the group, ``P`` patches, ``D`` token width. Images with an empty or a full mask must be
left out before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from umscosod.confidence.cues import Stream, correlation
from umscosod.features.vectors import add_ridge, fisher_direction
from umscosod.types import FloatArray

RIDGE = 0.3  # of the scatters within images, in mean variances
NEAREST = 3  # foregrounds of other images that an image is compared with
MATCH_PATCHES = 200  # patches of an image, evenly spaced, that are matched to others'
MATCH_IMAGES = 24  # images of a group, evenly spaced, that are matched to one another


@dataclass(frozen=True, kw_only=True, slots=True)
class Scatter:
    """Means of one side of the masks and how tokens scatter about them.

    Attributes
    ----------
    mean_ND : ndarray, float64, (N, D)
        Mean token of each image's side.
    between_DD, within_DD : ndarray, float64, (D, D)
        Covariance of those means; mean covariance of the tokens of one image about its mean.
    """

    mean_ND: FloatArray
    between_DD: FloatArray
    within_DD: FloatArray


def measure_scatter(tokens_NPD: FloatArray, share_NP: FloatArray) -> Scatter:
    """Scatter of the tokens under the masks.

    Examples
    --------
    Two images of two patches each; only the first patch of each counts.

    >>> scatter = measure_scatter(np.array([[[1.0], [9.0]], [[3.0], [7.0]]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    >>> scatter.mean_ND.ravel().tolist(), scatter.between_DD.item(), scatter.within_DD.item()
    ([1.0, 3.0], 2.0, 0.0)
    """
    weight_NP = share_NP / share_NP.sum(axis=1, keepdims=True)
    mean_ND = np.einsum("np,npd->nd", weight_NP, tokens_NPD)
    centred_ND = mean_ND - mean_ND.mean(axis=0)
    within_DD = np.zeros((tokens_NPD.shape[2],) * 2)
    for tokens_PD, weight_P, mean_D in zip(tokens_NPD, weight_NP, mean_ND, strict=True):
        about_PD = tokens_PD - mean_D
        within_DD += (about_PD * weight_P[:, None]).T @ about_PD
    between_DD = centred_ND.T @ centred_ND / max(1, len(mean_ND) - 1)
    return Scatter(mean_ND=mean_ND, between_DD=between_DD, within_DD=within_DD / len(mean_ND))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sides:
    """How a stream's tokens scatter under the masks and outside."""

    inside: Scatter
    outside: Scatter


def measure_sides(stream: Stream) -> Sides:
    """Scatter of both sides of the masks."""
    return Sides(
        inside=measure_scatter(stream.tokens_NPD, stream.share_NP),
        outside=measure_scatter(stream.tokens_NPD, 1.0 - stream.share_NP),
    )


def group_cues(stream: Stream, sides: tuple[Sides, Sides]) -> dict[str, float]:
    """Measure what the foregrounds of a group share.

    Parameters
    ----------
    stream : Stream
        The first.
    sides : tuple of Sides
        Of both streams.

    Returns
    -------
    dict of str to float
        Each higher where more is shared. ``closeness``: minus the log of the variance between the foregrounds of
        different images over that within one, in tokens whitened by the latter. ``closer_than_background``: minus
        the log of that variance between foregrounds over that between backgrounds. ``common_contrast``: log of the
        squared mean difference of foreground and background over the variance between foregrounds, second stream.
        ``match``: mean cosine of a foreground patch and its best match in another image, first stream.

    References
    ----------
    One-way analysis of variance: Fisher, "Statistical Methods for Research Workers", 1925.
    """
    first, second = sides
    weight_DD = _whitening(first)
    tiny = float(np.finfo(np.float64).tiny)
    between, within, background = [
        max(float((weight_DD * scatter_DD).sum()), tiny)
        for scatter_DD in (first.inside.between_DD, first.inside.within_DD, first.outside.between_DD)
    ]
    contrast = float(((second.inside.mean_ND - second.outside.mean_ND).mean(axis=0) ** 2).sum())
    spread = float(np.trace(second.inside.between_DD))
    return {
        "closeness": float(np.log(within) - np.log(between)),  # no log of a quotient, which may overflow
        "closer_than_background": float(np.log(background) - np.log(between)),
        "common_contrast": float(np.log(max(contrast, tiny)) - np.log(max(spread, tiny))),
        "match": best_match(stream),
    }


def best_match(stream: Stream) -> float:
    """Mean cosine of each foreground patch and the patch of every other image that is most like it.

    At most `MATCH_IMAGES` images and `MATCH_PATCHES` patches of each, evenly spaced, are looked at. 0 where no
    patch is foreground by half or more.
    """
    images = np.unique(np.linspace(0, len(stream.tokens_NPD) - 1, MATCH_IMAGES).round().astype(np.int64))
    step = -(-stream.tokens_NPD.shape[1] // MATCH_PATCHES)
    tokens_NPD = stream.tokens_NPD[images][:, ::step].astype(np.float32)
    length_NP1 = np.linalg.norm(tokens_NPD, axis=2, keepdims=True)
    unit_NPD = np.divide(tokens_NPD, length_NP1, out=np.zeros_like(tokens_NPD), where=length_NP1 > 0)
    is_inside_NP = stream.share_NP[images][:, ::step] >= 0.5
    scores = []
    for index, is_inside_P in enumerate(is_inside_NP):
        if is_inside_P.any():
            found = [unit_NPD[index][is_inside_P] @ other_PD.T for at, other_PD in enumerate(unit_NPD) if at != index]
            scores.append(float(np.mean([cosine.max(axis=1).mean() for cosine in found])))
    return float(np.mean(scores)) if scores else 0.0


def image_cues(sides: tuple[Sides, Sides]) -> list[dict[str, float]]:
    """Measure how each image's foreground resembles those of the others.

    Parameters
    ----------
    sides : tuple of Sides
        Of both streams.

    Returns
    -------
    list of dict of str to float
        Per image, each higher where it resembles them more; mean over the streams, in tokens whitened by the scatter
        within images. ``knn_distance``: minus the log of the mean squared distance to the `NEAREST` foregrounds, less
        the group's median. ``likeness``: mean cosine with the `NEAREST` most similar.
    """
    knn_distance, likeness = zip(*map(_resemblance, sides), strict=True)
    return [
        {"knn_distance": float(near), "likeness": float(like)}
        for near, like in zip(np.mean(knn_distance, axis=0), np.mean(likeness, axis=0), strict=True)
    ]


def max_group_cosine(prototype_NF: FloatArray) -> FloatArray:
    """How much each image's foreground is like the one of its group that is most like it.

    Parameters
    ----------
    prototype_NF : ndarray, float, (N, F)
        From `umscosod.confidence.cues.foreground_prototypes`; two images or more.

    Returns
    -------
    ndarray, float64, (N,), in [-1, 1]
        Largest cosine with another image's; 0 for a prototype of length 0.

    Examples
    --------
    >>> max_group_cosine(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])).tolist()
    [1.0, 1.0, 0.0]
    """
    length_N1 = np.linalg.norm(prototype_NF, axis=1, keepdims=True)
    unit_NF = np.divide(prototype_NF, length_N1, out=np.zeros(prototype_NF.shape), where=length_N1 > 0.0)
    cosine_NN = unit_NF @ unit_NF.T
    np.fill_diagonal(cosine_NN, -1.0)
    return np.asarray(cosine_NN.max(axis=1))


def _resemblance(sides: Sides) -> tuple[FloatArray, FloatArray]:
    white_ND = sides.inside.mean_ND @ np.linalg.cholesky(_whitening(sides))
    count = min(NEAREST, len(white_ND) - 1)
    dot_NN = white_ND @ white_ND.T
    square_N = np.diag(dot_NN)
    distance_NN = np.maximum(square_N[:, None] + square_N[None] - 2.0 * dot_NN, np.finfo(np.float64).eps)
    cosine_NN = dot_NN / np.sqrt(np.maximum(np.outer(square_N, square_N), np.finfo(np.float64).tiny))
    np.fill_diagonal(distance_NN, np.inf)
    np.fill_diagonal(cosine_NN, -np.inf)
    distance_N = -np.log(np.sort(distance_NN, axis=1)[:, :count].mean(axis=1))
    likeness_N = np.sort(cosine_NN, axis=1)[:, -count:].mean(axis=1)
    return distance_N - np.median(distance_N), likeness_N


def predictability(stream: Stream, ridge: float) -> FloatArray:
    """How well a linear classifier of the other images' masks finds each image's mask.

    Returns
    -------
    ndarray, float64, (N,), in [-1, 1]
        Correlation of the classifier's score with the mask.

    References
    ----------
    Fisher's linear discriminant, one image left out at a time.
    """
    tokens_NPD, share_NP = stream.tokens_NPD, stream.share_NP
    sides = (share_NP, 1.0 - share_NP)
    weight_2N = np.stack([side_NP.sum(axis=1) for side_NP in sides])
    sum_2ND = np.stack([np.einsum("np,npd->nd", side_NP, tokens_NPD) for side_NP in sides])
    square_2NDD = np.empty((*sum_2ND.shape, sum_2ND.shape[2]))
    for square_NDD, side_NP in zip(square_2NDD, sides, strict=True):
        for square_DD, side_P, tokens_PD in zip(square_NDD, side_NP, tokens_NPD, strict=True):
            square_DD[:] = (tokens_PD * side_P[:, None]).T @ tokens_PD
    # the others' sums are all sums less the image's own: time grows with the number of images, not with its square
    weight_2, sum_2D, square_2DD = (sums.sum(axis=1) for sums in (weight_2N, sum_2ND, square_2NDD))
    scores = []
    for index, tokens_PD in enumerate(tokens_NPD):
        others_21 = (weight_2 - weight_2N[:, index])[:, None]
        mean_2D = (sum_2D - sum_2ND[:, index]) / others_21
        moment_DD = ((square_2DD - square_2NDD[:, index]) / others_21[..., None]).sum(axis=0)
        direction_D = fisher_direction(moment_DD - mean_2D.T @ mean_2D, mean_2D[0] - mean_2D[1], ridge)
        scores.append(correlation(tokens_PD @ direction_D, share_NP[index]))
    return np.array(scores)


def _whitening(sides: Sides) -> FloatArray:
    """Inverse of the scatter within images, both sides of the masks, with a ridge: (D, D)."""
    within_DD = sides.inside.within_DD + sides.outside.within_DD
    return np.asarray(np.linalg.inv(add_ridge(within_DD, RIDGE)))
