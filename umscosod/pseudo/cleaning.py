"""Pseudo-labels cleaned: by their group, and over the collection by a linear probe.

A pseudo-label is a union of clusters: it takes whole regions or none, and what surrounds an object often comes with
it. Two cues that know nothing of the clusters disagree there: a patch unlike its picture's border is rarely
background, and a patch nearer to what all labels of the group cover than to what they leave out belongs to the
object that recurs. Their product keeps what both vouch for.

A label errs per picture: a cluster too many, an object half taken. A linear classifier of frozen patches, fitted to
the labels of the whole collection under a strong ridge, is too stiff to learn such faults. Every group's background
is negative for it, so that sky and grass, common to all groups, are pushed away in each. Its file is safetensors:
``mean`` and ``weights``, float64, (F,), ``bias`` and ``spread``, float64, (1,). The metadata has one entry, as the
order of several is not fixed and a resumed job must end with the same bytes.

Suffixes: ``N`` images of the group, ``P`` patches, ``B`` patches on the border, ``D`` token width, ``h w`` the grid,
``M`` patches drawn, ``F`` width of the patch description.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.optimize import minimize

from umscosod.config import PipelineConfig, PseudoConfig
from umscosod.data.blend import sigmoid
from umscosod.data.files import open_atomic
from umscosod.data.resize import mask_share, resize_centred
from umscosod.device import count_threads, numpy_generator, one_blas_thread
from umscosod.errors import CheckpointError, shorten
from umscosod.features.collection import FeatureCollection
from umscosod.features.group import minmax
from umscosod.features.vectors import Facets, describe_patches, facet_channels, map_patches
from umscosod.pseudo.store import HUMAN_SOURCE
from umscosod.types import FloatArray, GroupFeatures, ImageGroup, IntArray, PseudoLabel

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

CLEAN_GAIN = 4.0  # steepness of a cleaned map about 0.5: how much of it DenseCRF takes as settled
CLEAN_ROUNDS = 2  # prototypes of what the labels cover, then of what the maps before cover
PROBE_PATCHES = 15_000  # patches of the collection the probe is fitted on, drawn at random
RIDGE = 0.5  # for patches of unit variance: the stiffer, the less the probe copies faults of labels
# Steepness of the probe's maps, per standard deviation of its logits: how much of a map DenseCRF takes as settled.
SLOPE = 12.0  # on a ViT
SLOPE_WHITENED = 0.6  # on tokens whitened over the collection (embedded), which tell less and leave more to colours

_BLOCK = 512  # patches: fewer, and threads would rather wait for each other
_STEPS_KEPT = 20  # of L-BFGS, by which it knows the curvature
_SETTLED = 1e-6  # largest slope of the loss at which the fit is done
_UNSETTLED = 1e-3  # largest slope that is no failure


def clean_labels(
    features: GroupFeatures, labels: Mapping[str, PseudoLabel], config: PseudoConfig
) -> dict[str, PseudoLabel]:
    """Replace the pseudo-labels of a group by soft maps that the group agrees on.

    Parameters
    ----------
    features : GroupFeatures
    labels : mapping of str to PseudoLabel
        By image id; images without one stay without, but get no say either.
    config : PseudoConfig
        Reads ``clean``.

    Returns
    -------
    dict of str to PseudoLabel
        With ``is_map`` set, on the token grid; the mask is where the map reaches 0.5. A person's label stays as it
        is, and so does every label where ``clean`` is none, where ``auto`` finds tokens whose attention has been
        fitted to the group already (``embedded``), or where the labels cover all or nothing of the group.

    References
    ----------
    Border contrast: Wei, Wen, Zhu and Sun, "Geodesic Saliency Using Background Priors", ECCV 2012
    (DOI 10.1007/978-3-642-33712-3_3), here on tokens. Prototypes: masked average pooling as in eq. 8.
    """
    own = {image.id: labels[image.id] for image in features.group.images if image.id in labels}
    if config.clean == "none" or (config.clean == "auto" and not features.first.has_attention) or not own:
        return own
    facets, grid_hw = describe_patches(features, "group"), features.first.grid_hw
    chosen = [i for i, image in enumerate(features.group.images) if image.id in own]
    kept = [own[features.group.images[i].id] for i in chosen]
    label_NP = cover_NP = np.stack([mask_share(label.mask_hw, grid_hw).ravel() for label in kept])
    is_human_N1 = np.array([[label.source == HUMAN_SOURCE] for label in kept])
    if not 0.0 < cover_NP.mean() < 1.0:
        return own
    contrast_NP = token_contrast(facets[0], grid_hw)
    labelled = facets if len(chosen) == len(facets[0]) else tuple(facet[chosen] for facet in facets)
    maps_NP = np.zeros_like(contrast_NP)
    for _ in range(CLEAN_ROUNDS):
        nearness = [prototype_nearness(facet, part, cover_NP) for facet, part in zip(facets, labelled, strict=True)]
        nearness_NP = minmax(np.sum(nearness, axis=0))
        product_NP = minmax(contrast_NP * nearness_NP)
        maps_NP = np.clip(0.5 + CLEAN_GAIN * (product_NP - 0.5), 0.0, 1.0)
        cover_NP = np.where(is_human_N1, label_NP, maps_NP[chosen])
    cleaned = {}
    for i, label in zip(chosen, kept, strict=True):
        map_hw = maps_NP[i].reshape(grid_hw).astype(np.float32)
        if label.source != HUMAN_SOURCE:
            label = replace(label, map_hw=map_hw, mask_hw=map_hw >= 0.5, is_map=True)
        cleaned[label.image_id] = label
    return cleaned


def token_contrast(tokens_NPD: FloatArray, grid_hw: tuple[int, int]) -> FloatArray:
    """How unlike its own picture's border each patch is: 1 - mean cosine, min-maxed per image.

    Parameters
    ----------
    tokens_NPD : ndarray, float, (N, P, D)
        Of unit length.
    grid_hw : (int, int)

    Returns
    -------
    ndarray, float64, (N, P), in [0, 1]
        All zero for an image whose patches are all alike.

    Examples
    --------
    >>> tokens = np.array([[[1.0, 0.0]] * 4 + [[0.0, 1.0]] + [[1.0, 0.0]] * 4])  # 3 x 3, the middle differs
    >>> token_contrast(tokens, (3, 3)).reshape(3, 3).tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    is_border_hw = np.ones(grid_hw, bool)
    is_border_hw[1:-1, 1:-1] = False
    border_NBD = tokens_NPD[:, is_border_hw.ravel()]
    # the mean of cosines is the cosine sum with the mean: P x B is never made
    return minmax(1.0 - np.einsum("npd,nd->np", tokens_NPD, border_NBD.mean(1), dtype=np.float64))


