"""Masks to choose from: clustered from keys, or read from a file of detections; how masks overlap.

Suffixes: ``M`` masks of one image, ``H W`` pixels, ``h w`` the token grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco
from scipy import ndimage

from umscosod.config import PseudoConfig
from umscosod.data.masks import decode_rle, describe_value, encode_rle, finite_number, whole_number
from umscosod.data.resize import LEAST_SIDE_PX, is_same_aspect
from umscosod.errors import DataError, count_of
from umscosod.pseudo.coco_file import Annotation, Tally, match_entries, read_coco_file
from umscosod.pseudo.regions import LabelMap, decode_segmentation, merge_patches, read_stated_size
from umscosod.types import BoolArray, GroupFeatures, ImageRef

MAX_AREA_SHARE = 0.8  # largest mask, as a share of the image
MAX_CORNERS = 2  # masks that hold more corners of the image than this are background
NMS_IOU = 0.9  # of two masks with a larger IoU only the first is kept
PARENT_COVERAGE = 0.9  # share of a mask that its parent covers: gives whole, part, subpart (HASSOD)

RunLengths = dict[str, Any]
"""COCO's compressed run lengths: ``{"size": [h, w], "counts": text}``."""


def compute_overlap(mask_HW: BoolArray, attention_HW: BoolArray) -> float:
    """Overlap of a mask with the attention's set, eq. 1: in [0, 1], 0 if both are empty.

    Examples
    --------
    One patch shared, three in all:

    >>> compute_overlap(np.array([True, True, False]), np.array([False, True, True])).__round__(4)
    0.3333
    """
    union = int(np.count_nonzero(mask_HW | attention_HW))
    return int(np.count_nonzero(mask_HW & attention_HW)) / union if union else 0.0


def merge_rles(rles: Sequence[RunLengths]) -> BoolArray:
    """Union of masks of one size: bool, (H, W)."""
    return decode_rle(coco.merge(list(rles)))


def intersections(rles: Sequence[RunLengths]) -> npt.NDArray[np.int64]:
    """Count the pixels that each pair of masks shares: int64, (M, M), areas on the diagonal.

    Exact, and 100 x faster than dense masks at photo size, because it walks run lengths.
    """
    if not rles:
        return np.zeros((0, 0), dtype=np.int64)
    # one by one: pycocotools counts the masks that it is given in 8 bits
    areas_M = np.array([coco.area(rle) for rle in rles], dtype=np.float64)
    # with every mask declared a crowd, pycocotools divides the intersection by the first mask's own area
    shares_MM = np.asarray(coco.iou(list(rles), list(rles), [1] * len(rles)), dtype=np.float64)
    return np.asarray(np.rint(np.nan_to_num(shares_MM) * areas_M[:, None]), dtype=np.int64)


def suppress_duplicates(shared_MM: npt.NDArray[np.int64]) -> list[int]:
    """Indices of the masks kept when of two with an IoU above `NMS_IOU` only the first stays."""
    areas_M = np.diagonal(shared_MM)
    kept: list[int] = []
    for index in range(len(areas_M)):
        shared = shared_MM[index, kept]
        union = areas_M[index] + areas_M[kept] - shared
        if areas_M[index] > 0 and not (shared > NMS_IOU * union).any():
            kept.append(index)
    return kept


