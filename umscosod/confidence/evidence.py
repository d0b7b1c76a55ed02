"""What the confidence of a group's masks is judged by: maps' outcome, tokens and pictures, at network size.

Suffixes: ``N`` images of the group, ``P`` patches, ``D`` token width, ``F`` width of a description, ``H W`` network
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from umscosod.config import ConfidenceConfig
from umscosod.data.resize import resize_centred, resize_mask
from umscosod.errors import DataError
from umscosod.features.vectors import describe_patches, unit_patches
from umscosod.types import BoolArray, ByteArray, FloatArray, GroupFeatures


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """One backbone's tokens of a group, reduced, and the share of each patch that a mask covers.

    Attributes
    ----------
    tokens_NPD : ndarray, float64, (N, P, D)
        Mean over the group is 0.
    share_NP : ndarray, float64, (N, P), in [0, 1]
    """

    tokens_NPD: FloatArray
    share_NP: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupEvidence:
    """Masks of a group and what they can be compared with.

    Attributes
    ----------
    masks_NHW : ndarray, bool, (N, H, W)
    pictures_NHW3 : ndarray, uint8, (N, H, W, 3)
    streams : tuple of Stream
        Two, or none where no backbone looked at the images.
    prototype_NF : ndarray, float64, (N, F)
        See `foreground_prototypes`; zero for an empty mask. No width where there are no streams.
    is_centred : bool
        The tokens are whitened over the collection; a ViT's are not. Groups and images are judged by different
        levels for either.
    """

    masks_NHW: BoolArray
    pictures_NHW3: ByteArray
    streams: tuple[Stream, ...]
    prototype_NF: FloatArray
    is_centred: bool

    def __post_init__(self) -> None:
        if self.masks_NHW.shape != self.pictures_NHW3.shape[:3]:
            raise DataError(
                f"confidence: masks {self.masks_NHW.shape} and pictures {self.pictures_NHW3.shape} must be of the same "
                "images, at one size"
            )


def gather_evidence(features: GroupFeatures, masks: Sequence[BoolArray], config: ConfidenceConfig) -> GroupEvidence:
    """Bring a group's masks, pictures and tokens to one form.

    Parameters
    ----------
    features : GroupFeatures
    masks : sequence of ndarray, bool, (any height, any width)
        One per image.
    config : ConfidenceConfig
        Reads ``dims``, the principal directions kept of each stream, and ``kinship_ridge``.

    Returns
    -------
    GroupEvidence
        Without streams where tokens are all alike, as those of a backbone that was not loaded.

    Raises
    ------
    DataError
        Masks and features are not of the same images.
    """
    if len(masks) != len(features.group.images):
        raise DataError(f"confidence: {len(masks)} masks for {len(features.group.images)} images")
    size_hw = (features.pictures_NHW3.shape[1], features.pictures_NHW3.shape[2])
    resized = [resize_mask(mask_HW, size_hw) for mask_HW in masks]
    streams = []
    for tokens in (features.first, features.second):
        reduced_NPD = principal_tokens(tokens.tokens_NPD, config.dims)
        if reduced_NPD.shape[2]:
            share_NP = np.stack([patch_share(mask_HW, tokens.grid_hw) for mask_HW in resized])
            streams.append(Stream(tokens_NPD=reduced_NPD, share_NP=share_NP))
    is_seen = len(streams) == 2
    prototype_NF = (
        foreground_prototypes(features, streams[0].share_NP, config.kinship_ridge)
        if is_seen
        else np.zeros((len(resized), 0))
    )
    return GroupEvidence(
        masks_NHW=np.stack(resized),
        pictures_NHW3=features.pictures_NHW3,
        streams=tuple(streams) if is_seen else (),
        prototype_NF=prototype_NF,
        is_centred=features.first.is_centred,
    )


def foreground_prototypes(features: GroupFeatures, share_NP: FloatArray, ridge: float) -> FloatArray:
    """Describe what each image's mask covers, beside the group's mean patch: masked average pooling, as in eq. 8.

    Parameters
    ----------
    features : GroupFeatures
    share_NP : ndarray, float, (N, P), in [0, 1]
        Share of each patch of the first stream that the mask covers.
    ridge : float
        Of the whitening, in mean variances.

    Returns
    -------
    ndarray, float64, (N, F)
        Of a ViT the first stream's keys, which say most of what a thing is. Of tokens that are whitened over the
        collection (``embedded``), whose keys say where regions end, all three facets, whitened over the group. Zero
        for an empty mask.
    """
    is_centred = features.first.is_centred
    facets = describe_patches(features, "none") if is_centred else (unit_patches(features.first, "keys", "none"),)
    patches_NPF = facets[0] if len(facets) == 1 else np.concatenate(facets, axis=2)
    mean_F = patches_NPF.mean((0, 1), dtype=np.float64)
    total_N1 = share_NP.sum(axis=1, keepdims=True)
    weight_NP = share_NP / np.maximum(total_N1, np.finfo(np.float64).tiny)
    pooled_NF = np.einsum("np,npf->nf", weight_NP, patches_NPF) - (total_N1 > 0.0) * mean_F
    return np.asarray(pooled_NF @ _whitening(patches_NPF, mean_F, ridge) if is_centred else pooled_NF)


def _whitening(patches_NPF: FloatArray, mean_F: FloatArray, ridge: float) -> FloatArray:
    """Root of the inverse covariance of a group's patches, with a ridge: float64, (F, F)."""
    covariance_FF = np.zeros((len(mean_F),) * 2)
    for patches_PF in patches_NPF:  # one image at a time: no second copy of the group
        about_PF = patches_PF - mean_F
        covariance_FF += about_PF.T @ about_PF
    covariance_FF /= patches_NPF.shape[0] * patches_NPF.shape[1]
    return np.asarray(np.linalg.cholesky(np.linalg.inv(add_ridge(covariance_FF, ridge))))


