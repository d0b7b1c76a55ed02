"""The features of a group: stacked, whitened and sharpened encodings, each array made when a step first asks for it.

A step of the method looks at some arrays only: the judgement of a mask at the saliency, training at the images it
draws.

Legend: ``N`` images, ``P`` patches, ``D`` token width, ``A`` attention heads; ``F`` is D or another feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_otsu

from umscosod.data.images import square_picture
from umscosod.errors import CheckpointError, DataError, shorten
from umscosod.features.backbone import Backbone, BackbonePair
from umscosod.features.embedded import centre_prior
from umscosod.features.vectors import fisher_direction
from umscosod.types import (
    BoolArray,
    ByteArray,
    EncodedImage,
    FloatArray,
    GroupFeatures,
    GroupTokens,
    ImageGroup,
    ImageRef,
    StreamTokens,
)

SHRINKAGE = 1e-3  # added to every variance when tokens are whitened, in mean variances
# How the contrast of `embedded` becomes a map that the group agrees on, and a channel of its tokens and keys.
CENTRE_POWER = 0.25  # exponent of the centre prior on the sharpened map
SHARPEN_ROUNDS = 3  # refits of the linear foreground classifier
IMAGE_WEIGHT = 0.6  # of the classifier fitted to the image itself, against the one of the whole group
GROUP_RIDGE = 0.1  # of the group's classifier, in mean variances
IMAGE_RIDGE = 0.3  # of an image's classifier, in mean variances
SLOPE = 2.0  # steepness of the sigmoid over the standardised discriminant
LEARNT_WEIGHT = 0.15  # of a network's map in the discriminant, where the backbone brings one
SMOOTH_CELLS = 1.0  # Gaussian smoothing of the discriminant, in cells
TOKEN_SALIENCY = 6.0  # weight of the map as one more token channel: groups masks by what they are
KEY_SALIENCY = 3.0  # weight of the map as one more key channel: regions end at its borders

_LARGEST = 1e18  # the product of two such numbers is still one of float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Whitening:
    """A symmetric (ZCA) whitening: channels keep their meaning from one collection to the next.

    Attributes
    ----------
    mean_D : ndarray, float64, (D,)
    matrix_DD : ndarray, float64, (D, D)
    """

    mean_D: FloatArray
    matrix_DD: FloatArray

    def apply(self, tokens_PD: FloatArray) -> FloatArray:
        """Centre and whiten tokens; any leading shape, float32 out."""
        centred_PD = tokens_PD.astype(np.float32) - self.mean_D.astype(np.float32)
        return np.asarray(centred_PD @ self.matrix_DD.astype(np.float32))

    def to_json(self) -> dict[str, object]:
        """Give plain lists, for a checkpoint's metadata."""
        return {"mean": self.mean_D.tolist(), "matrix": self.matrix_DD.tolist()}

    @classmethod
    def from_json(cls, data: Any) -> Whitening:
        """Read what `to_json` wrote, or refuse what else a file may hold.

        Raises
        ------
        CheckpointError
            The arrays are missing, hold what is no finite number, or their shapes disagree.
        """
        if not isinstance(data, dict):
            raise CheckpointError(f"whitening in the checkpoint is damaged: it holds {shorten(data)}; train again")
        try:
            mean_D, matrix_DD = (_as_numbers(data[name]) for name in ("mean", "matrix"))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(f"whitening in the checkpoint is damaged: {reason}; train again") from None
        if mean_D.ndim != 1 or matrix_DD.shape != (len(mean_D), len(mean_D)):
            raise CheckpointError(
                f"whitening in the checkpoint is damaged: mean {mean_D.shape}, matrix {matrix_DD.shape}; train again"
            )
        if not max(np.abs(mean_D).max(initial=0), np.abs(matrix_DD).max(initial=0)) <= _LARGEST:  # NaN is not
            raise CheckpointError("whitening in the checkpoint is damaged: it holds NaN or infinity; train again")
        if not ((np.diagonal(matrix_DD) > 0).all() and np.allclose(matrix_DD, matrix_DD.T)):
            raise CheckpointError("whitening in the checkpoint is damaged: its matrix is no whitening; train again")
        return cls(mean_D=mean_D, matrix_DD=matrix_DD)


