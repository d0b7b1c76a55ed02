"""Regions: connected components and the merging of patches.

Every patch starts as a region; the most similar pair of neighbouring regions is merged until no pair is similar
enough. One run serves all thresholds, because the merges down to a lower threshold begin with those of a higher one.

Suffixes: ``P = h * w`` patches of the token grid (row-major), ``K`` key width.

References
----------
Cao et al., "HASSOD: Hierarchical Adaptive Self-Supervised Object Detection", NeurIPS 2023, arXiv 2402.03311, Sec. 3.1.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from umscosod.data.masks import decode_rle, describe_value, finite_number, read_rle_size
from umscosod.errors import ConfigError, DataError
from umscosod.types import BoolArray, FloatArray

# pycocotools walks an outline at five times the resolution, in memory that it does not check it was given
_REACH = 10  # how many images beside the image a corner may lie
_MAX_OUTLINE_PX = 2_000_000
_MARGIN_PX = 2.0  # annotation tools let corners lie a little outside


def read_stated_size(segmentation: Any, image_hw: tuple[int, int] | None) -> tuple[int, int] | None:
    """Size that a mask is made for: run lengths state their own, polygons have that of the file's row of the image.

    Parameters
    ----------
    segmentation : any
        As in the file.
    image_hw : (int, int) or None
        Of the row of the image; None where it has none.

    Returns
    -------
    (int, int) or None
        Height and width; None where nothing is stated.

    Raises
    ------
    DataError
        What is stated is no size.
    """
    if isinstance(segmentation, dict):
        return read_rle_size(segmentation)
    if image_hw is not None and min(image_hw) < 1:
        raise DataError("the 'height' and 'width' of its image are not two whole numbers above 0")
    return image_hw


def decode_segmentation(segmentation: Any, stated_hw: tuple[int, int] | None, size_hw: tuple[int, int]) -> BoolArray:
    """Decode polygons or either kind of run lengths.

    Parameters
    ----------
    segmentation : any
        As in the file.
    stated_hw : (int, int) or None
        See `read_stated_size`.
    size_hw : (int, int)
        Of the mask returned: run lengths of another size are read at the nearest pixels, polygons scaled.

    Returns
    -------
    ndarray, bool, (H, W)

    Raises
    ------
    DataError
        There is no mask, or it is damaged. Corners may lie outside the image, but no more than ten images away.
    """
    if isinstance(segmentation, dict):
        return decode_rle(segmentation, size_hw)
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(f"'segmentation' is {describe_value(segmentation)}; boxes alone cannot be used")
    height, width = size_hw
    scale = (1.0, 1.0) if stated_hw is None else (width / stated_hw[1], height / stated_hw[0])
    polygons = [_read_polygon(polygon, scale, size_hw) for polygon in segmentation]
    if stated_hw is None:
        _check_inside(polygons, size_hw)
    outline_px = sum(
        max(abs(x - u), abs(y - v)) for points in polygons for (u, v), (x, y) in pairwise([*points, points[0]])
    )
    if outline_px > _MAX_OUTLINE_PX:
        raise DataError(f"the outline of its polygons is {outline_px:.0f} pixels long; it cannot be one of an object")
    flat = [[number for point in points for number in point] for points in polygons]
    return decode_rle(coco.merge(coco.frPyObjects(flat, height, width)))


def _check_inside(polygons: list[list[tuple[float, float]]], size_hw: tuple[int, int]) -> None:
    """Refuse corners outside the image where nothing says what size they are made for: it may be another."""
    for x, y in (point for points in polygons for point in points):
        if not (-_MARGIN_PX <= x <= size_hw[1] + _MARGIN_PX and -_MARGIN_PX <= y <= size_hw[0] + _MARGIN_PX):
            raise DataError(
                f"a polygon reaches to ({x:g}, {y:g}), outside the image of {size_hw[1]} x {size_hw[0]} pixels; its "
                "row of 'images' must say 'width' and 'height'"
            )


def _read_polygon(polygon: Any, scale: tuple[float, float], size_hw: tuple[int, int]) -> list[tuple[float, float]]:
    """Corners (x, y) of a polygon in pixels of the image."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        found = f"{len(polygon)} numbers" if isinstance(polygon, list) else describe_value(polygon)
        raise DataError(f"a polygon is {found}; it needs an even count of numbers, at least 6")
    numbers = []
    for place, given in enumerate(polygon):
        number = finite_number(given)
        if number is None:
            raise DataError(f"a polygon holds {describe_value(given)}, which is no finite number")
        number *= scale[place % 2]
        side = size_hw[1 - place % 2]
        if not -_REACH * side <= number <= (_REACH + 1) * side:
            raise DataError(f"a polygon reaches to {describe_value(given)}, far outside the image")
        numbers.append(number)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