def coverage_levels(shared_MM: npt.NDArray[np.int64]) -> list[int]:
    """Level of each mask: 0 whole, 1 part, 2 subpart.

    b is a parent of a if it covers at least `PARENT_COVERAGE` of a while a covers less than that of b; the parent is
    the smallest such (of equals the first); the level is the depth, at most 2. A parent is always larger than its
    child, so there are no cycles.

    References
    ----------
    HASSOD (arXiv 2402.03311), Sec. 3.2.

    Examples
    --------
    Areas 10, 4 and 2, each inside the one before:

    >>> coverage_levels(np.array([[10, 4, 2], [4, 4, 2], [2, 2, 2]]))
    [0, 1, 2]
    """
    areas_M = np.diagonal(shared_MM)
    levels = [0] * len(areas_M)
    for child in np.argsort(-areas_M, kind="stable"):
        is_parent = (shared_MM[child] >= PARENT_COVERAGE * areas_M[child]) & (
            shared_MM[child] < PARENT_COVERAGE * areas_M
        )
        if is_parent.any():
            candidates = np.flatnonzero(is_parent)
            parent = int(candidates[np.argmin(areas_M[candidates])])
            levels[int(child)] = min(levels[parent] + 1, 2)
    return levels


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskProposal:
    """One class-agnostic instance mask.

    Attributes
    ----------
    mask_hw : ndarray, bool, (h, w)
        On the token grid or at the image's own size; all masks of an image have one size.
    score : float
        The source's score of it, in [0, 1]; 1 where the source gives none.
    level : int
        0 whole, 1 part, 2 subpart.
    source : str
        ``hac`` or ``coco-json``.
    """

    mask_hw: BoolArray
    score: float
    level: int
    source: str


class MaskProposer(Protocol):
    """Anything that finds masks in an image of a group."""

    def propose(self, features: GroupFeatures, index: int) -> list[MaskProposal]:
        """Find the masks of image `index`; an empty list if there are none. Equal inputs give equal masks."""
        ...


def is_sound_mask(mask_hw: BoolArray, config: PseudoConfig) -> bool:
    """Whether a mask may be an object: neither tiny nor nearly everything, and not in most corners of the image.

    Examples
    --------
    >>> frame = np.ones((9, 9), dtype=bool)
    >>> frame[2:-2, 2:-2] = False
    >>> is_sound_mask(frame, PseudoConfig()), is_sound_mask(~frame, PseudoConfig())
    (False, True)
    """
    share = float(np.count_nonzero(mask_hw)) / mask_hw.size
    corners = int(np.count_nonzero(mask_hw[[0, 0, -1, -1], [0, -1, 0, -1]]))
    return config.min_area_share <= share <= MAX_AREA_SHARE and share > 0 and corners <= MAX_CORNERS


def drop_duplicates(proposals: Sequence[MaskProposal], *, relevel: bool) -> list[MaskProposal]:
    """Of near-equal masks keep the first; on request replace the levels by those of mutual coverage."""
    shared_MM = intersections([encode_rle(proposal.mask_hw) for proposal in proposals])
    kept = suppress_duplicates(shared_MM)
    if not relevel:
        return [proposals[index] for index in kept]
    levels = coverage_levels(shared_MM[np.ix_(kept, kept)])
    return [replace(proposals[index], level=level) for index, level in zip(kept, levels, strict=True)]


class HacProposer:
    """Masks by hierarchical adaptive clustering on the tokens' own grid (the fast profile of spec B3).

    The keys come from the pass already made for the features, so no image is encoded twice; no CRF runs here.
    Regions of all thresholds are pooled, holes filled, unsound ones and duplicates dropped.

    Parameters
    ----------
    config : PseudoConfig
    """

    def __init__(self, config: PseudoConfig) -> None:
        self.config = config

    def propose(self, features: GroupFeatures, index: int) -> list[MaskProposal]:
        """Cluster image `index`; masks on the grid of the first stream, finest partition first.

        Returns
        -------
        list of MaskProposal
            Score 1, source ``hac``; empty where no region is sound.
        """
        stream = features.first
        maps = merge_patches(stream.keys_NPK[index], stream.grid_hw, self.config.hac_thresholds)
        proposals = [
            MaskProposal(mask_hw=mask_hw, score=1.0, level=0, source="hac")
            for map_hw in maps
            for mask_hw in _filled_regions(map_hw)
            if is_sound_mask(mask_hw, self.config)
        ]
        return drop_duplicates(proposals, relevel=True)


def _filled_regions(map_hw: LabelMap) -> list[BoolArray]:
    """Regions of a label map in label order, each with its holes filled."""
    regions = []
    for label, box in enumerate(ndimage.find_objects(map_hw + 1)):
        mask_hw = np.zeros(map_hw.shape, dtype=bool)
        mask_hw[box] = ndimage.binary_fill_holes(map_hw[box] == label)
        regions.append(mask_hw)
    return regions