def prototype_nearness(tokens_NPD: FloatArray, labelled_NPD: FloatArray, cover_NP: FloatArray) -> FloatArray:
    """How much nearer each patch is to what the labels cover than to what they leave out, min-maxed per image.

    Parameters
    ----------
    tokens_NPD : ndarray, float, (N, P, D)
        Of unit length.
    labelled_NPD : ndarray, float, (M, P, D)
        Those of the images that have a label.
    cover_NP : ndarray, float, (M, P), in [0, 1]
        Share of each patch that the label covers.

    Returns
    -------
    ndarray, float64, (N, P), in [0, 1]
        Difference of the cosines with the two prototypes.
    """
    weights = np.stack([cover_NP, 1.0 - cover_NP], axis=1).astype(labelled_NPD.dtype)
    # products in the tokens' own precision: a copy of a large group in float64 takes longer than they do
    front_D, back_D = (weights @ labelled_NPD).sum(0, dtype=np.float64)
    difference_D = (_unit(front_D) - _unit(back_D)).astype(tokens_NPD.dtype)
    return minmax((tokens_NPD @ difference_D).astype(np.float64))


def _unit(vector_D: FloatArray) -> FloatArray:
    length = float(np.linalg.norm(vector_D))
    return vector_D / length if length > 0 else vector_D


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeSample:
    """Patches drawn from a group to fit the probe on.

    Attributes
    ----------
    patches_MF : ndarray, float32, (M, F)
        From `describe_patches`.
    targets_M : ndarray, float32, (M,), in [0, 1]
        Their labels.
    weights_M : ndarray, float32, (M,), in [0, 1]
        Confidence of the label they come from.
    """

    patches_MF: FloatArray
    targets_M: FloatArray
    weights_M: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearProbe:
    """Logistic regression on patches: logit = (x - mean) . weights + bias.

    Attributes
    ----------
    mean_F, weights_F : ndarray, float64, (F,)
    bias : float
    spread : float
        Standard deviation of the logits over the patches it was fitted on; above 0.
    """

    mean_F: FloatArray
    weights_F: FloatArray
    bias: float
    spread: float


