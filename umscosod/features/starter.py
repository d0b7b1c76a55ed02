"""The backbone `starter`: the descriptors, and what a small network of our own sees stand out.

Legend: ``P = h * w`` cells, row-major; ``H W`` pixels; ``D`` width of the descriptors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from umscosod.data.images import square_picture
from umscosod.device import one_blas_thread
from umscosod.errors import ConfigError
from umscosod.features.embedded import (
    CONTRAST_CENTRE_POWER,
    DESCRIPTOR_DIM,
    border_contrast,
    cell_means,
    centre_prior,
    compute_descriptors,
    spectral_keys,
)
from umscosod.features.group import minmax
from umscosod.features.starter_weights import load_starter, sha256_of
from umscosod.types import ByteArray, EncodedImage, FloatArray

SCHEMA = "1"
"""Raised when the code changes what is encoded, so that old cache entries are not reused."""
LOGIT_SHIFT = 2.5  # taken off the network's logits: its maps are too large by so much (docs/starter.md)
_VIEW_PX = 128  # side at which the network looks at a picture
_FINE_PX = 4  # side of a cell of the descriptors in pixels: a quarter of the work of 8
_COARSE = 2  # cells along a side of one of the contrast: distances cost more than the square of the cells


class StarterBackbone:
    """Descriptors on a grid; a first guess of the foreground by contrast to the border and by the network.

    Parameters
    ----------
    file : Path
        Weights that `umscosod.pretrain` made.
    size_px : int
        Side of the square picture, in pixels; a multiple of `cell_px`.
    cell_px : int
        Side of a cell, in pixels.
    device : torch.device
        Of the network.

    Raises
    ------
    ConfigError
        `size_px` is not an even multiple of `cell_px`.
    WeightsError
        The file is damaged, or holds other weights.

    Notes
    -----
    Its attention has two rows: the contrast, and the network's map, which takes part in every round of
    `umscosod.features.group.sharpen_saliency`. Its tokens are raw: `umscosod.features.group` applies the collection's
    statistics and the group's, after the cache.
    """

    needs_whitening = True
    is_centred = False
    has_attention = False
    is_label_free = True
    name = "starter"
    dim = DESCRIPTOR_DIM
    batch_size = 1

    def __init__(self, file: Path, size_px: int, cell_px: int, device: torch.device) -> None:
        if size_px % (_COARSE * cell_px):
            raise ConfigError(
                f"features.size_px {size_px} must be a multiple of {_COARSE * cell_px} for the starter backbone"
            )
        self.grid_hw = (size_px // cell_px, size_px // cell_px)
        content = file.read_bytes()
        self.weights_sha256 = sha256_of(content)
        self.id = f"starter-v{SCHEMA}:{self.weights_sha256}@{size_px}/{cell_px}"
        self._device = device
        self._network = load_starter(content, str(file)).to(device)

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Encode RGB images (uint8, (H, W, 3)) one by one; see `umscosod.features.backbone.Backbone.encode`."""
        with one_blas_thread():
            return [self._encode_one(image) for image in images]

    def _encode_one(self, image_HW3: ByteArray) -> EncodedImage:
        side = self.grid_hw[0]
        descriptors_hwD = compute_descriptors(square_picture(image_HW3, side * _FINE_PX), _FINE_PX)
        descriptors_PD = descriptors_hwD.reshape(-1, DESCRIPTOR_DIM)
        attn_2P = np.stack([coarse_contrast(descriptors_hwD), self._look(square_picture(image_HW3, _VIEW_PX))])
        return EncodedImage(
            tokens_PD=descriptors_PD.astype(np.float16),
            keys_PK=spectral_keys(descriptors_PD, self.grid_hw).astype(np.float16),
            attn_AP=attn_2P.astype(np.float16),
            grid_hw=self.grid_hw,
        )

    @torch.no_grad()
    def _look(self, picture_HW3: ByteArray) -> FloatArray:
        """Probability of foreground on the grid, (P,): of the mean over the picture and its mirror image."""
        both = np.stack([picture_HW3, picture_HW3[:, ::-1]])
        inputs = torch.from_numpy(both).to(self._device).permute(0, 3, 1, 2).float() / 255.0
        logits_2hw = self._network(inputs).logits_Nhw.cpu().numpy()
        logits_hw = (logits_2hw[0] + logits_2hw[1, :, ::-1]) / 2.0
        resized_hw = cv2.resize(logits_hw, self.grid_hw[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(1.0 / (1.0 + np.exp(LOGIT_SHIFT - resized_hw.astype(np.float64)))).ravel()


def coarse_contrast(descriptors_hwD: FloatArray) -> FloatArray:
    """Contrast to the border under the centre prior, found on a coarser grid: (P,), in [0, 1]."""
    side = len(descriptors_hwD)
    coarse_hw = (side // _COARSE, side // _COARSE)
    lab_P3 = cell_means(descriptors_hwD[..., :3], _COARSE).reshape(-1, 3).astype(np.float64)
    coarse = border_contrast(lab_P3, coarse_hw).reshape(coarse_hw)
    contrast_P = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR).ravel()
    return minmax(contrast_P * centre_prior((side, side)) ** CONTRAST_CENTRE_POWER)
