"""Group step of the weight-free backbone: a linear foreground classifier, refitted over the group.

Legend: ``N`` images, ``P`` patches, ``D`` token width; `F` is D or any other feature width.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from skimage.filters import threshold_otsu

from umscosod.config import EmbeddedConfig
from umscosod.features.border_contrast import centre_prior
from umscosod.types import BoolArray, FloatArray, GroupTokens

_ROUNDING = 1e-9  # of a discriminant in standard deviations: equal patches may differ by so much
_LARGEST_EXPONENT = 700.0  # of exp in float64


def sharpen_saliency(
    tokens_NPD: FloatArray, saliency_NP: FloatArray, grid_hw: tuple[int, int], config: EmbeddedConfig
) -> FloatArray:
    """Turn contrast to the border into a foreground map that the group agrees on.

    Each round splits every map at Otsu's threshold, fits a linear discriminant to the patches of the whole group and
    one to each image's own, and maps the mixture of both through a sigmoid under a weak centre prior.

    Parameters
    ----------
    tokens_NPD : ndarray, float32, (N, P, D)
        Whitened tokens.
    saliency_NP : ndarray, float, (N, P), in [0, 1]
    grid_hw : (int, int)
    config : EmbeddedConfig

    Returns
    -------
    ndarray, float32, (N, P), in [0, 1]
        Min-maxed per image. All zero where nothing tells one patch of an image from another: the centre prior alone
        is no evidence.
    """
    prior_P = centre_prior(grid_hw, config.centre_sigma) ** config.centre_power
    current_NP = minmax(saliency_NP.astype(np.float64))
    for _ in range(config.sharpen_rounds):
        foreground_NP = np.stack([map_P > _otsu(map_P) for map_P in current_NP])
        score_NP = _standardise(_discriminant(tokens_NPD, foreground_NP, config.group_ridge))
        own_NP = np.stack(
            [
                _standardise(_discriminant(tokens_NPD[i : i + 1], foreground_NP[i : i + 1], config.image_ridge))[0]
                for i in range(len(tokens_NPD))
            ]
        )
        mixed_NP = (1.0 - config.image_weight) * score_NP + config.image_weight * own_NP
        smooth_NP = np.stack([_smooth(score_P, grid_hw, config.smooth_cells) for score_P in mixed_NP])
        tells_apart_N1 = np.ptp(smooth_NP, -1, keepdims=True) > _ROUNDING
        exponent_NP = np.minimum(-config.slope * smooth_NP, _LARGEST_EXPONENT)
        current_NP = minmax(np.where(tells_apart_N1, prior_P / (1.0 + np.exp(exponent_NP)), 0.0))
    return current_NP.astype(np.float32)


def append_saliency(tokens: GroupTokens, saliency_NP: FloatArray, config: EmbeddedConfig) -> GroupTokens:
    """Add the map, scaled to [-weight, weight], as one more channel of tokens and keys."""
    channel_NP1 = (2.0 * saliency_NP[..., None] - 1.0).astype(np.float32)
    return replace(
        tokens,
        tokens_NPD=np.concatenate([tokens.tokens_NPD, config.token_saliency * channel_NP1], 2),
        keys_NPK=np.concatenate([tokens.keys_NPK, config.key_saliency * channel_NP1], 2),
    )


def minmax(maps_NP: FloatArray) -> FloatArray:
    """Stretch every row to [0, 1]; a constant row becomes zero.

    Examples
    --------
    >>> import numpy as np
    >>> minmax(np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]])).tolist()
    [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]
    """
    low_N1 = maps_NP.min(-1, keepdims=True)
    span_N1 = maps_NP.max(-1, keepdims=True) - low_N1
    return np.asarray((maps_NP - low_N1) / np.where(span_N1 > 0, span_N1, 1.0))


def _otsu(map_P: FloatArray) -> float:
    return float(threshold_otsu(map_P)) if np.ptp(map_P) > 0 else float(map_P.max())


def _discriminant(tokens_NPF: FloatArray, foreground_NP: BoolArray, ridge: float) -> FloatArray:
    """Fisher's linear discriminant of foreground against background, zero between the two means; (N, P)."""
    rows_RF = tokens_NPF.reshape(-1, tokens_NPF.shape[-1]).astype(np.float64)
    chosen_R = foreground_NP.ravel()
    if chosen_R.all() or not chosen_R.any():
        return np.zeros(foreground_NP.shape)
    front_RF, back_RF = rows_RF[chosen_R], rows_RF[~chosen_R]
    front_F, back_F = front_RF.mean(0), back_RF.mean(0)
    scatter_FF = _covariance(front_RF, front_F) + _covariance(back_RF, back_F)
    spread = np.trace(scatter_FF) / len(scatter_FF)
    scatter_FF += (ridge * spread if spread > 0 else 1.0) * np.eye(len(scatter_FF))
    direction_F = np.linalg.solve(scatter_FF, front_F - back_F)
    return np.asarray((rows_RF - (front_F + back_F) / 2.0) @ direction_F).reshape(foreground_NP.shape)


def _covariance(rows_RF: FloatArray, mean_F: FloatArray) -> FloatArray:
    centred = rows_RF - mean_F
    return np.asarray(centred.T @ centred / len(rows_RF))


def _standardise(score_NP: FloatArray) -> FloatArray:
    """Divide by the deviation over all rows at once; the zero between the classes stays."""
    deviation = float(score_NP.std())
    return np.asarray(score_NP / deviation) if deviation > 0 else score_NP


def _smooth(score_P: FloatArray, grid_hw: tuple[int, int], sigma_cells: float) -> FloatArray:
    if sigma_cells == 0.0:
        return np.asarray(score_P)
    smooth_hw: FloatArray = np.asarray(cv2.GaussianBlur(score_P.reshape(grid_hw), (0, 0), sigma_cells))
    return smooth_hw.reshape(-1)