def draw_sample(
    features: GroupFeatures, labels: Mapping[str, PseudoLabel], count: int, seed: int
) -> ProbeSample | None:
    """Draw patches of a group's labelled images, evenly at random.

    Parameters
    ----------
    features : GroupFeatures
    labels : mapping of str to PseudoLabel
        By image id.
    count : int
        Patches wanted; fewer where the group has no more.
    seed : int

    Returns
    -------
    ProbeSample or None
        None where no image has a label of positive confidence.

    Notes
    -----
    Patches are drawn by an image's place in the group: other places draw others, where `count` leaves any out.
    """
    chosen = [
        (index, label)
        for index, image in enumerate(features.group.images)
        if (label := labels.get(image.id)) is not None and label.confidence > 0.0
    ]
    if not chosen:
        return None
    indices, kept = zip(*chosen, strict=True)
    grid_hw = features.first.grid_hw
    patches = grid_hw[0] * grid_hw[1]
    drawn = np.sort(numpy_generator(seed, "probe", features.group.name).permutation(len(chosen) * patches)[:count])
    image_M, patch_M = drawn // patches, drawn % patches
    index_M = np.asarray(indices)[image_M]
    targets_NP = np.stack([resize_centred(label.map_hw, grid_hw).ravel() for label in kept])
    patches_MF = np.empty((len(drawn), facet_channels(features)), np.float32)

    def fill(images_I: IntArray, facets: Facets) -> None:
        rows = np.flatnonzero(np.isin(index_M, images_I))
        places = np.searchsorted(images_I, index_M[rows]), patch_M[rows]
        patches_MF[rows] = np.concatenate([facet[places] for facet in facets], axis=1)

    list(map_patches(fill, features, np.unique(index_M)))
    return ProbeSample(
        patches_MF=patches_MF,
        targets_M=targets_NP[image_M, patch_M].astype(np.float32),
        weights_M=np.asarray([label.confidence for label in kept], np.float32)[image_M],
    )


def fit_probe(samples: list[ProbeSample], ridge: float = RIDGE) -> LinearProbe | None:
    """Fit logistic regression to soft targets by L-BFGS.

    Parameters
    ----------
    samples : list of ProbeSample
        Of all groups.
    ridge : float
        Penalty on the squared weights per patch, where patches have unit variance on average over F.

    Returns
    -------
    LinearProbe or None
        None where there is nothing to tell apart: no patches, all targets equal, or all patches alike.

    References
    ----------
    A linear head self-trained on coarse masks: Simeoni, Sekkat, Puy, Vobecky, Zablocki and Perez, "Unsupervised Object
    Localization: Observing the Background to Discover Objects", CVPR 2023, arXiv 2212.07834.
    """
    if not samples:
        return None
    inputs_MF = samples[0].patches_MF if len(samples) == 1 else np.concatenate([one.patches_MF for one in samples])
    targets_M = np.concatenate([one.targets_M for one in samples]).astype(np.float64)
    weights_M = np.concatenate([one.weights_M for one in samples]).astype(np.float64)
    with one_blas_thread(), ThreadPoolExecutor(count_threads()) as threads:
        patches = _Patches(inputs_MF, threads)
        # exact where all patches are alike: their sum in float64 is
        mean_F = np.sum(patches.map(lambda _, block_BF: block_BF.sum(0)), axis=0) / len(inputs_MF)
        square_F = np.sum(patches.map(lambda _, block_BF: _squares(block_BF - mean_F)), axis=0)
        scale = float(np.sqrt(square_F / len(inputs_MF)).mean())
        if scale <= 0.0 or np.ptp(targets_M) <= 0.0:
            return None
        weights_F, bias = _solve_logistic(patches, mean_F, scale, targets_M, weights_M, ridge)
        logits = patches.map(lambda _, block_BF: (block_BF - mean_F) @ weights_F)
    spread = float(np.concatenate(logits).std())
    if spread <= 0.0:
        return None
    return LinearProbe(mean_F=mean_F, weights_F=weights_F, bias=bias, spread=spread)


