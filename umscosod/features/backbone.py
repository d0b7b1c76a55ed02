"""What every frozen backbone offers (stage 0), whatever is inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from umscosod.types import ByteArray, EncodedImage


class Backbone(Protocol):
    """One pass over an image gives tokens, keys and self-attention (spec A0).

    Attributes
    ----------
    id : str
        Name, weights hash, size, layer, facet and code version: part of every cache key. Equal ids mean equal bits.
    name : str
        What the user typed, for example ``"dino_vits8"``.
    weights_sha256 : str
        Hash of the weight file, or ``""`` where there are no weights.
    dim : int
        Token width D.
    grid_hw : (int, int)
        Patches down and across.
    batch_size : int
        Images that one pass takes in; 1 where they go one by one anyhow. A collection brings that many at a time.
    needs_whitening : bool
        The collection's own statistics must be applied to the tokens before use.
    is_centred : bool
        Tokens of all patches have nothing in common, so that their cosines tell. Whitened tokens are centred anyhow.
    has_attention : bool
        `EncodedImage.attn_AP` is an attention that finds objects. False: it is a first guess, which the group sharpens
        before use and gets as one more channel of its tokens and keys.
    is_label_free : bool
        No person's labels went into it; if some did, reports say so.
    """

    id: str
    name: str
    weights_sha256: str
    dim: int
    grid_hw: tuple[int, int]
    batch_size: int
    needs_whitening: bool
    is_centred: bool
    has_attention: bool
    is_label_free: bool

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Encode RGB images.

        Parameters
        ----------
        images : sequence of ndarray, uint8, (H, W, 3)
            Decoded and upright, at their own sizes.

        Returns
        -------
        list of EncodedImage
            In the order given. An image's encoding must not depend on the others: they may have come from a cache.
        """
        ...
