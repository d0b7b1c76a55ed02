"""The backbone `starter`: `embedded`, and what a small network of our own sees stand out.

Legend: ``P = h * w`` cells, row-major; ``H W`` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from umscosod.data.images import square_picture
from umscosod.device import one_blas_thread
from umscosod.features.embedded import EmbeddedBackbone
from umscosod.features.starter_weights import load_starter, sha256_of
from umscosod.types import ByteArray, EncodedImage, FloatArray

SCHEMA = "2"
"""Raised when the code changes what is encoded, so that old cache entries are not reused."""
SHIPPED = Path(__file__).with_name("starter.safetensors")
"""The weights that come with the package; docs/starter.md is their card."""
LOGIT_SHIFT = 1.0  # taken off the network's logits: its maps are too large by so much (docs/starter.md)
_VIEW_PX = 128  # side at which the network looks at a picture


class StarterBackbone:
    """`umscosod.features.embedded.EmbeddedBackbone` whose attention has a second row: the network's map.

    Parameters
    ----------
    file : Path
        `SHIPPED`, or weights that `umscosod.pretrain` made.
    size_px, cell_px : int
        As for `EmbeddedBackbone`.
    device : torch.device
        Of the network.

    Raises
    ------
    ConfigError
        `size_px` is not a multiple of `cell_px`.
    WeightsError
        The file is damaged, or holds other weights.

    Notes
    -----
    The network's map takes part in every round of `umscosod.features.group.sharpen_saliency`. Tokens are raw:
    `umscosod.features.group` applies the collection's statistics and the group's, after the cache.
    """

    needs_whitening = True
    is_centred = False
    has_attention = False
    is_label_free = True
    name = "starter"
    dim = EmbeddedBackbone.dim
    batch_size = 1

    def __init__(self, file: Path, size_px: int, cell_px: int, device: torch.device) -> None:
        self._embedded = EmbeddedBackbone(size_px, cell_px)
        self.grid_hw = self._embedded.grid_hw
        content = file.read_bytes()
        self.weights_sha256 = sha256_of(content)
        self.id = f"starter-v{SCHEMA}:{self.weights_sha256}+{self._embedded.id}"
        self._device = device
        self._network = load_starter(content, str(file)).to(device)

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Encode RGB images (uint8, (H, W, 3)) one by one; see `umscosod.features.backbone.Backbone.encode`."""
        encoded = self._embedded.encode(images)
        with one_blas_thread():
            return [self._add_map(one, image) for one, image in zip(encoded, images, strict=True)]

    def _add_map(self, encoded: EncodedImage, image_HW3: ByteArray) -> EncodedImage:
        learnt_P = self._look(square_picture(image_HW3, _VIEW_PX)).astype(np.float16)
        return replace(encoded, attn_AP=np.concatenate([encoded.attn_AP, learnt_P[None]]))

    @torch.no_grad()
    def _look(self, picture_HW3: ByteArray) -> FloatArray:
        """Probability of foreground on the grid, (P,): of the mean over the picture and its mirror image."""
        both = np.stack([picture_HW3, picture_HW3[:, ::-1]])
        inputs = torch.from_numpy(both).to(self._device).permute(0, 3, 1, 2).float() / 255.0
        logits_2hw = self._network(inputs).cpu().numpy()
        logits_hw = (logits_2hw[0] + logits_2hw[1, :, ::-1]) / 2.0
        resized_hw = cv2.resize(logits_hw, self.grid_hw[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(1.0 / (1.0 + np.exp(LOGIT_SHIFT - resized_hw.astype(np.float64)))).ravel()