def _squares(about_BF: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("bf,bf->f", about_BF, about_BF))


def apply_probe(
    features: GroupFeatures, labels: Mapping[str, PseudoLabel], probe: LinearProbe
) -> dict[str, PseudoLabel]:
    """Replace the pseudo-labels of a group by the probe's soft maps.

    Parameters
    ----------
    features : GroupFeatures
    labels : mapping of str to PseudoLabel
        By image id; images without one stay without.
    probe : LinearProbe

    Returns
    -------
    dict of str to PseudoLabel
        With ``is_map`` set, from `compute_maps`; the mask is where the map reaches 0.5. A person's label stays as it
        is.
    """
    probed = {}
    for image, map_hw in zip(features.group.images, compute_maps(features, probe), strict=True):
        if (label := labels.get(image.id)) is None:
            continue
        if label.source != HUMAN_SOURCE:
            label = replace(label, map_hw=map_hw, mask_hw=map_hw >= 0.5, is_map=True)
        probed[image.id] = label
    return probed


def compute_maps(features: GroupFeatures, probe: LinearProbe) -> FloatArray:
    """Soft maps of a group, of whose images none needs a label.

    Parameters
    ----------
    features : GroupFeatures
        Of the backbones, and under the whitening, that the probe was fitted on.
    probe : LinearProbe

    Returns
    -------
    ndarray, float32, (N, h, w), in [0, 1]
        On the first stream's token grid: sigmoid(slope * logit / spread), of the slope `SLOPE` or `SLOPE_WHITENED`.
    """
    offset = probe.bias - float(probe.mean_F @ probe.weights_F)
    logits_NP = np.full(features.first.tokens_NPD.shape[:2], offset)
    if (channels := facet_channels(features)) != len(probe.weights_F):
        raise CheckpointError(
            f"the probe (probe.safetensors of the checkpoint) is for patches of {len(probe.weights_F)} channels, "
            f"these have {channels}; train again, or predict with --config.keep network"
        )

    def add(images_I: IntArray, facets: Facets) -> None:
        start = 0
        for facet in facets:
            end = start + facet.shape[2]
            logits_NP[images_I] += facet @ probe.weights_F[start:end].astype(np.float32)
            start = end

    list(map_patches(add, features))
    slope = SLOPE_WHITENED if features.first.is_whitened else SLOPE
    maps_NP = sigmoid(slope / probe.spread * logits_NP).astype(np.float32)
    return maps_NP.reshape(len(maps_NP), *features.first.grid_hw)


@dataclass(frozen=True, slots=True)
class _Patches:
    """Patches, float32, (M, F), in blocks that cores share; these are the same on any number of cores, so are the bits.

    A block is float64 only while it is in use: the whole would take twice the memory, which is slow to come by.
    """

    patches_MF: FloatArray
    threads: ThreadPoolExecutor

    def map(self, work: Callable[[slice, FloatArray], _Result]) -> list[_Result]:
        """Apply a function to the place and the patches, (B, F), of each block."""

        def of_block(start: int) -> _Result:
            block = slice(start, start + _BLOCK)
            return work(block, self.patches_MF[block].astype(np.float64))

        return list(self.threads.map(of_block, range(0, len(self.patches_MF), _BLOCK)))


