"""Categories of a group: clusters of mask embeddings, ordered by how many images hold them (spec A1.3, A1.4).

Suffixes: ``M`` masks of all images of the group, ``P`` patches, ``D`` token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

from umscosod.types import FloatArray

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
    clusters_M: npt.NDArray[np.int64] = number[inverse]
    return clusters_M


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
