"""k-means with seeded starts: equal input and seed give equal labels.

Suffixes: ``R`` rows, ``D`` width, ``K`` clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from umscosod.types import FloatArray

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """Outcome of k-means.

    Attributes
    ----------
    centres_KD : ndarray, float64, (K, D)
        K may be less than asked for, where there are fewer different rows.
    objective : float
        Mean squared distance of a row to its centre.
    """

    centres_KD: FloatArray
    objective: float


def fit_clusters(
    rows_RD: FloatArray, count: int, *, rounds: int, restarts: int, generator: np.random.Generator
) -> Clusters:
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

    References
    ----------
    Lloyd 1982 (DOI 10.1109/TIT.1982.1056489); starts by Arthur and Vassilvitskii, "k-means++", SODA 2007.

    Examples
    --------
    >>> rows = np.array([[0.0], [2.0], [10.0], [12.0]])
    >>> found = fit_clusters(rows, 2, rounds=9, restarts=3, generator=np.random.default_rng(0))
    >>> sorted(found.centres_KD.ravel().tolist()), found.objective
    ([1.0, 11.0], 1.0)
    """
    rows = np.asarray(rows_RD, np.float64)
    found = [_fit_once(rows, _start(rows, count, generator), rounds) for _ in range(restarts if count > 1 else 1)]
    return min(found, key=lambda one: one.objective)


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


def _fit_once(rows: FloatArray, centres_KD: FloatArray, rounds: int) -> Clusters:
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
    return Clusters(centres_KD=centres_KD, objective=float(squared_R.mean()))
