"""One vector an image: what its object looks like, apart from what all images of the collection share.

Legend: ``N`` images of the collection, ``P`` patches, ``D`` token width, ``E`` width of a vector.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from umscosod.config import GroupingConfig, PipelineConfig
from umscosod.device import resolve_device
from umscosod.errors import DataError
from umscosod.features.cache import open_cache
from umscosod.features.collection import FeatureCollection
from umscosod.features.registry import build_backbones
from umscosod.features.saliency import saliency_from_attention
from umscosod.features.whitening import fit_whitening
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import FloatArray, GroupFeatures, ImageGroup, ImageRef

logger = logging.getLogger(__name__)

_STREAMS = {"both": (0, 1), "first": (0,), "second": (1,)}
_ROUNDING = 1e-6  # of a vector's length: what is shorter says nothing of the image


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageVectors:
    """A collection's images as points on a sphere.

    Attributes
    ----------
    images : tuple of ImageRef
        Of all groups, in order; only those whose features could be read.
    vectors_NE : ndarray, float32, (N, E)
        Rows of unit length, or zero for an image that says nothing. Their cosine is the mean over the streams.
    failures : dict of str to str
        Reason by image id.
    """

    images: tuple[ImageRef, ...]
    vectors_NE: FloatArray
    failures: dict[str, str] = field(default_factory=dict)


@contextmanager
def encoded_collection(
    groups: Sequence[ImageGroup], config: PipelineConfig, *, progress: ProgressFn = ignore_progress
) -> Iterator[FeatureCollection]:
    """Features of a collection in the cache that the configuration names, or in a passing one.

    Parameters
    ----------
    groups : sequence of ImageGroup
    config : PipelineConfig
        Checked.
    progress : callable
        Stage ``features``.

    Raises
    ------
    UmscosodError
        No weights, an unknown backbone or device, or a full disk.
    """
    pair = build_backbones(config.features, resolve_device(config.device))
    with open_cache(config.features.cache_dir, use_cache=config.features.use_cache) as cache:
        yield FeatureCollection(groups, pair, config, cache, progress=progress)


def embed_images(
    features: FeatureCollection, config: GroupingConfig | None = None, *, progress: ProgressFn = ignore_progress
) -> ImageVectors:
    """Describe every image by the mean of its patch tokens, weighted by its attention.

    Tokens are whitened first, by the statistics of all patches of the collection: a few directions carry most of the
    variance of a ViT's tokens and are the same in all pictures. The means are centred over the collection and scaled
    to unit length, per stream; two streams count alike.

    Parameters
    ----------
    features : FeatureCollection
        Its grouping plays no part: every image is looked at by itself.
    config : GroupingConfig, optional
    progress : callable
        Called once per image and stream as stage ``embed``.

    Returns
    -------
    ImageVectors
        No rows for an empty collection.
    """
    config = config or GroupingConfig()
    images = [image for group in features.groups for image in group.images]
    streams = _STREAMS[config.stream]
    failures: dict[str, str] = dict(features.failures)
    done = 0
    means: list[dict[str, FloatArray]] = []

    def iter_tokens(stream: int, found: dict[str, FloatArray]) -> Iterator[FloatArray]:
        """Yield each image's tokens, and note their weighted mean on the way: one pass serves both."""
        nonlocal done
        for image in images:
            progress(done, len(images) * len(streams), "embed")
            done += 1
            try:
                one = features.load(ImageGroup(name=image.id, images=(image,)))
            except DataError as error:  # vanished or changed since it was encoded
                failures[image.id] = str(error)
                logger.warning("%s: left out: %s", image.id, error)
                continue
            tokens_PD, weights_P = _read_stream(one, stream)
            found[image.id] = pool_tokens(tokens_PD, weights_P**config.attention_power)
            yield tokens_PD

    for stream in streams:
        found: dict[str, FloatArray] = {}
        tokens = iter_tokens(stream, found)
        if (first := next(tokens, None)) is not None:
            whitening = fit_whitening(chain([first], tokens), config.shrinkage)
            # a mean of whitened tokens is the whitened mean
            found = {name: whitening.apply(mean_D) for name, mean_D in found.items()}
        means.append(found)
    progress(done, len(images) * len(streams), "embed")
    kept = tuple(image for image in images if all(image.id in found for found in means))
    if not kept:
        return ImageVectors(images=(), vectors_NE=np.zeros((0, 1), np.float32), failures=failures)
    parts = [unit_rows(_centred(np.stack([found[image.id] for image in kept]))) for found in means]
    vectors_NE = unit_rows(np.concatenate(parts, 1)).astype(np.float32)
    return ImageVectors(images=kept, vectors_NE=vectors_NE, failures=failures)


def pool_tokens(tokens_PD: FloatArray, weights_P: FloatArray) -> FloatArray:
    """Average tokens by weight; where all weights are zero, plainly.

    Parameters
    ----------
    tokens_PD : ndarray, float, (P, D)
    weights_P : ndarray, float, (P,), >= 0

    Returns
    -------
    ndarray, float64, (D,)

    Examples
    --------
    >>> tokens = np.array([[4.0, 0.0], [0.0, 8.0]])
    >>> pool_tokens(tokens, np.array([3.0, 1.0])).tolist(), pool_tokens(tokens, np.zeros(2)).tolist()
    ([3.0, 2.0], [2.0, 4.0])
    """
    weights = np.asarray(weights_P, np.float64)
    total = weights.sum()
    if total <= 0.0:
        return np.asarray(np.asarray(tokens_PD, np.float64).mean(0))
    return np.asarray(weights @ np.asarray(tokens_PD, np.float64) / total)


def unit_rows(rows_NE: FloatArray) -> FloatArray:
    """Scale rows to unit length; rows of no length stay zero.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    wide = np.asarray(rows_NE, np.float64)
    length_N1 = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(np.where(length_N1 > _ROUNDING, wide / np.maximum(length_N1, _ROUNDING), 0.0))


def _centred(rows_NE: FloatArray) -> FloatArray:
    wide = np.asarray(rows_NE, np.float64)
    return np.asarray(wide - wide.mean(0))


def _read_stream(one: GroupFeatures, stream: int) -> tuple[FloatArray, FloatArray]:
    """Tokens and attention in [0, 1] of a group of one, on that stream's own grid."""
    if stream == 0:
        return one.first.tokens_NPD[0], one.saliency_NP[0].astype(np.float64)
    weights_P = saliency_from_attention(one.second.attn_NAP[0]).astype(np.float64)
    return one.second.tokens_NPD[0], weights_P
