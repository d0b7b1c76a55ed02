"""Splits masks into regions and computes their outlines."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from skimage.measure import label

from umscosod.export.items import ExportItem
from umscosod.types import BoolArray


class Categories:
    """The numbers of categories from 0, in order of appearance.

    Parameters
    ----------
    name : str
        Name of the one category; with `per_group` also of images whose group has no name.
    per_group : bool
        Each group is a category of its own.

    Attributes
    ----------
    numbers : dict of str to int

    Examples
    --------
    >>> from pathlib import Path
    >>> categories = Categories("co-salient", per_group=True)
    >>> cat = ExportItem(image=Path("1.jpg"), output="cat/1.png", group="cat", mask=Path("1.png"))
    >>> categories.find(cat), categories.find(cat), categories.numbers
    (0, 0, {'cat': 0})
    """

    def __init__(self, name: str, *, per_group: bool) -> None:
        self._name, self._per_group = name, per_group
        self.numbers: dict[str, int] = {} if per_group else {name: 0}

    def name_of(self, item: ExportItem) -> str:
        """Return the name of an item's category."""
        return item.group or self._name if self._per_group else self._name

    def find(self, item: ExportItem) -> int:
        """Return the number of an item's category, a new one for a new name."""
        return self.numbers.setdefault(self.name_of(item), len(self.numbers))


def iter_objects(mask_HW: BoolArray, *, per_region: bool) -> Iterator[BoolArray]:
    """Split a mask into the masks of its annotations.

    Parameters
    ----------
    mask_HW : ndarray, bool, (H, W)
        An empty mask gives nothing.
    per_region : bool
        One for each region connected by sides or corners, from the top down; otherwise the unchanged mask.

    Yields
    ------
    ndarray, bool, (H, W)

    Examples
    --------
    >>> mask = np.array([[True, False, True]])
    >>> [part.tolist() for part in iter_objects(mask, per_region=True)]
    [[[True, False, False]], [[False, False, True]]]
    """
    if not mask_HW.any():
        return
    if not per_region:
        yield mask_HW
        return
    labels_HW = label(mask_HW, connectivity=2)
    for number in range(1, int(labels_HW.max()) + 1):
        yield labels_HW == number


def bounding_box(mask_HW: BoolArray) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a non-empty mask, in whole pixels.

    Examples
    --------
    >>> bounding_box(np.array([[False, False], [False, True]]))
    (1, 1, 1, 1)
    """
    left, top, width, height = cv2.boundingRect(mask_HW.astype(np.uint8))
    return left, top, width, height


Points = npt.NDArray[np.int32]
MIN_POINTS = 3


def compute_polygons(mask_HW: BoolArray) -> tuple[list[Points], int]:
    """Outline a mask.

    Polygons run through the centres of border pixels, as OpenCV's contours do: ``cv2.fillPoly`` of all of them
    restores the mask. A polygon has no holes, so a seam joins each hole's border to the outer border. The seam runs
    there and back along the shortest way through the object. Filled by the even-odd rule, the hole stays open.

    Parameters
    ----------
    mask_HW : ndarray, bool, (H, W)

    Returns
    -------
    polygons : list of ndarray, int32, (V, 2)
        One for each region connected by sides or corners, as (x, y); V >= 3. Empty for an empty mask.
    n_dropped : int
        Regions of one or two points, which form no polygon: single pixels and pairs.

    Examples
    --------
    >>> mask = np.zeros((5, 6), bool)
    >>> mask[1:4, 1:5] = True
    >>> polygons, n_dropped = compute_polygons(mask)
    >>> polygons[0].tolist(), n_dropped
    ([[1, 1], [1, 3], [4, 3], [4, 1]], 0)
    """
    contours, hierarchy = cv2.findContours(mask_HW.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons: list[Points] = []
    n_dropped = 0
    for outer, holes in _iter_islands(contours, hierarchy):
        ring = _cut_in(outer, holes)
        if len(ring) < MIN_POINTS:
            n_dropped += 1
            continue
        corners = _drop_straight(ring)
        polygons.append(corners if len(corners) >= MIN_POINTS else ring)  # a straight line has only two corners
    return polygons, n_dropped


def _iter_islands(contours: object, hierarchy: object) -> Iterator[tuple[Points, list[Points]]]:
    """Yield each outer contour with the contours of its holes; both run through pixels of the object."""
    rings = [np.asarray(contour, np.int32).reshape(-1, 2) for contour in contours]  # type: ignore[attr-defined]
    links = np.asarray(hierarchy).reshape(-1, 4) if rings else np.empty((0, 4), np.int32)
    for index, (_, _, child, parent) in enumerate(links):
        if parent != -1:
            continue
        holes = []
        while child != -1:
            holes.append(rings[child])
            child = links[child][0]
        yield rings[index], holes


def _cut_in(outer: Points, holes: list[Points]) -> Points:
    """Join hole borders to the outer one, always the nearest next: then no seam crosses another border.

    The rings are linked lists over one array of points; a seam duplicates its two ends.
    """
    if not holes:
        return outer
    rings = [outer, *holes]
    points = np.concatenate(rings)
    starts = np.cumsum([0, *(len(ring) for ring in rings)])
    following = np.arange(1, len(points) + 1)
    following[starts[1:] - 1] = starts[:-1]
    extra: list[int] = []  # the points of new nodes, as indices of old ones
    links = following.tolist()
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    distances = np.full(len(points), np.inf)  # from each point to the nearest joined point
    nearest = np.zeros(len(points), np.int64)
    is_open = owner != 0
    joined = 0
    while is_open.any():
        waiting = np.flatnonzero(is_open)
        found, index = cKDTree(rings[joined]).query(points[waiting])
        is_nearer = found < distances[waiting]
        distances[waiting[is_nearer]] = found[is_nearer]
        nearest[waiting[is_nearer]] = starts[joined] + index[is_nearer]
        there = int(waiting[np.argmin(distances[waiting])])
        here = int(nearest[there])
        joined = int(owner[there])
        is_open[starts[joined] : starts[joined + 1]] = False
        # here -> there -> around the hole -> there again -> here again -> on
        before = there - 1 if there > starts[joined] else int(starts[joined + 1]) - 1
        there_again, here_again = len(links), len(links) + 1
        extra += [there, here]
        links += [here_again, links[here]]
        links[before] = there_again
        links[here] = there
    order = [0]
    while (node := links[order[-1]]) != 0:
        order.append(node)
    joined_ring: Points = np.concatenate([points, points[extra]])[order]
    return joined_ring


def _drop_straight(ring: Points) -> Points:
    """Remove points in the middle of a straight run of equal steps; the drawn line does not change."""
    steps = np.roll(ring, -1, axis=0) - ring
    is_straight = (steps == np.roll(steps, 1, axis=0)).all(axis=1)
    kept: Points = ring[~is_straight]
    return kept
