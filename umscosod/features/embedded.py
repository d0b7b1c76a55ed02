"""The backbone that needs no weights and no annotation: it makes the product work on any machine (spec A0)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from scipy.linalg import eigh

from umscosod.config import EmbeddedConfig
from umscosod.data.images import resize_picture
from umscosod.errors import ConfigError
from umscosod.features.border_contrast import border_contrast, cell_positions, centre_prior
from umscosod.features.descriptors import DESCRIPTOR_DIM, compute_descriptors
from umscosod.threads import one_blas_thread
from umscosod.types import ByteArray, EncodedImage, FloatArray

SCHEMA = "2"
"""Raised when the code changes what is encoded, so that old cache entries are not reused."""
SPECTRAL_CHANNELS = 8
"""Width of the keys: no setting, since cached entries of one width are stacked."""
_ENCODE_FIELDS = (
    "centre_sigma",
    "contrast_centre_power",
    "geodesic_sigma",
    "flat_step_quantile",
    "connectivity_sigma",
    "contrast_reach",
    "gradient_scales",
    "surround_scales",
    "spectral_components",
    "spectral_floor",
    "spectral_bandwidth",
    "spectral_reach",
)


class EmbeddedBackbone:
    """Dense descriptors on a grid, with spectral keys and contrast to the border as attention.

    Parameters
    ----------
    size_px : int
        Side of the square picture, in pixels; a multiple of `cell_px`.
    cell_px : int
        Side of a cell, in pixels.
    config : EmbeddedConfig, optional

    Raises
    ------
    ConfigError
        `size_px` is not a multiple of `cell_px`.

    Notes
    -----
    Its tokens are raw: `umscosod.features.whitening` applies the collection's statistics and
    `umscosod.features.sharpen` the group's, both after the cache.
    """

    needs_whitening = True
    name = "embedded"
    weights_sha256 = ""
    dim = DESCRIPTOR_DIM

    def __init__(self, size_px: int, cell_px: int, config: EmbeddedConfig | None = None) -> None:
        if size_px % cell_px:
            raise ConfigError(f"features.size_px {size_px} must be a multiple of {cell_px} for the embedded backbone")
        self.config = config or EmbeddedConfig()
        self.size_px, self.cell_px = size_px, cell_px
        self.grid_hw = (size_px // cell_px, size_px // cell_px)
        settings = {key: value for key, value in asdict(self.config).items() if key in _ENCODE_FIELDS}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        self.id = f"embedded-v{SCHEMA}-{digest}@{size_px}/{cell_px}"

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Encode RGB images (uint8, (H, W, 3)) one by one; see `umscosod.features.backbone.Backbone.encode`."""
        with one_blas_thread():
            return [self._encode_one(resize_picture(image, self.size_px)) for image in images]

    def _encode_one(self, picture_HW3: ByteArray) -> EncodedImage:
        descriptors_PD = compute_descriptors(picture_HW3, self.cell_px, self.config).reshape(-1, DESCRIPTOR_DIM)
        contrast_P = border_contrast(descriptors_PD[:, :3].astype(np.float64), self.grid_hw, self.config)
        prior_P = centre_prior(self.grid_hw, self.config.centre_sigma) ** self.config.contrast_centre_power
        return EncodedImage(
            tokens_PD=descriptors_PD.astype(np.float16),
            keys_PK=spectral_keys(descriptors_PD, self.grid_hw, self.config).astype(np.float16),
            attn_AP=(contrast_P * prior_P)[None].astype(np.float16),
            grid_hw=self.grid_hw,
        )


def spectral_keys(descriptors_PD: FloatArray, grid_hw: tuple[int, int], config: EmbeddedConfig) -> FloatArray:
    """Embed cells by the leading eigenvectors of their affinity: cells of one surface get parallel vectors.

    Parameters
    ----------
    descriptors_PD : ndarray, float, (P, D)
    grid_hw : (int, int)
    config : EmbeddedConfig

    Returns
    -------
    ndarray, float64, (P, 8)
        Zero columns where the grid has fewer cells than channels, or the picture is of one colour.

    References
    ----------
    Shi and Malik, "Normalized Cuts and Image Segmentation", TPAMI 2000 (DOI 10.1109/34.868688).
    """
    components_PC = _principal_components(descriptors_PD.astype(np.float64), config)
    keys_PK = np.zeros((len(components_PC), SPECTRAL_CHANNELS))
    squares_P = (components_PC**2).sum(1)
    distance_PP = np.maximum(squares_P[:, None] + squares_P[None] - 2.0 * components_PC @ components_PC.T, 0.0)
    scale = config.spectral_bandwidth * float(np.median(distance_PP))
    if scale <= 0.0:
        return keys_PK
    positions = cell_positions(grid_hw)
    apart_PP = ((positions[:, None] - positions[None]) ** 2).sum(2)
    affinity_PP = np.exp(-distance_PP / scale - apart_PP / (2.0 * config.spectral_reach**2))
    degree_P = affinity_PP.sum(1)
    count = min(SPECTRAL_CHANNELS, len(keys_PK) - 1)
    wanted = [len(keys_PK) - 1 - count, len(keys_PK) - 2]  # ascending; the last eigenvector is constant
    values_K, vectors_PK = eigh(affinity_PP / np.sqrt(degree_P[:, None] * degree_P[None]), subset_by_index=wanted)
    vectors_PK = vectors_PK[:, ::-1] / np.sqrt(degree_P)[:, None]
    deviation_K = vectors_PK.std(0)
    scale_K = np.sqrt(values_K[::-1].clip(0, 1)) / np.where(deviation_K > 0, deviation_K, 1.0)
    keys_PK[:, :count] = vectors_PK * scale_K
    return keys_PK


def _principal_components(descriptors_PD: FloatArray, config: EmbeddedConfig) -> FloatArray:
    """Standardise each channel inside the picture and keep the leading principal components, (P, at most so many)."""
    centred_PD = descriptors_PD - descriptors_PD.mean(0)
    left, singular, _ = np.linalg.svd(centred_PD / (centred_PD.std(0) + config.spectral_floor), full_matrices=False)
    count = config.spectral_components
    return np.asarray(left[:, :count] * singular[:count])