LabelMap = npt.NDArray[np.int32]

# Similarities are compared as multiples of this quantum. It is far above the rounding noise of a float64 dot product
# and far below any difference that means something, so that equal similarities tie on every machine and BLAS.
_QUANTA_PER_UNIT = 2.0**36


def merge_patches(keys_PK: FloatArray, grid_hw: tuple[int, int], thresholds: Sequence[float]) -> tuple[LabelMap, ...]:
    """Merge patches into regions and read the partition out at each threshold.

    The similarity of two regions is the cosine of their mean keys; only 4-neighbours merge. A partition at threshold
    t is the state reached when the best similarity of any neighbouring pair falls below t for the first time.

    Parameters
    ----------
    keys_PK : ndarray, float, (P, K)
        Patch keys. A region whose mean key is zero has similarity 0 to all others.
    grid_hw : (int, int)
        Patches down and across; ``h * w = P``.
    thresholds : sequence of float
        Cosines, strictly descending.

    Returns
    -------
    tuple of ndarray, int32, (h, w)
        One label map per threshold, in the order given. Labels run from 0 in the order of each region's first patch.
        Of tied pairs the one with the lowest first patch merges first, then the one with the lower second.

    Raises
    ------
    DataError
        Shapes do not match, or keys hold NaN or infinity.
    ConfigError
        No threshold, or thresholds that do not descend.

    Examples
    --------
    Two patches that look alike beside one that does not:

    >>> keys = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> [map_hw.tolist() for map_hw in merge_patches(keys, (1, 3), (0.9, -1.0))]
    [[[0, 0, 1]], [[0, 0, 0]]]
    """
    height, width = grid_hw
    if keys_PK.ndim != 2 or keys_PK.shape[0] != height * width or height * width == 0:
        raise DataError(f"region merging: keys {keys_PK.shape} do not fit a grid of {height} x {width} patches")
    if not np.isfinite(keys_PK).all():
        raise DataError("region merging: the keys hold NaN or infinity; encode the image again")
    levels = [float(value) for value in thresholds]
    if not levels or any(low >= high for high, low in pairwise(levels)):
        raise ConfigError(f"pseudo.hac_thresholds must descend strictly and not be empty, got {tuple(levels)}")

    merging = _Merging(np.asarray(keys_PK, dtype=np.float64), grid_hw)
    return tuple(merging.run_down_to(threshold) for threshold in levels)


_Link = tuple[int, int, int, int]
"""Minus the similarity of two regions in quanta, their names in order, and which of them has this as its best."""


