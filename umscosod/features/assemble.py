"""From encoded images to what the stages see of a group: whitened, sharpened, stacked.

Legend: ``N`` images, ``P`` patches, ``D`` token width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from umscosod.config import EmbeddedConfig
from umscosod.features.registry import BackbonePair
from umscosod.features.saliency import saliency_from_attention
from umscosod.features.sharpen import append_saliency, sharpen_saliency
from umscosod.features.whitening import Whitening
from umscosod.types import ByteArray, EncodedImage, FloatArray, GroupFeatures, GroupTokens, ImageGroup

STREAMS = ("first", "second")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPicture:
    """One image, encoded by both backbones.

    Attributes
    ----------
    picture_HW3 : ndarray, uint8, (size_px, size_px, 3)
    size_hw : (int, int)
        Own height and width of the image.
    streams : (EncodedImage, EncodedImage)
    """

    picture_HW3: ByteArray
    size_hw: tuple[int, int]
    streams: tuple[EncodedImage, EncodedImage]


def assemble_group(
    group: ImageGroup,
    encoded: Sequence[EncodedPicture],
    pair: BackbonePair,
    whitenings: Mapping[str, Whitening],
    config: EmbeddedConfig,
) -> GroupFeatures:
    """Stack a group's encodings: whitened and sharpened where the backbone asks for it.

    Parameters
    ----------
    group : ImageGroup
    encoded : sequence of EncodedPicture
        One per image of the group, in its order.
    pair : BackbonePair
        Made the encodings.
    whitenings : mapping of str to Whitening
        By stream, `STREAMS`.
    config : EmbeddedConfig

    Returns
    -------
    GroupFeatures
        ``saliency_NP`` is the head mean of the attention, min-maxed per image (spec A1.1); for ``embedded`` the map
        its group agrees on.
    """
    first, second = (
        _stack([one.streams[index] for one in encoded], backbone.id, whitenings.get(STREAMS[index]))
        for index, backbone in enumerate((pair.first, pair.second))
    )
    saliency_NP = np.stack([saliency_from_attention(attn_AP) for attn_AP in first.attn_NAP])
    if pair.first.needs_whitening:
        saliency_NP = sharpen_saliency(first.tokens_NPD, saliency_NP, first.grid_hw, config)
        first = append_saliency(first, saliency_NP, config)
    return GroupFeatures(
        group=group,
        first=first,
        second=second,
        saliency_NP=saliency_NP,
        pictures_NHW3=np.stack([one.picture_HW3 for one in encoded]),
        sizes_hw=tuple(one.size_hw for one in encoded),
    )


def _stack(encoded: Sequence[EncodedImage], backbone_id: str, whitening: Whitening | None) -> GroupTokens:
    tokens_NPD: FloatArray = np.stack([one.tokens_PD for one in encoded])
    return GroupTokens(
        tokens_NPD=tokens_NPD if whitening is None else whitening.apply(tokens_NPD),
        keys_NPK=np.stack([one.keys_PK for one in encoded]),
        attn_NAP=np.stack([one.attn_AP for one in encoded]),
        grid_hw=encoded[0].grid_hw,
        backbone_id=backbone_id,
        is_centred=whitening is not None,
    )
