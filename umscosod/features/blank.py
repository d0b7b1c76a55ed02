"""Stand-in for a backbone where no token is looked at: no weights are read and nothing is encoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from umscosod.features.registry import BackbonePair
from umscosod.types import ByteArray, EncodedImage


class BlankBackbone:
    """One empty patch an image; see `umscosod.features.backbone.Backbone`.

    For work that needs a collection's pictures and sizes only, such as thresholding stored maps again.
    """

    id = "none"
    name = "none"
    weights_sha256 = ""
    dim = 1
    grid_hw = (1, 1)
    needs_whitening = False

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Give every image one patch of zeros."""
        blank_11 = np.zeros((1, 1), np.float16)
        return [
            EncodedImage(tokens_PD=blank_11, keys_PK=blank_11, attn_AP=blank_11, grid_hw=self.grid_hw) for _ in images
        ]


def blank_pair() -> BackbonePair:
    """Two blank streams, and a note that says so."""
    note = "backbones: none, as no setting looks at features"
    return BackbonePair(first=BlankBackbone(), second=BlankBackbone(), notes=(note,))