def add_ridge(scatter_DD: FloatArray, ridge: float) -> FloatArray:
    """Add a share of the mean variance to every variance; where there is no scatter at all, the identity."""
    mean = float(np.trace(scatter_DD)) / len(scatter_DD)
    return scatter_DD + (ridge * mean if mean > 0.0 else 1.0) * np.eye(len(scatter_DD))


def patch_share(mask_HW: BoolArray, grid_hw: tuple[int, int]) -> FloatArray:
    """Share of each patch that a mask covers: float64, (P,).

    Examples
    --------
    >>> patch_share(np.array([[True, True, True, False]]), (1, 2)).tolist()
    [1.0, 0.5]
    """
    if mask_HW.all() or not mask_HW.any():  # filled in, not resized: averaging ones may round
        return np.full(grid_hw[0] * grid_hw[1], float(mask_HW.any()))
    return np.asarray(resize_centred(mask_HW.astype(np.float64), grid_hw).ravel())


def principal_tokens(tokens_NPD: FloatArray, dims: int) -> FloatArray:
    """Tokens in the group's principal directions, centred: float64, (N, P, at most `dims`).

    Directions without any variance are left out, so that tokens which are all alike have no width.

    Examples
    --------
    >>> principal_tokens(np.array([[[1.0, 5.0], [3.0, 5.0]]]), 2).shape
    (1, 2, 1)
    >>> principal_tokens(np.zeros((1, 2, 3)), 2).shape
    (1, 2, 0)
    """
    images, patches, width = tokens_NPD.shape
    flat_RD = tokens_NPD.reshape(-1, width).astype(np.float64)
    flat_RD = flat_RD - flat_RD.mean(axis=0)
    variance_D, direction_DD = np.linalg.eigh(flat_RD.T @ flat_RD / len(flat_RD))
    order = np.argsort(variance_D)[::-1][:dims]
    # what is left of a direction by rounding alone is no direction
    order = order[variance_D[order] > variance_D.max() * np.finfo(np.float64).eps * width]
    return np.asarray((flat_RD @ direction_DD[:, order]).reshape(images, patches, -1))