def _as_numbers(values: object) -> FloatArray:
    """Turn nested lists of numbers into float64; numpy would read text and truth values as numbers too."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise ValueError("it holds what is no number")
    return array.astype(np.float64)


Moments = tuple[int, FloatArray, FloatArray]
"""Of tokens: how many, their sum (D,) and the sum of their products (D, D), float64."""


def token_moments(tokens_PD: FloatArray) -> Moments:
    """What a whitening needs to know of an image's tokens, (P, D)."""
    wide_PD = tokens_PD.astype(np.float64)
    return len(wide_PD), wide_PD.sum(0), wide_PD.T @ wide_PD


def fit_whitening(token_arrays: Iterable[FloatArray], shrinkage: float = SHRINKAGE) -> Whitening:
    """Fit a whitening to a stream of token arrays.

    See `umscosod.features.group.whiten_moments`.

    Parameters
    ----------
    token_arrays : iterable of ndarray, (P, D)
        One array per image; P may differ. At least one.
    shrinkage : float, > 0
        Added to every variance, in mean variances: channels that never vary must not explode.

    Returns
    -------
    Whitening

    Examples
    --------
    >>> import numpy as np
    >>> fitted = fit_whitening([np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, -1.0], [0.0, 1.0]])], shrinkage=1e-3)
    >>> fitted.mean_D.tolist()
    [0.0, 0.0]
    >>> np.round(fitted.matrix_DD, 2).tolist()  # variances 2 and 0.5
    [[0.71, 0.0], [0.0, 1.41]]
    """
    return whiten_moments(map(token_moments, token_arrays), shrinkage)


def whiten_moments(moments: Iterable[Moments], shrinkage: float = SHRINKAGE) -> Whitening:
    """Fit a whitening to the moments of images, added one by one: their order decides the last bits.

    Parameters
    ----------
    moments : iterable of Moments
        At least one, see `token_moments`.
    shrinkage : float, > 0
        As for `fit_whitening`.

    Returns
    -------
    Whitening
    """
    count = 0
    total: FloatArray = np.zeros(())
    squares: FloatArray = np.zeros(())
    for number, sum_D, products_DD in moments:
        count += number
        total = total + sum_D
        squares = squares + products_DD
    mean_D = total / count
    covariance_DD = squares / count - np.outer(mean_D, mean_D)
    values, vectors = np.linalg.eigh(covariance_DD)
    values = np.maximum(values, 0.0)
    floor = shrinkage * values.mean() if values.mean() > 0 else 1.0
    matrix_DD = (vectors / np.sqrt(values + floor)) @ vectors.T
    return Whitening(mean_D=mean_D, matrix_DD=matrix_DD)


_ROUNDING = 1e-9  # of a discriminant in standard deviations: equal patches may differ by so much
_TINY_CHANCE = 1e-4
_LARGEST_LOGIT = 4.0  # of a network's map: what is surer tells no more
_LARGEST_EXPONENT = 700.0  # of exp in float64


def sharpen_saliency(
    tokens_NPD: FloatArray,
    saliency_NP: FloatArray,
    grid_hw: tuple[int, int],
    learnt_NP: FloatArray | None = None,
) -> FloatArray:
    """Turn contrast to the border into a foreground map that the group agrees on.

    Each round splits every map at Otsu's threshold, fits a linear discriminant to the patches of the whole group and
    one to each image's own, and maps the mixture of both through a sigmoid under a weak centre prior.

    Parameters
    ----------
    tokens_NPD : ndarray, float32, (N, P, D)
        Whitened tokens.
    saliency_NP : ndarray, float, (N, P), in [0, 1]
    grid_hw : (int, int)
    learnt_NP : ndarray, float, (N, P), in [0, 1], optional
        What a network finds in each image: its logits have the share `LEARNT_WEIGHT` of every round's discriminant.

    Returns
    -------
    ndarray, float32, (N, P), in [0, 1]
        Min-maxed per image. All zero where nothing tells one patch of an image from another: the centre prior alone
        is no evidence.
    """
    prior_P = centre_prior(grid_hw) ** CENTRE_POWER
    current_NP = minmax(saliency_NP.astype(np.float64))
    for _ in range(SHARPEN_ROUNDS):
        levels = [threshold_otsu(map_P) if np.ptp(map_P) > 0 else map_P.max() for map_P in current_NP]
        foreground_NP = current_NP > np.array(levels)[:, None]
        score_NP = _standardise(_discriminant(tokens_NPD, foreground_NP, GROUP_RIDGE))
        own_NP = np.stack(
            [
                _standardise(_discriminant(tokens_NPD[i : i + 1], foreground_NP[i : i + 1], IMAGE_RIDGE))[0]
                for i in range(len(tokens_NPD))
            ]
        )
        mixed_NP = (1.0 - IMAGE_WEIGHT) * score_NP + IMAGE_WEIGHT * own_NP
        if learnt_NP is not None:
            mixed_NP = (1.0 - LEARNT_WEIGHT) * mixed_NP + LEARNT_WEIGHT * _standardise(_logits(learnt_NP))
        smooth_NP = np.stack(
            [cv2.GaussianBlur(score_P.reshape(grid_hw), (0, 0), SMOOTH_CELLS).ravel() for score_P in mixed_NP]
        )
        tells_apart_N1 = np.ptp(smooth_NP, -1, keepdims=True) > _ROUNDING
        exponent_NP = np.minimum(-SLOPE * smooth_NP, _LARGEST_EXPONENT)
        current_NP = minmax(np.where(tells_apart_N1, prior_P / (1.0 + np.exp(exponent_NP)), 0.0))
    return current_NP.astype(np.float32)


