"""The self-attention map as a set of patches (spec A1.2).

Suffixes: ``P`` patches, ``h w`` the token grid.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

from umscosod.types import BoolArray, FloatArray

BinarizeMode = Literal["mass", "otsu", "mean"]


def attention_threshold(map_P: FloatArray, mode: BinarizeMode, mass: float) -> float:
    """Compute the value from which a patch belongs to the attention's set.

    ``mass`` takes the fewest of the highest patches that hold that share of the sum (as DINO's visualisation does
    per head); ``otsu`` parts the histogram; ``mean`` takes what is at least the mean.

    Parameters
    ----------
    map_P : ndarray, float, any shape, in [0, 1]
    mode : {"mass", "otsu", "mean"}
    mass : float
        In [0, 1]; used by ``mass`` only.

    Returns
    -------
    float
        The set is ``map >= threshold``, so tied patches go in together. Infinity for a map of zeros: an empty set.

    Examples
    --------
    The two highest hold 7 of 10:

    >>> attention_threshold(np.array([1.0, 2.0, 3.0, 4.0]), "mass", 0.6)
    3.0
    """
    values_P = np.sort(np.asarray(map_P, dtype=np.float64).ravel())[::-1]
    positive = values_P[values_P > 0]
    if positive.size == 0:
        return float("inf")
    if mode == "mass":
        summed = np.cumsum(positive)
        # a share met but for rounding counts as met
        index = int(np.searchsorted(summed, mass * summed[-1] * (1 - 1e-12)))
        return float(positive[min(index, positive.size - 1)])
    if mode == "mean":
        return float(values_P.mean())
    return _otsu_threshold(values_P)


def _otsu_threshold(values_P: FloatArray) -> float:
    """Lowest value of the upper class of Otsu's two (DOI 10.1109/TSMC.1979.4310076), over `values_P` descending.

    Exact: every cut between two different values is tried, where a histogram would move values to bin centres.
    Of equal cuts the highest; of a constant map all values.
    """
    cuts = np.flatnonzero(values_P[:-1] > values_P[1:]) + 1  # sizes of the upper class
    if cuts.size == 0:
        return float(values_P[0])
    total, summed = float(values_P.sum()), np.cumsum(values_P)[cuts - 1]
    between = cuts * (values_P.size - cuts) * (summed / cuts - (total - summed) / (values_P.size - cuts)) ** 2
    return float(values_P[cuts[np.argmax(between)] - 1])


def binarize_attention(map_P: FloatArray, mode: BinarizeMode, mass: float) -> BoolArray:
    """Turn the attention map into a set of patches: bool, same shape (see `attention_threshold`).

    Examples
    --------
    >>> binarize_attention(np.array([1.0, 2.0, 3.0, 4.0]), "mean", 0.0).tolist()
    [False, False, True, True]
    """
    chosen_P: BoolArray = map_P >= attention_threshold(map_P, mode, mass)
    return chosen_P


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
    kept_hw: BoolArray = labels_hw == 1 + int(np.argmax(areas))
    return kept_hw
