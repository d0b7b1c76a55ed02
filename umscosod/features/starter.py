"""The backbone `starter`: what a small network of our own sees stand out, and what it and descriptors say of cells.

Legend: ``P = h * w`` cells, row-major; ``H W`` pixels; ``D K`` widths.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from umscosod.data.images import square_picture
from umscosod.device import one_blas_thread
from umscosod.errors import ConfigError
from umscosod.features.embedded import DESCRIPTOR_DIM, cell_means, compute_descriptors, spectral_keys
from umscosod.features.starter_network import EMBED_DIM
from umscosod.features.starter_weights import load_starter, packaged_starter, sha256_of
from umscosod.types import ByteArray, EncodedImage, FloatArray

SCHEMA = "1"
"""Raised when the code changes what is encoded, so that old cache entries are not reused."""
_VIEW_PX = 128  # side at which the network looks at a picture
_FINE_PX = 4  # side of a cell of the descriptors in pixels: a quarter of the work of 8, and hardly less is seen
_KEY_CELLS = 2  # cells along a side of one that has a key of its own: an eigenproblem costs the cube of its cells


class StarterBackbone:
    """Attention from the network, tokens from descriptors and network, spectral keys.

    Parameters
    ----------
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
        The package's weights are damaged.

    Notes
    -----
    Its tokens are raw: `umscosod.features.group` applies the collection's statistics and the group's, after the
    cache.
    """

    needs_whitening = True
    is_centred = False
    has_attention = False
    is_label_free = True
    name = "starter"
    dim = DESCRIPTOR_DIM + EMBED_DIM
    batch_size = 1

    def __init__(self, size_px: int, cell_px: int, device: torch.device) -> None:
        if size_px % (_KEY_CELLS * cell_px):
            raise ConfigError(
                f"features.size_px {size_px} must be a multiple of {_KEY_CELLS * cell_px} for the starter backbone"
            )
        self.grid_hw = (size_px // cell_px, size_px // cell_px)
        content = packaged_starter()
        self.weights_sha256 = sha256_of(content)
        self.id = f"starter-v{SCHEMA}:{self.weights_sha256}@{size_px}/{cell_px}"
        self._device = device
        self._network = load_starter(content, "of the package").to(device)

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Encode RGB images (uint8, (H, W, 3)) one by one; see `umscosod.features.backbone.Backbone.encode`."""
        with one_blas_thread():
            return [self._encode_one(image) for image in images]

    def _encode_one(self, image_HW3: ByteArray) -> EncodedImage:
        side = self.grid_hw[0]
        map_hw, embedding_hwD = self._look(square_picture(image_HW3, _VIEW_PX))
        descriptors_hwD = compute_descriptors(square_picture(image_HW3, side * _FINE_PX), _FINE_PX)
        tokens_hwD = np.concatenate([descriptors_hwD, _to_grid(embedding_hwD, side)], -1)
        coarse = side // _KEY_CELLS
        coarse_PD = cell_means(descriptors_hwD, _KEY_CELLS).reshape(-1, DESCRIPTOR_DIM)
        keys_hwK = _to_grid(spectral_keys(coarse_PD, (coarse, coarse)).reshape(coarse, coarse, -1), side)
        return EncodedImage(
            tokens_PD=tokens_hwD.reshape(side * side, -1).astype(np.float16),
            keys_PK=keys_hwK.reshape(side * side, -1).astype(np.float16),
            attn_AP=_to_grid(map_hw[..., None], side).reshape(1, -1).clip(0.0, 1.0).astype(np.float16),
            grid_hw=self.grid_hw,
        )

    @torch.no_grad()
    def _look(self, picture_HW3: ByteArray) -> tuple[FloatArray, FloatArray]:
        """Map and embedding of a picture: each the mean over it and its mirror image."""
        both = np.stack([picture_HW3, picture_HW3[:, ::-1]])
        inputs = torch.from_numpy(both).to(self._device).permute(0, 3, 1, 2).float() / 255.0
        output = self._network(inputs)
        maps_2hw = output.logits_Nhw.sigmoid().cpu().numpy()
        embedding_2hwD = output.embedding_NChw.permute(0, 2, 3, 1).cpu().numpy()
        return (maps_2hw[0] + maps_2hw[1, :, ::-1]) / 2.0, (embedding_2hwD[0] + embedding_2hwD[1, :, ::-1]) / 2.0


def _to_grid(map_hwD: FloatArray, side: int) -> FloatArray:
    """Resize a stack of maps to the grid, bilinear, channels last; OpenCV takes many channels where it only shrinks."""
    resized = cv2.resize(np.asarray(map_hwD, np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized.reshape(side, side, -1))