def _logits(map_NP: FloatArray) -> FloatArray:
    """Logits of probabilities, within `_LARGEST_LOGIT` on both sides."""
    bounded_NP = np.clip(map_NP.astype(np.float64), _TINY_CHANCE, 1.0 - _TINY_CHANCE)
    return np.asarray(np.clip(np.log(bounded_NP / (1.0 - bounded_NP)), -_LARGEST_LOGIT, _LARGEST_LOGIT))


def append_map(stack_NPF: FloatArray, saliency_NP: FloatArray, weight: float) -> FloatArray:
    """Add the map, scaled to [-weight, weight], as one more channel; float32, (N, P, F + 1)."""
    channel_NP1 = (2.0 * saliency_NP[..., None] - 1.0).astype(np.float32)
    return np.concatenate([stack_NPF, weight * channel_NP1], 2)


def minmax(maps_NP: FloatArray) -> FloatArray:
    """Stretch every row to [0, 1]; a constant row becomes zero.

    Examples
    --------
    >>> import numpy as np
    >>> minmax(np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]])).tolist()
    [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]
    """
    low_N1 = maps_NP.min(-1, keepdims=True)
    span_N1 = maps_NP.max(-1, keepdims=True) - low_N1
    return np.asarray((maps_NP - low_N1) / np.where(span_N1 > 0, span_N1, 1.0))


def _discriminant(tokens_NPF: FloatArray, foreground_NP: BoolArray, ridge: float) -> FloatArray:
    """Fisher's linear discriminant of foreground against background, zero between the two means; (N, P)."""
    rows_RF = tokens_NPF.reshape(-1, tokens_NPF.shape[-1]).astype(np.float64)
    chosen_R = foreground_NP.ravel()
    if chosen_R.all() or not chosen_R.any():
        return np.zeros(foreground_NP.shape)
    front_RF, back_RF = rows_RF[chosen_R], rows_RF[~chosen_R]
    front_F, back_F = front_RF.mean(0), back_RF.mean(0)
    scatter_FF = _covariance(front_RF, front_F) + _covariance(back_RF, back_F)
    direction_F = fisher_direction(scatter_FF, front_F - back_F, ridge)
    return np.asarray((rows_RF - (front_F + back_F) / 2.0) @ direction_F).reshape(foreground_NP.shape)


def _covariance(rows_RF: FloatArray, mean_F: FloatArray) -> FloatArray:
    centred = rows_RF - mean_F
    return np.asarray(centred.T @ centred / len(rows_RF))


def _standardise(score_NP: FloatArray) -> FloatArray:
    """Divide by the deviation over all rows at once; the zero between the classes stays."""
    deviation = float(score_NP.std())
    return np.asarray(score_NP / deviation) if deviation > 0 else score_NP


def saliency_from_attention(attn_AP: FloatArray) -> FloatArray:
    """Average the heads and stretch to the full range.

    Parameters
    ----------
    attn_AP : ndarray, float, (A, P), >= 0

    Returns
    -------
    ndarray, float32, (P,), in [0, 1]
        All zeros where the mean is constant: such a map prefers no patch.

    Raises
    ------
    DataError
        Wrong rank, or NaN or infinity.

    Examples
    --------
    >>> saliency_from_attention(np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 6.0]])).tolist()
    [0.0, 0.25, 1.0]
    """
    if attn_AP.ndim != 2 or attn_AP.size == 0 or not np.isfinite(attn_AP).all():
        raise DataError(f"attention must be finite and (heads, patches), got shape {attn_AP.shape}")
    return minmax(np.asarray(attn_AP, dtype=np.float64).mean(axis=0)).astype(np.float32)