def _solve_logistic(
    patches: _Patches, mean_F: FloatArray, scale: float, targets_M: FloatArray, weights_M: FloatArray, ridge: float
) -> tuple[FloatArray, float]:
    """Weights of the centred patches, float64, (F,), and the bias, which carries no penalty.

    The ridge is on the weights of (patch - mean) / scale. By L-BFGS: products with the patches only, where a Newton
    step builds and solves the whole Hessian. In float64: the rounding of float32 in the loss ends its line searches
    early.
    """
    share_M = weights_M / weights_M.sum()

    def loss(solution_G: FloatArray) -> tuple[float, FloatArray]:
        scaled_F, bias = solution_G[:-1], float(solution_G[-1])
        weights_F = scaled_F / scale
        offset = bias - float(mean_F @ weights_F)

        def of_block(block: slice, block_BF: FloatArray) -> tuple[float, FloatArray, float]:
            logit_B = block_BF @ weights_F + offset
            error_B = share_M[block] * (sigmoid(logit_B) - targets_M[block])
            entropy = float(share_M[block] @ (np.logaddexp(0.0, logit_B) - targets_M[block] * logit_B))
            return entropy, error_B @ block_BF, float(error_B.sum())

        entropies, slopes, errors = zip(*patches.map(of_block), strict=True)
        slope_F = (np.sum(slopes, axis=0) - sum(errors) * mean_F) / scale + ridge * scaled_F
        return sum(entropies) + 0.5 * ridge * float(scaled_F @ scaled_F), np.append(slope_F, sum(errors))

    limits = {"maxiter": 1000, "maxfun": 1000, "gtol": _SETTLED, "ftol": 0.0, "maxcor": _STEPS_KEPT}
    start_G = np.zeros(len(mean_F) + 1)
    found = minimize(loss, start_G, jac=True, method="L-BFGS-B", options=limits)
    if (slope := float(np.abs(found.jac).max())) > _UNSETTLED:
        logger.warning(
            "the probe of the pseudo-labels did not settle in %d steps (slope %.1e); look at its maps, or switch it "
            "off with pseudo.probe=none",
            found.nit,
            slope,
        )
    return np.asarray(found.x[:-1]) / scale, float(found.x[-1])


_NAMES = ("mean", "weights", "bias", "spread")
_BACKBONES = "backbone_ids"


def save_probe(file: Path, probe: LinearProbe, backbone_ids: tuple[str, str]) -> None:
    """Write a probe, whole or not at all.

    Parameters
    ----------
    file : Path
    probe : LinearProbe
    backbone_ids : (str, str)
        Of the two streams whose patches it was fitted on.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    arrays = {
        "mean": np.ascontiguousarray(probe.mean_F, np.float64),
        "weights": np.ascontiguousarray(probe.weights_F, np.float64),
        "bias": np.array([probe.bias]),
        "spread": np.array([probe.spread]),
    }
    with open_atomic(file) as stream:
        stream.write(save(arrays, {_BACKBONES: json.dumps(backbone_ids)}))


def load_probe(file: Path, backbone_ids: tuple[str, str]) -> LinearProbe | None:
    """Read what `save_probe` wrote.

    Parameters
    ----------
    file : Path
    backbone_ids : (str, str)
        Of the two streams it is to be used on.

    Returns
    -------
    LinearProbe or None
        None where there is no such file.

    Raises
    ------
    CheckpointError
        The file is damaged, or fitted on patches of other backbones.
    """
    if not file.exists():
        return None
    if not file.is_file():  # a FIFO would be waited for
        raise _damaged(file, "it is no regular file")
    try:
        with safe_open(file, framework="numpy") as content:
            mean_F, weights_F, bias, spread = (content.get_tensor(name) for name in _NAMES)
            fitted_on = json.loads((content.metadata() or {})[_BACKBONES])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # AttributeError: numpy lacks some of the types that a tensor may have, such as bfloat16
        raise _damaged(file, f"{type(error).__name__}: {shorten(str(error), quoted=False)}") from None
    if {one.dtype.kind for one in (mean_F, weights_F, bias, spread)} != {"f"}:
        raise _damaged(file, "it holds what is no number with a fraction")
    if mean_F.ndim != 1 or mean_F.shape != weights_F.shape or not bias.shape == spread.shape == (1,):
        shapes = ", ".join(str(one.shape) for one in (mean_F, weights_F, bias, spread))
        raise _damaged(file, f"its arrays have the shapes {shapes}")
    if not all(np.isfinite(one).all() for one in (mean_F, weights_F, bias, spread)) or spread[0] <= 0.0:
        raise _damaged(file, f"it holds NaN, infinity, or a spread of {spread[0]}")
    if fitted_on != list(backbone_ids):
        raise CheckpointError(
            f"{file} was fitted on patches of {shorten(fitted_on)}, not of {list(backbone_ids)}; use the backbones, "
            "weights and size of its training, or train again"
        )
    return LinearProbe(mean_F=mean_F, weights_F=weights_F, bias=float(bias[0]), spread=float(spread[0]))


def _damaged(file: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is damaged: {why}; train again, or remove the file to predict with the network alone"
    )


def map_labelled(
    collection: Sequence[GroupFeatures],
    work: Callable[[GroupFeatures, dict[str, PseudoLabel]], _Result],
    labels: Mapping[str, PseudoLabel],
) -> Iterator[_Result]:
    """Work on every group of a collection with its own pseudo-labels; that of a job may do so elsewhere.

    Parameters
    ----------
    collection : sequence of GroupFeatures
    work : callable
        See `umscosod.features.collection.FeatureCollection.map`.
    labels : mapping of str to PseudoLabel
        By image id; images without one stay without.
    """
    if isinstance(collection, FeatureCollection):
        yield from collection.map(work, ((group, own_labels(group, labels)) for group in collection.groups))
    else:
        for features in collection:
            yield work(features, own_labels(features.group, labels))


def own_labels(group: ImageGroup, labels: Mapping[str, PseudoLabel]) -> dict[str, PseudoLabel]:
    """Those of a group's images."""
    return {image.id: labels[image.id] for image in group.images if image.id in labels}