_MAX_MASKS = 1000  # of an image: all are compared with all
_MAX_PIXELS = 2_000_000_000  # of all masks of an image, a byte each


class CocoProposer:
    """Masks read from a COCO-format file.

    Two shapes are understood: a dict with ``images`` and ``annotations``, and a bare results list, whose
    ``image_id`` is resolved through the ``images`` list of a second file, or taken for the image's path, name, stem
    or number. Which entry is of which image is settled here, for the whole collection, by the rules of
    `umscosod.pseudo.coco_file.match_entries`: no image ever gets the masks of another one.
    Masks may be polygons, uncompressed or compressed run lengths; ``iscrowd`` makes no difference here. An annotation
    that makes no sense is left out and counted; `warnings` says so once.

    Parameters
    ----------
    file : Path
    config : PseudoConfig
        ``min_score``, the smallest share of the area and ``detections_images`` apply.
    images : iterable of ImageRef
        All images of the collection.

    Attributes
    ----------
    sha256 : str
        Of all that was read.
    missed : dict
        Image id -> why it has no masks: no entry, or none of its masks can be used (found when it is asked for).

    Raises
    ------
    DataError
        A file is missing, is no JSON, has another shape, or names none of the images.
    """

    def __init__(self, file: Path, config: PseudoConfig, images: Iterable[ImageRef]) -> None:
        images = list(images)
        self.file = file
        self.config = config
        content = read_coco_file(file, Path(config.detections_images) if config.detections_images else None)
        matching = match_entries(images, content.names, has_numbers=content.is_bare)
        if not matching.found:
            first = next(iter(content.names.values()), None)
            named = "no image" if first is None else f"images such as {describe_value(first)} ({len(content.names)})"
            raise DataError(
                f"{file} names {named}, and none of the collection, such as {images[0].id!r} ({len(images)}); give the "
                "file of these images"
            )
        self.sha256, self.missed = content.sha256, matching.missed
        self._count, self._matching = len(images), matching
        # a file of all of COCO is large: of its annotations only what is asked for stays in memory
        used = set(matching.found.values())
        self._content = replace(content, annotations={key: content.annotations.get(key, []) for key in used})
        self._rescaled, self._crowded, self._above = Tally(), Tally(), Tally()

    def propose(self, features: GroupFeatures, index: int) -> list[MaskProposal]:
        """Read the masks of image `index` at its own size, best score first.

        Returns
        -------
        list of MaskProposal
            Source ``coco-json``. Levels are the file's ``hier_level`` where every mask of the image has one, else
            those of mutual coverage. Masks made for another size of the same aspect are rescaled, those of another
            aspect left out; an image of whose masks none can be used is `missed`. Of very many masks the best are
            taken, as many as fit into memory. Empty for an image without an entry.
        """
        image_id, size_hw = features.group.images[index].id, features.sizes_hw[index]
        key = self._matching.found.get(image_id)
        if key is None:
            return []
        found: list[tuple[Annotation, MaskProposal]] = []
        misfits: list[str] = []
        rescaled = ""
        ranked = self._rank(key, image_id)
        room = min(_MAX_MASKS, max(1, _MAX_PIXELS // (size_hw[0] * size_hw[1])))
        for score, annotation in ranked:
            where = f"annotation {annotation.name} of image {image_id!r}"
            if len(found) == room:
                self._crowded.add(f"{image_id!r}: its best {room} of {len(ranked)} are used")
                break
            try:
                level = _read_level(annotation)
                segmentation = annotation.row.get("segmentation")
                stated_hw = read_stated_size(segmentation, self._content.sizes.get(key))
                if stated_hw is not None and not _fits(segmentation, stated_hw, size_hw):
                    misfits.append(f"{where} is made for {_by(stated_hw)} pixels, the upright image has {_by(size_hw)}")
                    continue
                mask_hw = decode_segmentation(segmentation, stated_hw, size_hw)
            except DataError as error:
                self._content.bad_annotations.add(f"{where}: {error}")
                continue
            if stated_hw is not None and stated_hw != size_hw:
                rescaled = rescaled or f"{where} from {_by(stated_hw)} to {_by(size_hw)} pixels"
            if is_sound_mask(mask_hw, self.config):
                proposal = MaskProposal(mask_hw=mask_hw, score=min(score, 1.0), level=level, source="coco-json")
                found.append((annotation, proposal))
        if not found:
            self.missed[image_id] = misfits[0] if misfits else self._explain(key)
        else:
            for misfit in misfits:
                self._content.bad_annotations.add(misfit)
        if rescaled:
            self._rescaled.add(rescaled)
        has_levels = all("hier_level" in annotation.row for annotation, _ in found)
        return drop_duplicates([proposal for _, proposal in found], relevel=not has_levels)

    def _rank(self, key: str, image_id: str) -> list[tuple[float, Annotation]]:
        """Annotations of an entry with their scores, best first, those of too low a score left out."""
        ranked = []
        for annotation in self._content.annotations[key]:
            where = f"annotation {annotation.name} of image {image_id!r}"
            given = annotation.row.get("score", 1.0)
            score = finite_number(given)
            if score is None:
                self._content.bad_annotations.add(f"{where}: its score is {describe_value(given)}, not a finite number")
                continue
            if score > 1.0:
                self._above.add(f"{where}: {score:g}")
            if score >= self.config.min_score:
                ranked.append((score, annotation))
        return sorted(ranked, key=lambda pair: -pair[0])

    def _explain(self, key: str) -> str:
        """Why nothing of an entry is used."""
        count = len(self._content.annotations[key])
        if not count:
            return "no annotation of it"
        return (
            f"none of its {count} masks can be used: they score below pseudo.min_score, are smaller, larger or in more "
            "corners than the settings allow, or make no sense"
        )

    def summary(self) -> str:
        """Count the images found in one line."""
        return f"{self.file}: {self._count - len(self.missed)} of {count_of(self._count, 'image')} found"

    def warnings(self) -> list[str]:
        """Say what was not taken as it stands: one line each, with a count and the first example.

        Complete after `propose` for all images; matches and misses by name are known from the start.
        """
        content, matching = self._content, self._matching
        lines = [content.note] if content.note else []
        if self.missed:
            image_id, reason = next(iter(self.missed.items()))
            lines.append(
                f"images without masks from it: {len(self.missed)} of {self._count}, such as {image_id!r}: {reason}"
            )
        if matching.by_number:
            image_id = matching.by_number[0]
            lines.append(
                f"images found by a number in their name alone: {len(matching.by_number)}, such as {image_id!r} for "
                f"{content.names[matching.found[image_id]]}; if it is another's, give pseudo.detections_images"
            )
        if matching.unused:
            lines.append(
                f"images it names that are not in the collection: {len(matching.unused)} of {len(content.names)}, such "
                f"as {describe_value(content.names[matching.unused[0]])}; their masks are not used"
            )
        for tally, what in (
            (content.bad_images, "rows of images left out"),
            (content.bad_annotations, "annotations left out"),
            (self._crowded, "images with more masks than are used"),
            (self._above, "scores above 1, which count as 1"),
            (self._rescaled, "images whose masks were made for another size and rescaled"),
        ):
            if tally.count:
                lines.append(f"{what}: {tally.count}, such as {tally.example}")
        return [f"{self.file}: {line}" for line in lines]


def _read_level(annotation: Annotation) -> int:
    given = annotation.row.get("hier_level", 0)
    level = whole_number(given)
    if level is None or level < 0:
        raise DataError(f"its hier_level is {describe_value(given)}, not 0, 1 or 2")
    return level


def _fits(segmentation: object, stated_hw: tuple[int, int], size_hw: tuple[int, int]) -> bool:
    """Whether a mask made for one size can be rescaled to another; polygons can from any size of the aspect."""
    is_stamp = isinstance(segmentation, dict) and min(stated_hw) < LEAST_SIDE_PX
    return stated_hw == size_hw or (is_same_aspect(stated_hw, size_hw) and not is_stamp)


def _by(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]} x {size_hw[1]}"
