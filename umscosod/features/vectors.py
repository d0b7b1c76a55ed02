"""Facets of the streams as unit vectors: what pseudo-label cleaning and the baselines compare of a patch.

Suffixes: ``N`` images, ``P`` patches of the first stream, ``Q`` of the second, ``D K E`` widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeVar, cast

import numpy as np

from umscosod.data.resize import resize_grids
from umscosod.device import map_on_cores
from umscosod.types import FloatArray, GroupFeatures, GroupTokens, IntArray, StreamTokens

Facets = tuple[FloatArray, FloatArray, FloatArray]
_Result = TypeVar("_Result")

_IMAGES = 4  # at a time
_TINY = 1e-6  # relative to the largest vector of the image: shorter ones are rounding of equal patches


def unit_patches(
    tokens: StreamTokens, facet: Literal["keys", "tokens"], centre: Literal["group", "image", "none"]
) -> FloatArray:
    """Take a facet's common part out and bring its vectors to unit length.

    Parameters
    ----------
    tokens : StreamTokens
    facet : {"keys", "tokens"}
        The first stream alone, which is a GroupTokens, has keys.
    centre : {"group", "image", "none"}
        Mean patch taken out first. ``group`` does nothing where it is out already (whitened tokens).

    Returns
    -------
    ndarray, float32, (N, P, D)
        Patches with nothing of their own, as all of a picture of one colour, are zero.

    Examples
    --------
    >>> stack = np.array([[[3.0, 4.0], [0.0, 0.0]]])
    >>> group = GroupTokens(tokens_NPD=stack, keys_NPK=stack, attn_NAP=np.ones((1, 1, 2)), grid_hw=(1, 2),
    ...                     backbone_id="x")
    >>> unit_patches(group, "keys", "none").tolist()
    [[[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]]
    """
    stack_NPD = cast(GroupTokens, tokens).keys_NPK if facet == "keys" else tokens.tokens_NPD
    return _unit_vectors(stack_NPD, tokens, centre)


def _unit_vectors(stack_NPD: FloatArray, tokens: StreamTokens, centre: Literal["group", "image", "none"]) -> FloatArray:
    unit_NPD = stack_NPD.astype(np.float32)
    own_NP = lengths_NP = _lengths(unit_NPD)
    if centre == "group" and not tokens.is_centred:
        unit_NPD -= unit_NPD.mean((0, 1), dtype=np.float64).astype(np.float32)
    if centre == "image":
        unit_NPD -= unit_NPD.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
    if centre != "none":
        own_NP = _lengths(unit_NPD)
    is_own_NP = own_NP > _TINY * lengths_NP.max(axis=1, keepdims=True)
    unit_NPD *= np.divide(1.0, own_NP, out=np.zeros_like(own_NP), where=is_own_NP)[..., None]
    return unit_NPD


def describe_patches(features: GroupFeatures, centre: Literal["group", "image", "none"]) -> Facets:
    """Three facets of each patch: tokens and keys of the first stream, tokens of the second, each of unit length.

    Parameters
    ----------
    features : GroupFeatures
    centre : {"group", "image", "none"}
        As for `unit_patches`; ``none`` where patches of several groups are compared.

    Returns
    -------
    tuple of ndarray, float32, (N, P, D), (N, P, K) and (N, P, E)
        On the first stream's grid; not joined, as that would copy a large group. The second stream's are of unit
        length on a grid of their own, a little shorter where they had to be resized.
    """
    tokens_NPD, keys_NPK, other_NPE = map_on_cores(_call, _facet_makers(features, centre))
    return tokens_NPD, keys_NPK, other_NPE


def facet_channels(features: GroupFeatures) -> int:
    """Channels of all facets of a patch."""
    first, second = features.first, features.second
    return sum(stack.shape[2] for stack in (first.tokens_NPD, first.keys_NPK, second.tokens_NPD))


def map_patches(
    work: Callable[[IntArray, Facets], _Result], features: GroupFeatures, images_I: IntArray | None = None
) -> Iterator[_Result]:
    """Describe patches as `describe_patches` does with ``none``, some images of a group at a time, and work on them.

    What a ViT-S says of an image takes 3.6 MB: a thread holds that of four images.

    Parameters
    ----------
    work : callable
        Gets the places of some images, and their facets; it may run in several threads at once.
    features : GroupFeatures
    images_I : ndarray, int, (I,), optional
        Places of the images that are wanted, ascending; all by default.
    """
    wanted_I = np.arange(len(features.group.images)) if images_I is None else images_I
    blocks = [wanted_I[start : start + _IMAGES] for start in range(0, len(wanted_I), _IMAGES)]
    makers = [_facet_makers(features, "none", _as_slice(block_I)) for block_I in blocks]

    def of_block(number: int) -> _Result:
        tokens_NPD, keys_NPK, other_NPE = map(_call, makers[number])
        return work(blocks[number], (tokens_NPD, keys_NPK, other_NPE))

    return map_on_cores(of_block, range(len(blocks)))


def _as_slice(places_I: IntArray) -> slice | IntArray:
    """Ascending places as a slice, which copies nothing, where they follow one another."""
    first, last = int(places_I[0]), int(places_I[-1])
    return slice(first, last + 1) if last - first + 1 == len(places_I) else places_I


def _call(make: Callable[[], FloatArray]) -> FloatArray:
    return make()


def _facet_makers(
    features: GroupFeatures, centre: Literal["group", "image", "none"], images: slice | IntArray = slice(None)
) -> tuple[Callable[[], FloatArray], ...]:
    """Functions that make the facets. Lazy arrays are read here, in the caller's thread: two might make one twice."""
    first, second = features.first, features.second
    tokens_NPD, keys_NPK, other_NQE = first.tokens_NPD, first.keys_NPK, second.tokens_NPD
    return (
        lambda: _unit_vectors(tokens_NPD[images], first, centre),
        lambda: _unit_vectors(keys_NPK[images], first, centre),
        lambda: _to_grid(_unit_vectors(other_NQE[images], second, centre), second.grid_hw, first.grid_hw),
    )


def _lengths(vectors_NPD: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.einsum("npd,npd->np", vectors_NPD, vectors_NPD)))


def _to_grid(tokens_NQE: FloatArray, grid_hw: tuple[int, int], new_hw: tuple[int, int]) -> FloatArray:
    if grid_hw == new_hw:
        return tokens_NQE
    count, _, width = tokens_NQE.shape
    return resize_grids(tokens_NQE.reshape(count, *grid_hw, width), new_hw).reshape(count, -1, width)


def add_ridge(scatter_DD: FloatArray, ridge: float) -> FloatArray:
    """Add a share of the mean variance to every variance; where there is no scatter at all, the identity."""
    mean = float(np.trace(scatter_DD)) / len(scatter_DD)
    return scatter_DD + (ridge * mean if mean > 0.0 else 1.0) * np.eye(len(scatter_DD))


def fisher_direction(scatter_DD: FloatArray, difference_D: FloatArray, ridge: float) -> FloatArray:
    """Direction of Fisher's linear discriminant of two classes.

    Parameters
    ----------
    scatter_DD : ndarray, float64, (D, D)
        Sum of the two classes' covariances.
    difference_D : ndarray, float64, (D,)
        Of the two means.
    ridge : float
        In mean variances; see `add_ridge`.

    Returns
    -------
    ndarray, float64, (D,)

    Examples
    --------
    >>> fisher_direction(np.diag([1.0, 3.0]), np.array([1.5, 3.5]), 0.25).tolist()
    [1.0, 1.0]
    """
    return np.asarray(np.linalg.solve(add_ridge(scatter_DD, ridge), difference_D))
