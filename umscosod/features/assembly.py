"""The features of a group: stacked, whitened and sharpened encodings, each array made when a step first asks for it.

A step of the method looks at some arrays only: the judgement of a mask at the saliency, training at the images it
draws.

Legend: ``N`` images, ``P`` patches, ``D`` token width; ``F`` is D or another feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from umscosod.data.images import square_picture
from umscosod.features.backbone import Backbone, BackbonePair
from umscosod.features.group import (
    KEY_SALIENCY,
    TOKEN_SALIENCY,
    Whitening,
    append_map,
    saliency_from_attention,
    sharpen_saliency,
)
from umscosod.types import ByteArray, EncodedImage, FloatArray, GroupFeatures, GroupTokens, ImageGroup, ImageRef

STREAMS = ("first", "second")
PICTURE = "picture"

Arrays = dict[str, npt.NDArray[Any]]
Read = Callable[[ImageRef, str, str], npt.NDArray[Any]]
"""Gives an array of an image by part and name: part `PICTURE` as `picture_arrays` says, a stream as `stream_arrays`."""


def picture_arrays(picture_HW3: ByteArray, size_px: int) -> Arrays:
    """Name what is kept of a picture: ``picture``, square at network size, and ``size``, its own height and width."""
    return {"picture": square_picture(picture_HW3, size_px), "size": np.asarray(picture_HW3.shape[:2], np.int64)}


def stream_arrays(encoded: EncodedImage) -> Arrays:
    """Name what is kept of an encoding: ``tokens``, ``keys`` and ``attn``."""
    return {"tokens": encoded.tokens_PD, "keys": encoded.keys_PK, "attn": encoded.attn_AP}


class _Lazy:
    """A record with fields that functions make, once, when they are first asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]] | None = None, **fields: Any) -> None:
        for name, value in {**fields, "_makers": dict(makers or {})}.items():
            object.__setattr__(self, name, value)  # frozen for everybody else

    def __getattr__(self, name: str) -> Any:
        """Make a field; called for one that is not there yet."""
        makers = self.__dict__.get("_makers", {})
        if name not in makers:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        object.__setattr__(self, name, makers.pop(name)())
        return getattr(self, name)


class LazyTokens(_Lazy, GroupTokens):
    """Tokens of a group, with lazy arrays."""


class LazyFeatures(_Lazy, GroupFeatures):
    """Features of a group: saliency, pictures and sizes are lazy, and so are the arrays of the streams."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """See `GroupFeatures.size_hw`; one picture is read."""
        pictures_NHW3 = self.take((0,)).pictures_NHW3
        return pictures_NHW3.shape[1], pictures_NHW3.shape[2]

    def take(self, indices: Sequence[int]) -> GroupFeatures:
        """See `GroupFeatures.take`; nothing is read yet, and never more than of these images."""
        features: GroupFeatures = self._take(indices)
        return features


def assemble_group(
    group: ImageGroup,
    read: Read,
    pair: BackbonePair,
    whitenings: Mapping[str, Whitening],
    keep: Callable[[Callable[[], FloatArray]], FloatArray] = lambda make: make(),
) -> GroupFeatures:
    """Stack a group's encodings: whitened and sharpened where the backbone asks for it.

    Parameters
    ----------
    group : ImageGroup
    read : Read
    pair : BackbonePair
        Made the encodings.
    whitenings : mapping of str to Whitening
        By stream, `STREAMS`.
    keep : callable
        Gives what the function that it gets makes; it may remember this group's saliency, which is the work of
        seconds for a large group.

    Returns
    -------
    GroupFeatures
        ``saliency_NP`` is the head mean of the attention, min-maxed per image (spec A1.1); of a backbone without
        attention the map its group agrees on, which becomes a channel of tokens and keys. An array is read when it
        is asked for; `GroupFeatures.take` reads no other images, but for a saliency that the whole group agrees on.
    """
    is_sharpened = not pair.first.has_attention

    def stack(part: str, name: str) -> npt.NDArray[Any]:
        return np.stack([read(image, part, name) for image in group.images])

    def whitened(stream: str) -> FloatArray:
        tokens_NPD = stack(stream, "tokens")
        return whitenings[stream].apply(tokens_NPD) if stream in whitenings else tokens_NPD

    def make_saliency() -> FloatArray:
        saliency_NP = np.stack([saliency_from_attention(attn_AP) for attn_AP in stack("first", "attn")])
        return sharpen_saliency(whitened("first"), saliency_NP, pair.first.grid_hw) if is_sharpened else saliency_NP

    @cache  # lazy fields refer to this function, never to the features: those are freed at once
    def saliency() -> FloatArray:
        return keep(make_saliency)

    def with_map(stack_NPF: FloatArray, stream: str, weight: float) -> FloatArray:
        is_wanted = is_sharpened and stream == "first"
        return append_map(stack_NPF, saliency(), weight) if is_wanted else stack_NPF

    def tokens_of(stream: str, backbone: Backbone) -> GroupTokens:
        return LazyTokens(
            {
                "tokens_NPD": lambda: with_map(whitened(stream), stream, TOKEN_SALIENCY),
                "keys_NPK": lambda: with_map(stack(stream, "keys"), stream, KEY_SALIENCY),
                "attn_NAP": lambda: stack(stream, "attn"),
            },
            grid_hw=backbone.grid_hw,
            backbone_id=backbone.id,
            is_centred=stream in whitenings or backbone.is_centred,
            is_whitened=stream in whitenings,
            has_attention=backbone.has_attention,
        )

    def take(indices: Sequence[int]) -> GroupFeatures:
        part = replace(group, images=tuple(group.images[index] for index in indices))
        if is_sharpened:  # by the whole group
            return assemble_group(part, read, pair, whitenings, lambda _: saliency()[list(indices)])
        return assemble_group(part, read, pair, whitenings)

    first, second = map(tokens_of, STREAMS, pair.both)
    makers: dict[str, Callable[[], Any]] = {
        "saliency_NP": saliency,
        "pictures_NHW3": lambda: stack(PICTURE, "picture"),
        "sizes_hw": lambda: tuple((int(height), int(width)) for height, width in stack(PICTURE, "size")),
    }
    return LazyFeatures(makers, group=group, first=first, second=second, _take=take)
