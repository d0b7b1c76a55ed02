"""Baseline ``tokencut``: the normalised cut of each image's patches (arXiv 2202.11539); images do not meet.

Suffixes: ``N`` images, ``P`` patches, ``D`` width, ``h w`` the token grid.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from umscosod.baselines.maps import average_with_evidence, piecewise_rescale
from umscosod.features.vectors import unit_patches
from umscosod.types import BoolArray, FloatArray, GroupFeatures

TAU = 0.2  # cosine above which two patches are joined, as published
EPS = 1e-5  # weight of the other edges, so that the graph holds, as published
# MaskCut's rule, arXiv 2301.11320: a side that holds more image corners than this is background. TokenCut has no such
# rule, and often takes a plain background for the object.
MAX_CORNERS = 2

_DENSE = 64  # patches up to which all eigenvectors are cheaper than an iteration
_ROUNDING = 1e-9


def tokencut_maps(features: GroupFeatures) -> FloatArray:
    """Cut every image in two and call the side of the strongest patch foreground.

    Parameters
    ----------
    features : GroupFeatures
        Tokens of the first stream, where TokenCut takes DINO's keys: other ViTs' keys all have cosines above `TAU`.

    Returns
    -------
    ndarray, float32, (N, h, w), in [0, 1]
        The mean of the mask and of the eigenvector, the latter with its mean at 0.5. Zeros for an image whose patches
        are all alike.

    References
    ----------
    Wang et al., "Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut", CVPR 2022
    (arXiv 2202.11539). Their bilateral solver gives way to stage 3, which all methods share.
    """
    patches_NPD = unit_patches(features.first, "tokens", "none")
    return np.stack([cut_image(patches_PD, features.first.grid_hw) for patches_PD in patches_NPD])


def cut_image(patches_PD: FloatArray, grid_hw: tuple[int, int]) -> FloatArray:
    """Cut one image: float32, (h, w), in [0, 1]; see `tokencut_maps`.

    Parameters
    ----------
    patches_PD : ndarray, float, (P, D)
        Of unit length, or zero.
    grid_hw : (int, int)
    """
    affinity_PP = build_affinity(patches_PD)
    if np.ptp(affinity_PP) <= 0:
        return np.zeros(grid_hw, np.float32)
    vector_P = second_eigenvector(affinity_PP)
    vector_P, mask_P = _orient(vector_P, grid_hw)
    labels_hw, _ = ndimage.label(mask_P.reshape(grid_hw))  # 4 neighbours, as published
    mask_hw = labels_hw == labels_hw.ravel()[int(np.argmax(vector_P))]
    evidence_P = piecewise_rescale(vector_P, float(vector_P.min()), float(vector_P.mean()), float(vector_P.max()))
    return average_with_evidence(mask_hw, evidence_P.reshape(grid_hw))


def build_affinity(patches_PD: FloatArray) -> FloatArray:
    """Join patches whose cosine exceeds `TAU`: float64, (P, P), of 1 and `EPS`.

    Examples
    --------
    >>> build_affinity(np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])).tolist()
    [[1.0, 1.0, 1e-05], [1.0, 1.0, 1.0], [1e-05, 1.0, 1.0]]
    """
    cosine_PP = np.asarray(patches_PD, np.float64) @ np.asarray(patches_PD, np.float64).T
    return np.where(cosine_PP > TAU, 1.0, EPS)


def second_eigenvector(affinity_PP: FloatArray) -> FloatArray:
    """Solve (D - A) y = lambda D y for the second smallest lambda.

    Found as the largest eigenvector z of D^-1/2 A D^-1/2 without its first, D^1/2 1, which is known; y = D^-1/2 z.

    Parameters
    ----------
    affinity_PP : ndarray, float, (P, P)
        Symmetric, positive.

    Returns
    -------
    ndarray, float64, (P,)
        Its sign is arbitrary; z is of unit length.

    References
    ----------
    Shi and Malik, "Normalized Cuts and Image Segmentation", TPAMI 2000 (DOI 10.1109/34.868688), eq. 11.

    Examples
    --------
    Two pairs held together by weak edges are parted between the pairs, and D y sums to zero:

    >>> graph = np.array([[1.0, 1.0, 0.1, 0.1], [1.0, 1.0, 0.1, 0.1], [0.1, 0.1, 1.0, 1.0], [0.1, 0.1, 1.0, 1.0]])
    >>> np.abs(second_eigenvector(graph)).round(4).tolist()
    [0.3371, 0.3371, 0.3371, 0.3371]
    """
    affinity = np.asarray(affinity_PP, np.float64)
    root_P = np.sqrt(affinity.sum(1))
    first_P = root_P / np.linalg.norm(root_P)
    scaled_PP = affinity / root_P[:, None] / root_P[None]
    count = len(affinity)
    if count > _DENSE:
        operator = LinearOperator(
            (count, count),
            matvec=lambda x: scaled_PP @ np.ravel(x) - first_P * (first_P @ np.ravel(x)),
            dtype=np.float64,
        )
        # a start that no symmetry of the picture makes orthogonal to the answer; fixed, so that results are
        start_P = np.cos(np.arange(count) * np.sqrt(2.0))
        try:
            return np.asarray(eigsh(operator, k=1, which="LA", v0=start_P)[1][:, 0] / root_P)
        except ArpackError:  # did not converge: all eigenvectors, slower, always found
            pass
    deflated_PP = scaled_PP - np.outer(first_P, first_P)
    return np.asarray(np.linalg.eigh(deflated_PP)[1][:, -1] / root_P)


def _orient(vector_P: FloatArray, grid_hw: tuple[int, int]) -> tuple[FloatArray, BoolArray]:
    """Choose the sign: the patch of largest magnitude is foreground, unless its side holds too many corners."""
    magnitude_P = np.abs(vector_P)
    # of patches equal but for rounding the first, so that the solver's last bits never choose the side
    seed = int(np.flatnonzero(magnitude_P >= magnitude_P.max() * (1.0 - _ROUNDING))[0])
    mask_P = vector_P > vector_P.mean()
    if not mask_P[seed]:
        vector_P, mask_P = -vector_P, ~mask_P
    if mask_P.reshape(grid_hw)[[0, 0, -1, -1], [0, -1, 0, -1]].sum() > MAX_CORNERS:
        vector_P, mask_P = -vector_P, ~mask_P
    return vector_P, mask_P
