"""Exact mean field in O(N^2), in float64: the yardstick DenseCRF is tested against, for pictures up to about 24 x 24.

The lattice of pydensecrf approximates the same kernels; so labels agree on nearly all pixels, not on all.
"""

from __future__ import annotations

import numpy as np

from umscosod.config import CrfConfig
from umscosod.types import ByteArray, FloatArray


def _kernel(features_PF: FloatArray) -> FloatArray:
    """Gaussian of unit deviation over all pairs, self included, then D^-1/2 K D^-1/2 with D its row sums."""
    squares_P = (features_PF**2).sum(axis=1)
    distance_PP = np.maximum(squares_P[:, None] + squares_P[None, :] - 2.0 * features_PF @ features_PF.T, 0.0)
    kernel_PP = np.exp(-0.5 * distance_PP)
    norm_P = 1.0 / np.sqrt(kernel_PP.sum(axis=1))
    return np.asarray(norm_P[:, None] * kernel_PP * norm_P[None, :])


def _softmax(energy_LP: FloatArray) -> FloatArray:
    """Probabilities of negative energies, over the labels."""
    weights_LP = np.exp(energy_LP.min(axis=0) - energy_LP)
    return np.asarray(weights_LP / weights_LP.sum(axis=0))


def infer_exactly(unary_LP: FloatArray, picture_HW3: ByteArray, config: CrfConfig) -> FloatArray:
    """As `umscosod.refine.crf.infer`, without approximation; float64.

    References
    ----------
    Kraehenbuehl and Koltun, NIPS 2011, arXiv 1210.5644, algorithm 1.
    """
    labels, (height, width) = unary_LP.shape[0], picture_HW3.shape[:2]
    place_PF = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2).astype(float)
    colour_PF = picture_HW3.reshape(-1, 3) / config.bilateral_rgb
    # Potts: a neighbour's belief in a label lowers that label's energy, in proportion to both kernels.
    pull_PP = config.gaussian_compat * _kernel(place_PF / config.gaussian_xy_px)
    pull_PP += config.bilateral_compat * _kernel(np.hstack([place_PF / config.bilateral_xy_px, colour_PF]))
    energy_LP = unary_LP.astype(np.float64)
    belief_LP = _softmax(energy_LP)
    for _ in range(config.iterations):
        belief_LP = _softmax(energy_LP - belief_LP @ pull_PP)  # the kernel is symmetric: rows or columns alike
    return belief_LP.reshape(labels, height, width)