STREAMS = ("first", "second")
PICTURE = "picture"

Arrays = dict[str, npt.NDArray[Any]]
Read = Callable[[ImageRef, str, str], npt.NDArray[Any]]
"""Gives an array of an image by part and name: part `PICTURE` as `picture_arrays` says, a stream as `stream_arrays`."""


def picture_arrays(picture_HW3: ByteArray, size_px: int) -> Arrays:
    """Name what is kept of a picture: ``picture``, square at network size, and ``size``, its own height and width."""
    return {"picture": square_picture(picture_HW3, size_px), "size": np.asarray(picture_HW3.shape[:2], np.int64)}


def stream_arrays(encoded: EncodedImage, stream: str) -> Arrays:
    """Name what is kept of an encoding: ``tokens``, ``attn``, and of the first stream ``keys``."""
    kept = {"tokens": encoded.tokens_PD, "attn": encoded.attn_AP}
    return kept if stream == "second" else kept | {"keys": encoded.keys_PK}


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


class LazyStream(_Lazy, StreamTokens):
    """The second stream of a group, with lazy arrays."""


class LazyTokens(_Lazy, GroupTokens):
    """The first stream of a group, with lazy arrays."""


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


def _head_means(attn_NAP: FloatArray) -> FloatArray:
    return np.stack([saliency_from_attention(attn_AP) for attn_AP in attn_NAP])


def _sharpened(attn_NAP: FloatArray, tokens_NPD: FloatArray, grid_hw: tuple[int, int]) -> FloatArray:
    """Sharpen the first guess of a backbone without attention; a second row is the map of a network."""
    learnt_NP = attn_NAP[:, 1] if attn_NAP.shape[1] > 1 else None
    return sharpen_saliency(tokens_NPD, _head_means(attn_NAP), grid_hw, learnt_NP)


def _facts(stream: str, backbone: Backbone, whitenings: Mapping[str, Whitening]) -> dict[str, Any]:
    """What is known of a stream without reading it."""
    is_whitened = stream in whitenings
    return {
        "grid_hw": backbone.grid_hw,
        "backbone_id": backbone.id,
        "is_centred": is_whitened or backbone.is_centred,
        "is_whitened": is_whitened,
        "has_attention": backbone.has_attention,
    }


def assemble(
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
        attn_NAP = stack("first", "attn")
        return _sharpened(attn_NAP, whitened("first"), pair.first.grid_hw) if is_sharpened else _head_means(attn_NAP)

    @cache  # lazy fields refer to this function, never to the features: those are freed at once
    def saliency() -> FloatArray:
        return keep(make_saliency)

    def with_map(stack_NPF: FloatArray, weight: float) -> FloatArray:
        return append_map(stack_NPF, saliency(), weight) if is_sharpened else stack_NPF

    first = LazyTokens(
        {
            "tokens_NPD": lambda: with_map(whitened("first"), TOKEN_SALIENCY),
            "keys_NPK": lambda: with_map(stack("first", "keys"), KEY_SALIENCY),
            "attn_NAP": lambda: stack("first", "attn"),
        },
        **_facts("first", pair.first, whitenings),
    )
    second = LazyStream(
        {"tokens_NPD": lambda: whitened("second"), "attn_NAP": lambda: stack("second", "attn")},
        **_facts("second", pair.second, whitenings),
    )

    def take(indices: Sequence[int]) -> GroupFeatures:
        part = replace(group, images=tuple(group.images[index] for index in indices))
        if is_sharpened:  # by the whole group
            return assemble(part, read, pair, whitenings, lambda _: saliency()[list(indices)])
        return assemble(part, read, pair, whitenings)

    makers: dict[str, Callable[[], Any]] = {
        "saliency_NP": saliency,
        "pictures_NHW3": lambda: stack(PICTURE, "picture"),
        "sizes_hw": lambda: tuple((int(height), int(width)) for height, width in stack(PICTURE, "size")),
    }
    return LazyFeatures(makers, group=group, first=first, second=second, _take=take)
