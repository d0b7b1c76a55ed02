"""Which of two sets of masks a group keeps: a criterion that needs no ground truth.

Suffixes: ``N`` images of the group, ``P`` patches, ``D`` token width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from umscosod.config import RefineConfig
from umscosod.data.resize import resize_centred
from umscosod.types import BoolArray, FloatArray


def group_agreement(
    masks: Sequence[BoolArray], tokens_NPD: FloatArray, grid_hw: tuple[int, int], config: RefineConfig
) -> float:
    """Ask how well the masks of one half of a group predict those of the other half.

    A linear discriminant of object against background patches is fitted to every second image and correlated with
    the masks of the others, and the other way round. Masks that mark the same thing everywhere predict each other;
    masks that mark here the object and there the sky do not.

    Parameters
    ----------
    masks : sequence of ndarray, bool, (any height, any width)
        One per image.
    tokens_NPD : ndarray, float, (N, P, D)
        Patch tokens, of any backbone.
    grid_hw : (int, int)
    config : RefineConfig

    Returns
    -------
    float
        Mean correlation over the images, in [-1, 1]. An empty or full mask counts 0. A group of one is judged by
        itself.
    """
    shares_NP = np.stack([_shares(mask_HW, grid_hw) for mask_HW in masks])
    tokens_NPD = tokens_NPD.astype(np.float64)
    every = np.arange(len(masks))
    folds = [(every[::2], every[1::2]), (every[1::2], every[::2])] if len(masks) > 1 else [(every, every)]
    scores = []
    for fitted, judged in folds:
        direction_D = _discriminant(
            tokens_NPD[fitted].reshape(-1, tokens_NPD.shape[2]),
            shares_NP[fitted].ravel().astype(np.float64),
            config.agreement_ridge,
        )
        scores += [_correlation(tokens_NPD[index] @ direction_D, shares_NP[index]) for index in judged]
    return float(np.mean(scores))


def _shares(mask_HW: BoolArray, grid_hw: tuple[int, int]) -> FloatArray:
    """Share of each patch that a mask covers: float32, (P,).

    Full and empty masks are filled in, not resized: averaging ones may round, and a correlation sees any noise.
    """
    if mask_HW.all() or not mask_HW.any():
        return np.full(grid_hw[0] * grid_hw[1], mask_HW.any(), np.float32)
    return resize_centred(mask_HW.astype(np.float32), grid_hw).ravel()


def _discriminant(tokens_RD: FloatArray, share_R: FloatArray, ridge: float) -> FloatArray:
    """Fisher's discriminant of patches weighted by the share that a mask covers; zeros where a class is empty."""
    if not 0.0 < share_R.sum() < len(share_R):
        return np.zeros(tokens_RD.shape[1])
    means, scatter_DD = [], np.zeros((tokens_RD.shape[1],) * 2)
    for weight_R in (share_R, 1.0 - share_R):
        weight_R = weight_R / weight_R.sum()
        mean_D = weight_R @ tokens_RD
        centred_RD = tokens_RD - mean_D
        scatter_DD += (centred_RD * weight_R[:, None]).T @ centred_RD
        means.append(mean_D)
    spread = np.trace(scatter_DD) / len(scatter_DD)
    scatter_DD += (ridge * spread if spread > 0 else 1.0) * np.eye(len(scatter_DD))
    return np.asarray(np.linalg.solve(scatter_DD, means[0] - means[1]))


def _correlation(first_P: FloatArray, second_P: FloatArray) -> float:
    """Pearson's correlation; 0 where either is constant."""
    first_P, second_P = first_P - first_P.mean(), second_P - second_P.mean()
    norm = float(np.sqrt((first_P**2).sum() * (second_P**2).sum()))
    return float(np.clip(first_P @ second_P / norm, -1.0, 1.0)) if norm > 0 else 0.0
