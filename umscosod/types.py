"""The data that flows between stages: frozen, checked once at construction.

Shape suffixes, here and everywhere: ``N`` images of a group, ``P = h * w`` patches of the token grid,
``D`` feature width, ``K`` key width, ``A`` attention heads, ``H W`` pixels of an image, ``h w`` the grid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from umscosod.errors import DataError

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

NAMES = "surrogateescape"
"""How text with file names becomes bytes: a name that is not UTF-8 comes back byte for byte."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise DataError(message)


def check_relative(name: str, what: str) -> None:
    """Refuse names that could leave the output folder.

    Raises
    ------
    DataError
        `name` is empty, absolute, no text of a file name, or has a ``..`` part, a backslash or a NUL.
    """
    bad = not name or name.startswith("/") or ".." in name.split("/") or "\\" in name or "\x00" in name
    try:
        name.encode("utf-8", NAMES)
    except UnicodeEncodeError:
        bad = True
    _check(not bad, f"{what} {name!r} must be a plain relative name (no '..', no leading '/', no backslash)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRef:
    """One image file of a group, not yet opened.

    Attributes
    ----------
    id : str
        Relative POSIX path, unique in the collection, for example ``"cat/0007.jpg"``.
    path : Path
        Where the file lies.
    output : str
        Relative POSIX path of its outputs, ``"cat/0007.png"``; ``"cat/0007.jpg.png"`` where two images of a
        group share a stem.
    address : str
        Where it is fetched from, ``"s3://bucket/cat/7.jpg"``; `path` is then that of its copy, see
        `umscosod.features.remote`. Empty: the file is at `path`.
    """

    id: str
    path: Path
    output: str
    address: str = ""

    def __post_init__(self) -> None:
        check_relative(self.id, "image id")
        check_relative(self.output, "output name")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageGroup:
    """Images that share an object; the order of `images` is part of the seed.

    Attributes
    ----------
    name : str
        Relative POSIX path of the group, unique in the collection.
    images : tuple of ImageRef
        At least one. A group of one is labelled by itself.
    """

    name: str
    images: tuple[ImageRef, ...]

    def __post_init__(self) -> None:
        check_relative(self.name, "group name")
        _check(len(self.images) > 0, f"group {self.name!r} has no images")
        ids = [image.id for image in self.images]
        _check(len(set(ids)) == len(ids), f"group {self.name!r} lists an image twice")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedImage:
    """What one backbone says of one image, in one pass.

    Attributes
    ----------
    tokens_PD : ndarray, float16, (P, D)
        Patch tokens, row-major over the grid.
    keys_PK : ndarray, float16, (P, K)
        Last-layer attention keys (heads concatenated); the tokens themselves where a backbone has no keys.
    attn_AP : ndarray, float16, (A, P), >= 0
        CLS row of the last self-attention per head, or the backbone's own stand-in with ``A = 1``.
    grid_hw : (int, int)
    """

    tokens_PD: FloatArray
    keys_PK: FloatArray
    attn_AP: FloatArray
    grid_hw: tuple[int, int]

    def __post_init__(self) -> None:
        patches = self.grid_hw[0] * self.grid_hw[1]
        _check(
            self.tokens_PD.ndim == 2
            and self.tokens_PD.shape[0] == patches
            and self.keys_PK.ndim == 2
            and self.keys_PK.shape[0] == patches
            and self.attn_AP.ndim == 2
            and self.attn_AP.shape[1] == patches,
            f"encoded image: expected {patches} patches for grid {self.grid_hw}, got tokens {self.tokens_PD.shape}, "
            f"keys {self.keys_PK.shape}, attention {self.attn_AP.shape}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamTokens:
    """One backbone's view of a whole group, without keys: what is kept of the second stream.

    Attributes
    ----------
    tokens_NPD, attn_NAP : ndarray, float16
        As in `EncodedImage`, stacked over N.
    grid_hw : (int, int)
    backbone_id : str
        Name, weights hash, size, layer and facet: two ids are equal only if their tokens are comparable.
    is_centred : bool
        What all patches have in common is already taken out (whitened tokens); a ViT's tokens still hold it.
    is_whitened : bool
        Whitened by the statistics of the collection.
    has_attention : bool
        The backbone looks at what an object is; False: its attention was a first guess, which the group has sharpened.
    """

    tokens_NPD: FloatArray
    attn_NAP: FloatArray
    grid_hw: tuple[int, int]
    backbone_id: str
    is_centred: bool = False
    is_whitened: bool = False
    has_attention: bool = True

    def __post_init__(self) -> None:
        shapes = tuple(array.shape for array in self._arrays().values())
        _check(all(len(shape) == 3 for shape in shapes), f"group tokens: expected three axes for all, got {shapes}")
        lead = (len(self.tokens_NPD), self.grid_hw[0] * self.grid_hw[1])
        got = (shapes[0][::2], *(shape[:2] for shape in shapes[1:]))
        _check(all(shape == lead for shape in got), f"group tokens: expected (N, P) = {lead} for all, got {got}")

    def _arrays(self) -> dict[str, FloatArray]:
        return {"attn_NAP": self.attn_NAP, "tokens_NPD": self.tokens_NPD}

    def take(self, pick: list[int]) -> Self:
        """Of some of the images, by their indices and in that order: copies."""
        changes: dict[str, Any] = {name: array[pick] for name, array in self._arrays().items()}
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupTokens(StreamTokens):
    """The first backbone's view of a whole group.

    Attributes
    ----------
    keys_NPK : ndarray, float16
        As in `EncodedImage`, stacked over N.
    """

    keys_NPK: FloatArray

    def _arrays(self) -> dict[str, FloatArray]:
        return {"attn_NAP": self.attn_NAP, "tokens_NPD": self.tokens_NPD, "keys_NPK": self.keys_NPK}


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupFeatures:
    """Both streams of a group: the first sets the grid, the attention and the region features (spec A0).

    Attributes
    ----------
    group : ImageGroup
        Only images that could be encoded; index i here is index i of both streams.
    first : GroupTokens
    second : StreamTokens
    saliency_NP : ndarray, float32, (N, P), in [0, 1]
        Self-attention map of each image on the first stream's grid, min-maxed per image.
    pictures_NHW3 : ndarray, uint8, (N, size_px, size_px, 3)
        The upright RGB pictures at network size, aspect not kept: for the decoder's picture input and DenseCRF.
    sizes_hw : tuple of (int, int)
        Own height and width of each image, upright.
    """

    group: ImageGroup
    first: GroupTokens
    second: StreamTokens
    saliency_NP: FloatArray
    pictures_NHW3: ByteArray
    sizes_hw: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        count = len(self.group.images)
        streams = (self.first.tokens_NPD, self.second.tokens_NPD, self.saliency_NP, self.pictures_NHW3, self.sizes_hw)
        got = tuple(len(stream) for stream in streams)
        _check(got == (count,) * 5, f"group {self.group.name!r}: expected {count} images in each stream, got {got}")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the pictures: the network's."""
        return self.pictures_NHW3.shape[1], self.pictures_NHW3.shape[2]

    def take(self, indices: Sequence[int]) -> GroupFeatures:
        """Features of some of the images, by their indices and in that order: copies.

        All stays as it is in the whole group, also a saliency that the group agrees on.
        """
        pick = list(indices)
        return GroupFeatures(
            group=replace(self.group, images=tuple(self.group.images[index] for index in pick)),
            first=self.first.take(pick),
            second=self.second.take(pick),
            saliency_NP=self.saliency_NP[pick],
            pictures_NHW3=self.pictures_NHW3[pick],
            sizes_hw=tuple(self.sizes_hw[index] for index in pick),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoLabel:
    """Training target of one image.

    Attributes
    ----------
    image_id : str
    map_hw : ndarray, float32, (h, w), in [0, 1]
        Soft pseudo-label on the token grid (or finer).
    mask_hw : ndarray, bool, same shape
    confidence : float
        In [0, 1]; also the weight of the image in the loss.
    source : str
        ``hac``, ``coco-json``, ``attention`` (fallback), ``none`` (fallback of ``select=masks``) or ``human``.
    is_weak : bool
        Best overlap with the attention lay below ``pseudo.weak_overlap``.
    is_map : bool
        `map_hw` is a soft map of its own, not the mask as numbers.
    details : dict
        Category, frequency, rank and overlap, for the manifest; empty in a label that was read.
    """

    image_id: str
    map_hw: FloatArray
    mask_hw: BoolArray
    confidence: float
    source: str
    is_weak: bool = False
    is_map: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.map_hw.ndim == 2, f"{self.image_id}: pseudo-label map must be 2-D, got {self.map_hw.shape}")
        _check(
            self.mask_hw.shape == self.map_hw.shape,
            f"{self.image_id}: mask {self.mask_hw.shape} and map {self.map_hw.shape} differ in shape",
        )
        _check(0.0 <= self.confidence <= 1.0, f"{self.image_id}: confidence {self.confidence} is not in [0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """One connected component of a thresholded map.

    Attributes
    ----------
    area_px : int
    similarity : float
        Cosine with the group prototype (eq. 8), in [-1, 1].
    is_kept : bool
    """

    area_px: int
    similarity: float
    is_kept: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RefinedMask:
    """Outcome of RRBE for one image.

    Attributes
    ----------
    mask_HW : ndarray, bool, (H, W)
    threshold : float
        The adaptive threshold used (eq. 6, clamped).
    regions : tuple of Region
    crf : bool
        Whether DenseCRF ran.
    failure : str
        Why it could not, where it should have; else empty.
    """

    mask_HW: BoolArray
    threshold: float
    regions: tuple[Region, ...]
    crf: bool
    failure: str = ""


class Status(StrEnum):
    """What became of an image."""

    LABELLED = "labelled"
    EMPTY = "empty"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """One row of ``report.json``.

    Attributes
    ----------
    image_id, group, output : str
    status : Status
    confidence : float or None
        In [0, 1]; 0 unless labelled; None where nothing is known, of a mask that another program made.
    reason : str
        Why it is empty, failed or skipped, or of low confidence; ``""`` when all is well.
    source : str
        ``network``, ``pseudo-label`` or ``mean`` of both: whose map the group kept; ``stored map``: of an earlier
        job; ``human``: the mask is a person's.
    threshold : float
        Adaptive threshold of eq. 6; 0 unless labelled.
    is_mixed : bool
        No common object is seen in its group.
    """

    image_id: str
    group: str
    output: str
    status: Status
    confidence: float | None = 0.0
    reason: str = ""
    source: str = ""
    threshold: float = 0.0
    is_mixed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelReport:
    """Outcome of labelling a collection.

    Attributes
    ----------
    rows : tuple of Labelled
        One per image asked for, in the order of the groups.
    out : Path
        The output folder.
    notes : tuple of str
        What was chosen on the way and why, for people.
    seconds : float
        Wall time of this call; a resumed job counts only what was left.
    """

    rows: tuple[Labelled, ...]
    out: Path
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def counts(self) -> dict[Status, int]:
        """Number of images by status, zeros included."""
        found = Counter(row.status for row in self.rows)
        return {status: found[status] for status in Status}

    @property
    def exit_code(self) -> int:
        """0 all well, 1 if any image failed, 3 if nothing was labelled."""
        if not self.counts[Status.LABELLED]:
            return 3
        return 1 if self.counts[Status.FAILED] else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """Outcome of training on pseudo-labels.

    Attributes
    ----------
    checkpoint : Path
        Folder of the final checkpoint.
    steps : int
    final_loss : float
        Of the last step.
    notes : tuple of str
    rows : tuple of Labelled
        Images that could not be used, as ``failed``.
    """

    checkpoint: Path
    steps: int
    final_loss: float
    notes: tuple[str, ...] = ()
    rows: tuple[Labelled, ...] = ()