class _Merging:
    """State of one run: regions are named by their first patch, so that names do not depend on the history.

    The best pair of all is the best of some region: the heap holds one link a region, its best when it was pushed. A
    region's similarities change when a neighbour grows or is absorbed. The one that has grown gets a new link, which
    stands for all of its pairs; for another that has lost its best pair a new link is looked for when the old one
    surfaces.
    """

    def __init__(self, keys_PK: FloatArray, grid_hw: tuple[int, int]) -> None:
        self.grid_hw = grid_hw
        self.sums_PK = keys_PK.copy()
        lengths_P = np.linalg.norm(keys_PK, axis=1)
        # 1 / |sum of keys|, 0 where that is zero: a cosine is a dot product times two of them
        inverses_P = np.divide(1.0, lengths_P, out=np.zeros_like(lengths_P), where=lengths_P > 0)
        self.inverses: list[float] = inverses_P.tolist()
        self.merges: list[tuple[int, int]] = []
        edges_E2 = _grid_edges(grid_hw)
        keys_hwK = keys_PK.reshape(*grid_hw, -1)
        across_hw = np.einsum("hwk,hwk->hw", keys_hwK[:, :-1], keys_hwK[:, 1:])
        down_hw = np.einsum("hwk,hwk->hw", keys_hwK[:-1], keys_hwK[1:])
        dots_E = np.concatenate([across_hw.ravel(), down_hw.ravel()])  # in the order of `_grid_edges`
        quanta_E = np.rint(dots_E * inverses_P[edges_E2[:, 0]] * inverses_P[edges_E2[:, 1]] * _QUANTA_PER_UNIT)
        # of each region, minus the similarity of every neighbour in quanta
        self.near: list[dict[int, int]] = [{} for _ in range(len(keys_PK))]
        for (first, second), quantum in zip(edges_E2.tolist(), quanta_E.astype(np.int64).tolist(), strict=True):
            self.near[first][second] = self.near[second][first] = -quantum
        self.links: list[_Link | None] = [None] * len(keys_PK)
        self.heap = [self._link(region) for region, near in enumerate(self.near) if near]
        heapq.heapify(self.heap)

    def run_down_to(self, threshold: float) -> LabelMap:
        """Merge while the best pair reaches `threshold`; return the partition."""
        heap, limit = self.heap, -_quantise_down(threshold)
        while heap and heap[0][0] <= limit:
            link = heap[0]
            minus, first, second, owner = link
            if self.links[owner] is not link:
                heapq.heappop(heap)  # the region is gone, or has another link
                continue
            if self.near[first].get(second) == minus:
                self._merge(first, second)
                owner = first
            if self.near[owner]:
                heapq.heapreplace(heap, self._link(owner))
            else:  # all is one region
                heapq.heappop(heap)
        # `second` always joins a lower name, so one sweep backwards through the merges finds every patch's region.
        root = np.arange(len(self.near))
        for first, second in reversed(self.merges):
            root[second] = root[first]
        _, labels_P = np.unique(root, return_inverse=True)
        return np.asarray(labels_P.reshape(self.grid_hw), dtype=np.int32)

    def _link(self, region: int) -> _Link:
        """Link a region to the neighbour most like it, of equals the one with the lowest name."""
        near = self.near[region]
        minus = min(near.values())
        other = min([name for name, value in near.items() if value == minus])
        link = (minus, region, other, region) if region < other else (minus, other, region, region)
        self.links[region] = link
        return link

    def _merge(self, first: int, second: int) -> None:
        """Let region `first` absorb `second`: one product gives its length and its similarity to all neighbours."""
        self.merges.append((first, second))
        sum_K = self.sums_PK[first]
        sum_K += self.sums_PK[second]
        near, gone = self.near[first], self.near[second]
        self.near[second], self.links[second] = {}, None
        for other in gone:
            del self.near[other][second]
        near.update(gone)
        del near[first]
        square, *dots = (self.sums_PK.take([first, *near], axis=0) @ sum_K).tolist()
        inverses = self.inverses
        inverses[first] = inverse = 1.0 / math.sqrt(square) if square > 0 else 0.0
        scale = -inverse * _QUANTA_PER_UNIT
        for other, dot in zip(near, dots, strict=True):
            near[other] = self.near[other][first] = round(dot * scale * inverses[other])


def _grid_edges(grid_hw: tuple[int, int]) -> npt.NDArray[np.int64]:
    """List the 4-neighbour pairs of a row-major grid, lower index first: int64, (E, 2)."""
    index_hw = np.arange(grid_hw[0] * grid_hw[1]).reshape(grid_hw)
    across = np.stack([index_hw[:, :-1].ravel(), index_hw[:, 1:].ravel()], axis=1)
    down = np.stack([index_hw[:-1].ravel(), index_hw[1:].ravel()], axis=1)
    return np.concatenate([across, down])


def _quantise_down(threshold: float) -> int:
    """Turn a threshold into quanta; one quantum lower, so that a cosine equal to it but for rounding still merges."""
    return int(np.rint(threshold * _QUANTA_PER_UNIT)) - 1
