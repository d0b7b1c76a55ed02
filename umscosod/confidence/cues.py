"""Cues: label-free measurements of a mask, an image or a group, from which its confidence is computed.

Suffixes: ``N`` images of the group, ``P`` patches, ``D`` token width, ``F`` width of a description, ``H W`` network
size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from umscosod.data.resize import mask_share, resize_mask
from umscosod.device import map_on_cores
from umscosod.errors import DataError
from umscosod.features.vectors import add_ridge, describe_patches, unit_patches
from umscosod.types import BoolArray, ByteArray, FloatArray, GroupFeatures

# Part of the calibration, as all constants of this room but the levels: another value makes calibration.json void.
DIMS = 64  # principal directions kept of a group's tokens
PROTOTYPE_RIDGE = (
    0.1  # of the whitening over the group that foregrounds of `embedded` are compared in, in mean variances
)
TOUCH_SHARE = 0.1  # share of a side of the image from which a mask touches it
RING_SHARE = 0.05  # width, as a share of the image, of the ring that colours are compared with
COLOUR_BINS = 8  # of each channel of the colour histograms


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
    is_whitened : bool
        The tokens are whitened over the collection; a ViT's are not. Groups and images are judged by different
        levels for either.
    """

    masks_NHW: BoolArray
    pictures_NHW3: ByteArray
    streams: tuple[Stream, ...]
    prototype_NF: FloatArray
    is_whitened: bool


def gather_evidence(features: GroupFeatures, masks: Sequence[BoolArray]) -> GroupEvidence:
    """Bring a group's masks, pictures and tokens to one form.

    Parameters
    ----------
    features : GroupFeatures
    masks : sequence of ndarray, bool, (any height, any width)
        One per image.

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
    streams = tuple(
        Stream(
            tokens_NPD=principal_tokens(tokens.tokens_NPD, DIMS),
            share_NP=np.stack([mask_share(mask_HW, tokens.grid_hw).ravel() for mask_HW in resized]),
        )
        for tokens in (features.first, features.second)
    )
    is_seen = all(stream.tokens_NPD.shape[2] for stream in streams)
    prototype_NF = foreground_prototypes(features, streams[0].share_NP) if is_seen else np.zeros((len(resized), 0))
    return GroupEvidence(
        masks_NHW=np.stack(resized),
        pictures_NHW3=features.pictures_NHW3,
        streams=streams if is_seen else (),
        prototype_NF=prototype_NF,
        is_whitened=features.first.is_whitened,
    )


def foreground_prototypes(features: GroupFeatures, share_NP: FloatArray) -> FloatArray:
    """Describe what each image's mask covers, beside the group's mean patch: masked average pooling, as in eq. 8.

    Parameters
    ----------
    features : GroupFeatures
    share_NP : ndarray, float, (N, P), in [0, 1]
        Share of each patch of the first stream that the mask covers.

    Returns
    -------
    ndarray, float64, (N, F)
        Of a ViT the first stream's keys, which say most of what a thing is. Of tokens that are whitened over the
        collection (``embedded``), whose keys say where regions end, all three facets, whitened over the group. Zero
        for an empty mask.
    """
    is_whitened = features.first.is_whitened
    facets = describe_patches(features, "none") if is_whitened else (unit_patches(features.first, "keys", "none"),)
    patches_NPF = facets[0] if len(facets) == 1 else np.concatenate(facets, axis=2)
    mean_F = patches_NPF.mean((0, 1), dtype=np.float64)
    total_N1 = share_NP.sum(axis=1, keepdims=True)
    weight_NP = share_NP / np.maximum(total_N1, np.finfo(np.float64).tiny)
    pooled_NF = np.einsum("np,npf->nf", weight_NP, patches_NPF) - (total_N1 > 0.0) * mean_F
    return np.asarray(pooled_NF @ _whitening(patches_NPF, mean_F) if is_whitened else pooled_NF)


def _whitening(patches_NPF: FloatArray, mean_F: FloatArray) -> FloatArray:
    """Root of the inverse covariance of a group's patches, with a ridge: float64, (F, F)."""
    covariance_FF = np.zeros((len(mean_F),) * 2)
    for patches_PF in patches_NPF:  # one image at a time: no second copy of the group
        about_PF = patches_PF - mean_F
        covariance_FF += about_PF.T @ about_PF
    covariance_FF /= patches_NPF.shape[0] * patches_NPF.shape[1]
    return np.asarray(np.linalg.cholesky(np.linalg.inv(add_ridge(covariance_FF, PROTOTYPE_RIDGE))))


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
    mean_D = tokens_NPD.mean(axis=(0, 1), dtype=np.float64)

    def products(tokens_PD: FloatArray) -> FloatArray:
        about_PD = tokens_PD - mean_D  # in float64 one image a thread, never the group, is held at its full width
        return np.asarray(about_PD.T @ about_PD)

    covariance_DD = sum(map_on_cores(products, tokens_NPD), np.zeros((width, width)))
    variance_D, direction_DD = np.linalg.eigh(covariance_DD / (images * patches))
    order = np.argsort(variance_D)[::-1][:dims]
    # what is left of a direction by rounding alone is no direction
    order = order[variance_D[order] > variance_D.max() * np.finfo(np.float64).eps * width]
    reduced_NPD = np.empty((images, patches, len(order)))

    def project(index: int) -> None:
        reduced_NPD[index] = (tokens_NPD[index] - mean_D) @ direction_DD[:, order]

    list(map_on_cores(project, range(images)))
    return reduced_NPD


