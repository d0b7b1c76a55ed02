"""The features of a group: stacked, whitened and sharpened encodings, each array made when a step first asks for it.

A step of the method looks at some arrays only: the judgement of a mask at the saliency, training at the images it
draws.

Legend: ``N`` images, ``P`` patches, ``D`` token width; ``F`` is D or another feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

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

Makers = Mapping[str, Callable[[], Any]]


class LazyTokens(GroupTokens):
    """Tokens of a group by functions that make its arrays, each called once at most."""

    @classmethod
    def of(cls, makers: Makers, *, grid_hw: tuple[int, int], backbone_id: str, **traits: bool) -> LazyTokens:
        """Make one.

        Parameters
        ----------
        makers : mapping of str to callable
            For ``tokens_NPD``, ``keys_NPK`` and ``attn_NAP``.
        grid_hw, backbone_id
            See `GroupTokens`.
        **traits : bool
            The truth values of `GroupTokens`, all of them.
        """
        made = object.__new__(cls)
        _set(made, {"grid_hw": grid_hw, "backbone_id": backbone_id, **traits, "_makers": dict(makers)})
        return made

    @classmethod
    def like(cls, tokens: GroupTokens, makers: Makers) -> LazyTokens:
        """Make one with other arrays than those of `tokens`, and all else the same."""
        traits = {name: getattr(tokens, name) for name in ("is_centred", "is_whitened", "has_attention")}
        return cls.of(makers, grid_hw=tokens.grid_hw, backbone_id=tokens.backbone_id, **traits)

    def __getattr__(self, name: str) -> Any:
        """Make an array; called for a field that is not there yet."""
        return _make(self, name)


class LazyFeatures(GroupFeatures):
    """Features of a group by functions that make its arrays, each called once at most."""

    @classmethod
    def of(
        cls,
        group: ImageGroup,
        first: GroupTokens,
        second: GroupTokens,
        makers: Makers,
        take: Callable[[Sequence[int]], GroupFeatures],
    ) -> LazyFeatures:
        """Make one.

        Parameters
        ----------
        group, first, second
            See `GroupFeatures`.
        makers : mapping of str to callable
            For ``saliency_NP``, ``pictures_NHW3`` and ``sizes_hw``.
        take : callable
            Gives the features of some of the images.
        """
        made = object.__new__(cls)
        _set(made, {"group": group, "first": first, "second": second, "_makers": dict(makers), "_take": take})
        return made

    def __getattr__(self, name: str) -> Any:
        """Make an array; called for a field that is not there yet."""
        return _make(self, name)

    @property
    def size_hw(self) -> tuple[int, int]:
        """See `GroupFeatures.size_hw`; one picture is read."""
        pictures_NHW3 = self.take((0,)).pictures_NHW3
        return pictures_NHW3.shape[1], pictures_NHW3.shape[2]

    def take(self, indices: Sequence[int]) -> GroupFeatures:
        """See `GroupFeatures.take`; nothing is read yet, and never more than of these images."""
        features: GroupFeatures = self.__dict__["_take"](indices)
        return features


def _set(made: object, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        object.__setattr__(made, name, value)  # the classes are frozen for everybody else


def _make(made: object, name: str) -> Any:
    makers = made.__dict__.get("_makers", {})
    if name not in makers:
        raise AttributeError(f"{type(made).__name__!r} object has no attribute {name!r}")
    value = makers.pop(name)()
    object.__setattr__(made, name, value)
    return value


STREAMS = ("first", "second")
PICTURE = "picture"

Read = Callable[[ImageRef, str, str], npt.NDArray[Any]]
"""Gives an array of an image: ``picture`` or ``size`` of `PICTURE`; ``tokens``, ``keys`` or ``attn`` of a stream."""


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

    def array(self, part: str, name: str) -> npt.NDArray[Any]:
        """See `Read`."""
        if part == PICTURE:
            return self.picture_HW3 if name == "picture" else np.asarray(self.size_hw)
        stream = self.streams[STREAMS.index(part)]
        return {"tokens": stream.tokens_PD, "keys": stream.keys_PK, "attn": stream.attn_AP}[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembler:
    """Puts groups together.

    Attributes
    ----------
    pair : BackbonePair
        Made the encodings.
    whitenings : mapping of str to Whitening
        By stream, `STREAMS`.
    """

    pair: BackbonePair
    whitenings: Mapping[str, Whitening]

    def assemble(
        self,
        group: ImageGroup,
        read: Read,
        keep: Callable[[Callable[[], FloatArray]], FloatArray] = lambda make: make(),
    ) -> GroupFeatures:
        """Stack a group's encodings: whitened and sharpened where the backbone asks for it.

        Parameters
        ----------
        group : ImageGroup
        read : Read
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
        return self._assemble(group, read, partial(keep, lambda: self._saliency(group, read)))

    def _assemble(self, group: ImageGroup, read: Read, saliency: Callable[[], FloatArray]) -> GroupFeatures:
        saliency = cache(saliency)  # what is made below refers to this, never to the features: they are freed at once

        def take(indices: Sequence[int]) -> GroupFeatures:
            part = replace(group, images=tuple(group.images[index] for index in indices))
            if not self.pair.first.has_attention:
                return self._assemble(part, read, lambda: saliency()[list(indices)])
            return self._assemble(part, read, lambda: self._saliency(part, read))

        first, second = self._streams(group, read)
        if not self.pair.first.has_attention:
            first = _with_map(first, saliency)
        makers: dict[str, Callable[[], Any]] = {
            "saliency_NP": saliency,
            "pictures_NHW3": lambda: _stack(group, read, PICTURE, "picture"),
            "sizes_hw": lambda: tuple((int(h), int(w)) for h, w in _stack(group, read, PICTURE, "size")),
        }
        return LazyFeatures.of(group, first, second, makers, take)

    def _saliency(self, group: ImageGroup, read: Read) -> FloatArray:
        first, _ = self._streams(group, read)
        saliency_NP = np.stack([saliency_from_attention(attn_AP) for attn_AP in first.attn_NAP])
        if not self.pair.first.has_attention:
            return sharpen_saliency(first.tokens_NPD, saliency_NP, first.grid_hw)
        return saliency_NP

    def _streams(self, group: ImageGroup, read: Read) -> tuple[GroupTokens, GroupTokens]:
        return self._stream(group, read, "first", self.pair.first), self._stream(
            group, read, "second", self.pair.second
        )

    def _stream(self, group: ImageGroup, read: Read, name: str, backbone: Backbone) -> GroupTokens:
        whitening = self.whitenings.get(name)

        def tokens() -> FloatArray:
            tokens_NPD = _stack(group, read, name, "tokens")
            return tokens_NPD if whitening is None else whitening.apply(tokens_NPD)

        return LazyTokens.of(
            {
                "tokens_NPD": tokens,
                "keys_NPK": lambda: _stack(group, read, name, "keys"),
                "attn_NAP": lambda: _stack(group, read, name, "attn"),
            },
            grid_hw=backbone.grid_hw,
            backbone_id=backbone.id,
            is_centred=whitening is not None or backbone.is_centred,
            is_whitened=whitening is not None,
            has_attention=backbone.has_attention,
        )


def assemble_group(group: ImageGroup, encoded: Sequence[EncodedPicture], assembler: Assembler) -> GroupFeatures:
    """Assemble a group of encodings in memory; see `Assembler.assemble`.

    Parameters
    ----------
    group : ImageGroup
    encoded : sequence of EncodedPicture
        One per image of the group, in its order.
    assembler : Assembler
    """
    by_id = {image.id: one for image, one in zip(group.images, encoded, strict=True)}
    return assembler.assemble(group, lambda image, part, name: by_id[image.id].array(part, name))


def _with_map(tokens: GroupTokens, saliency: Callable[[], FloatArray]) -> GroupTokens:
    """Add a map as one more channel of tokens and keys."""
    return LazyTokens.like(
        tokens,
        {
            "tokens_NPD": lambda: append_map(tokens.tokens_NPD, saliency(), TOKEN_SALIENCY),
            "keys_NPK": lambda: append_map(tokens.keys_NPK, saliency(), KEY_SALIENCY),
            "attn_NAP": lambda: tokens.attn_NAP,
        },
    )


def _stack(group: ImageGroup, read: Read, part: str, name: str) -> npt.NDArray[Any]:
    return np.stack([read(image, part, name) for image in group.images])