def clean_collection(
    collection: Sequence[GroupFeatures], labels: Mapping[str, PseudoLabel], config: PipelineConfig
) -> tuple[dict[str, PseudoLabel], LinearProbe | None]:
    """Clean the pseudo-labels of all groups, as ``pseudo.clean`` and ``pseudo.probe`` say.

    Parameters
    ----------
    collection : sequence of GroupFeatures
        Read twice, one group at a time, so a sequence that loads on access keeps one group in memory; see
        `map_labelled`.
    labels : mapping of str to PseudoLabel
        By image id; images without one stay without.
    config : PipelineConfig
        Reads ``pseudo`` and ``seed``.

    Returns
    -------
    labels : dict of str to PseudoLabel
        By image id; see `clean_labels` and `apply_probe`.
    probe : LinearProbe or None
        Whose maps they are; None where ``pseudo.probe`` is none or there was nothing to fit.

    Notes
    -----
    `PROBE_PATCHES` are shared out by labelled images, rounded, at least one to a group. One order of groups and
    images gives equal bits; another sums in another order and, in a group of which not all patches are drawn, draws
    others.
    """
    cleaned: dict[str, PseudoLabel] = {}
    samples: list[ProbeSample] = []
    share = PROBE_PATCHES / max(1, len(labels))  # of an image
    for own, sample in map_labelled(collection, partial(_clean_group, share=share, config=config), labels):
        cleaned |= own
        samples += [] if sample is None else [sample]
    probe = fit_probe(samples)
    if probe is None:
        return cleaned, None
    probed: dict[str, PseudoLabel] = {}
    for own in map_labelled(collection, partial(apply_probe, probe=probe), cleaned):
        probed |= own
    return probed, probe


def _clean_group(
    features: GroupFeatures, labels: Mapping[str, PseudoLabel], *, share: float, config: PipelineConfig
) -> tuple[dict[str, PseudoLabel], ProbeSample | None]:
    """Clean a group, and draw its share of the probe's patches."""
    own = clean_labels(features, labels, config.pseudo)
    if config.pseudo.probe != "linear" or not own:
        return own, None
    return own, draw_sample(features, own, max(1, round(share * len(own))), config.seed)