_DISC = 2.0 * math.sqrt(math.pi)  # perimeter of a disc over the root of its area


def mask_cues(mask_HW: BoolArray, picture_HW3: ByteArray) -> dict[str, float]:
    """Every cue of this file that needs no tokens, by name; the mask must be neither empty nor full."""
    return {
        "border_contact": border_contact(mask_HW),
        "inner_outline": inner_outline(mask_HW),
        "compactness": compactness(mask_HW),
        "largest_component_share": largest_component_share(mask_HW),
        "size": math.log(float(mask_HW.mean())),
        "centrality": centrality(mask_HW),
        "colour_contrast": colour_contrast(mask_HW, picture_HW3),
    }


def border_contact(mask_HW: BoolArray) -> float:
    """Minus the number of the image's sides that the mask touches along more than `TOUCH_SHARE` of their length.

    Backgrounds reach from side to side; an object that does is cut off.

    Examples
    --------
    >>> border_contact(np.array([[True, False], [True, False]]))
    -3.0
    """
    sides = (mask_HW[0], mask_HW[-1], mask_HW[:, 0], mask_HW[:, -1])
    return -float(sum(side.mean() > TOUCH_SHARE for side in sides))


def inner_outline(mask_HW: BoolArray) -> float:
    """Minus the share of the mask's outline that is the frame of the image; in [-1, 0].

    Examples
    --------
    A 1 x 2 mask in a corner of a 2 x 3 image: three of its six sides of pixels are frame.

    >>> inner_outline(np.array([[True, True, False], [False, False, False]]))
    -0.5
    """
    frame = sum(int(side.sum()) for side in (mask_HW[0], mask_HW[-1], mask_HW[:, 0], mask_HW[:, -1]))
    return -frame / max(1, frame + _inner_edges(mask_HW))


def compactness(mask_HW: BoolArray) -> float:
    """Perimeter of a disc of the mask's area over the mask's outline inside the image; capped at 1.

    Examples
    --------
    A square of 2 x 2 pixels has an outline of 8; a disc of its area 2 sqrt(4 pi) = 7.09.

    >>> mask_HW = np.zeros((4, 4), bool)
    >>> mask_HW[1:3, 1:3] = True
    >>> round(compactness(mask_HW), 3)
    0.886
    """
    return min(1.0, _DISC * math.sqrt(float(mask_HW.sum())) / max(1, _inner_edges(mask_HW)))


