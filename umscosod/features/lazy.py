"""A group's features whose arrays are read when they are first asked for.

A step of the method looks at some arrays of a group only: a doubt at the saliency, training at the images it draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from umscosod.types import GroupFeatures, GroupTokens, ImageGroup

Array = npt.NDArray[Any]
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
        take: Callable[[Sequence[int]], GroupFeatures] | None = None,
    ) -> LazyFeatures:
        """Make one.

        Parameters
        ----------
        group, first, second
            See `GroupFeatures`.
        makers : mapping of str to callable
            For ``saliency_NP``, ``pictures_NHW3`` and ``sizes_hw``.
        take : callable, optional
            Gives the features of some of the images; None: all arrays are made, then cut.
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
        own = self.__dict__.get("_take")
        pictures_NHW3 = (self if own is None else own((0,))).pictures_NHW3
        return pictures_NHW3.shape[1], pictures_NHW3.shape[2]

    def take(self, indices: Sequence[int]) -> GroupFeatures:
        """See `GroupFeatures.take`; nothing is read yet, and never more than of these images."""
        own = self.__dict__.get("_take")
        return GroupFeatures.take(self, indices) if own is None else own(indices)


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