def largest_component_share(mask_HW: BoolArray) -> float:
    """Share of the mask that its largest connected component holds (8 neighbours); 0 for an empty mask.

    Examples
    --------
    >>> largest_component_share(np.array([[True, True, True, False, True]]))
    0.75
    """
    labels_HW, count = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    areas = np.bincount(labels_HW.ravel())[1:]
    return float(areas.max() / areas.sum()) if count else 0.0


def centrality(mask_HW: BoolArray) -> float:
    """Minus the distance of the mask's centre from the image's, in sides of the image; in [-0.71, 0].

    Examples
    --------
    >>> centrality(np.array([[True, False]]))
    -0.25
    """
    rows, columns = np.nonzero(mask_HW)
    height, width = mask_HW.shape
    return -math.hypot((rows.mean() + 0.5) / height - 0.5, (columns.mean() + 0.5) / width - 0.5)


def colour_contrast(mask_HW: BoolArray, picture_HW3: ByteArray) -> float:
    """How unlike the colours inside the mask are to those of a ring around it.

    Returns
    -------
    float
        1 - Bhattacharyya coefficient of two CIELAB histograms: 0 for equal colours, 1 where none is shared, and 0
        where there is no ring.

    Examples
    --------
    >>> picture_HW3 = np.zeros((1, 40, 3), np.uint8)
    >>> picture_HW3[:, :20] = 255
    >>> mask_HW = np.arange(40)[None] < 20
    >>> colour_contrast(mask_HW, picture_HW3)
    1.0
    """
    width = max(1, round(RING_SHARE * max(mask_HW.shape)))
    kernel = np.ones((2 * width + 1,) * 2, np.uint8)
    ring_HW = cv2.dilate(mask_HW.astype(np.uint8), kernel).astype(bool) & ~mask_HW
    if not ring_HW.any() or not mask_HW.any():
        return 0.0
    lab_HW3 = cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2LAB).astype(np.int64)
    inside, ring = (_histogram(lab_HW3[where]) for where in (mask_HW, ring_HW))
    return min(1.0, max(0.0, 1.0 - float(np.sqrt(inside * ring).sum())))


def separation(tokens_PD: FloatArray, share_P: FloatArray) -> float:
    """How cleanly the mask parts the image's own tokens.

    Returns
    -------
    float
        Correlation of the mask with the tokens' projection on the difference of the two means, in [-1, 1]; 0 for an
        empty or a full mask.

    Examples
    --------
    >>> round(separation(np.array([[1.0], [1.0], [-2.0]]), np.array([1.0, 1.0, 0.0])), 6)
    1.0
    """
    if not 0.0 < share_P.sum() < len(share_P):
        return 0.0
    inside_D = share_P @ tokens_PD / share_P.sum()
    outside_D = (1.0 - share_P) @ tokens_PD / (1.0 - share_P).sum()
    return correlation(tokens_PD @ (inside_D - outside_D), share_P)


def correlation(first_P: FloatArray, second_P: FloatArray) -> float:
    """Pearson's correlation; 0 where either is constant.

    Examples
    --------
    >>> correlation(np.array([0.0, 1.0]), np.array([5.0, 3.0])), correlation(np.zeros(2), np.ones(2))
    (-1.0, 0.0)
    """
    first_P, second_P = first_P - first_P.mean(), second_P - second_P.mean()
    norm = math.sqrt(float((first_P**2).sum()) * float((second_P**2).sum()))
    return float(np.clip(first_P @ second_P / norm, -1.0, 1.0)) if norm > 0.0 else 0.0


def _inner_edges(mask_HW: BoolArray) -> int:
    """Sides of pixels between inside and outside."""
    across = np.count_nonzero(mask_HW[:, 1:] != mask_HW[:, :-1])
    return int(across + np.count_nonzero(mask_HW[1:] != mask_HW[:-1]))


def _histogram(colours_R3: npt.NDArray[np.int64]) -> FloatArray:
    index_R3 = colours_R3 * COLOUR_BINS // 256
    flat = (index_R3[:, 0] * COLOUR_BINS + index_R3[:, 1]) * COLOUR_BINS + index_R3[:, 2]
    return np.asarray(np.bincount(flat, minlength=COLOUR_BINS**3) / len(flat))
