"""Takes over what a person drew on a mask, and nothing of what the App changed by sampling the mask anew.

The App stores an edited mask at the resolution of the screen: FiftyOne 1.22 stretches the old mask to the box's size on
the screen by the nearest pixel, draws, and fits the box to the result (docs/editing.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from umscosod.types import BoolArray

MAX_ISLANDS = 100
"""Most islands of a mask that become objects of their own; all smaller ones are one object more: no pixel is lost."""
_UNSURE = 0.3  # how far from half a pixel of the screen the App may round either way
_TOUCHING = np.ones((3, 3), bool)  # pixels that share a corner are one island
_BESIDE = np.ones((5, 5), bool)  # pixels of the screen around a stroke in which finer parts of the mask go with it
_NEAR = np.ones((7, 7), bool)  # pixels of the screen around a stroke in which thin differences belong to it


@dataclass(frozen=True, kw_only=True, slots=True)
class Island:
    """One connected region of a mask.

    Attributes
    ----------
    y, x : int
        Upper left pixel of its box in the image.
    mask_HW : ndarray, bool, (H, W)
        The region within its box; no other region is in it.
    """

    y: int
    x: int
    mask_HW: BoolArray

    def box(self, size_hw: tuple[int, int]) -> list[float]:
        """Return ``[left, top, width, height]`` as shares of the image, as FiftyOne has boxes."""
        (height, width), (box_h, box_w) = size_hw, self.mask_HW.shape
        return [self.x / width, self.y / height, box_w / width, box_h / height]


def split_islands(mask_HW: BoolArray) -> list[Island]:
    """Return the connected regions of a mask, the largest first; see `MAX_ISLANDS`.

    Examples
    --------
    >>> [island.mask_HW.shape for island in split_islands(np.array([[1, 1, 0, 0], [1, 0, 0, 1]], bool))]
    [(2, 2), (1, 1)]
    """
    labels_HW, count = ndimage.label(mask_HW, _TOUCHING)
    if not count:
        return []
    sizes = np.bincount(labels_HW.ravel(), minlength=count + 1)[1:]
    places = np.empty(count + 1, np.int64)  # by label: its place among the sizes; the smallest share one
    places[0] = 0
    places[1 + np.argsort(-sizes, kind="stable")] = np.minimum(np.arange(count), MAX_ISLANDS) + 1
    ordered_HW = places[labels_HW]
    found = enumerate(ndimage.find_objects(ordered_HW), start=1)
    return [
        Island(y=rows.start, x=columns.start, mask_HW=ordered_HW[rows, columns] == place)
        for place, (rows, columns) in found
    ]


def move_island(island: Island, box: list[float], size_hw: tuple[int, int]) -> Island:
    """Put a region, as it is, into a box that a person moved or stretched: shares of the image."""
    (height, width), (left, top, box_w, box_h) = size_hw, box
    size = (max(round(box_h * height), 1), max(round(box_w * width), 1))
    return Island(y=round(top * height), x=round(left * width), mask_HW=_stretch(island.mask_HW, size))


def paint(mask_HW: BoolArray, island: Island) -> None:
    """Add a region to a mask in place, as far as it lies within."""
    (y0, y1), (x0, x1) = _overlap(island.mask_HW.shape, mask_HW.shape, (island.y, island.x))
    mask_HW[y1, x1] |= island.mask_HW[y0, x0]


def take_over(old: Island, edited_hw: BoolArray, box: list[float], size_hw: tuple[int, int]) -> BoolArray:
    """Return the old object with a person's changes, at the image's size.

    Parameters
    ----------
    old : Island
        The object before the edit; for a new one, what its box held before.
    edited_hw : ndarray, bool, (h, w)
        The edited mask, at the resolution of a screen.
    box : list of float
        Box of the edited mask: ``[left, top, width, height]`` as shares of the image.
    size_hw : (int, int)
        Height and width of the image.

    Returns
    -------
    ndarray, bool, (H, W)
        The old pixel wherever old and edited mask agree on the screen. Differences of one pixel's width away from any
        stroke are those of rounding, and count as agreement.
    """
    fit = _find_fit(old, edited_hw, box, size_hw)
    before_hw, after_hw, (top, left) = _on_one_canvas(_stretch(old.mask_HW, fit.size), edited_hw, fit.offset)
    changed_hw = _widen(_drop_thin(before_hw != after_hw), before_hw, after_hw)
    whole_HW = np.zeros(size_hw, bool)
    paint(whole_HW, old)
    lines = []
    for axis, first in enumerate((old.y, old.x)):
        scale = fit.size[axis] / old.mask_HW.shape[axis]
        axis_lines = _canvas_lines(size_hw[axis], first, scale, (top, left)[axis])
        start, end = box[1 - axis], box[1 - axis] + box[3 - axis]
        if start * size_hw[axis] * scale < 1:  # the box begins at the image's edge: so does what was drawn
            axis_lines[axis_lines == -1] = 0
        if (1 - end) * size_hw[axis] * scale < 1:
            axis_lines[axis_lines == changed_hw.shape[axis]] -= 1
        lines.append(axis_lines)
    (rows, columns), (y, x) = (
        lines,
        (np.flatnonzero((each >= 0) & (each < length)) for each, length in zip(lines, changed_hw.shape, strict=True)),
    )
    source, target = np.ix_(rows[y], columns[x]), np.ix_(y, x)
    whole_HW[target] = np.where(changed_hw[source], after_hw[source], whole_HW[target])
    return whole_HW


@dataclass(frozen=True, slots=True)
class _Fit:
    """How the old mask lay on the screen: its size there, and its place on the edited mask."""

    size: tuple[int, int]
    offset: tuple[int, int]


def _find_fit(old: Island, edited_hw: BoolArray, box: list[float], size_hw: tuple[int, int]) -> _Fit:
    """Find the rounding with which the old mask agrees best with the edited one."""
    sizes, offsets = [], []
    corner, extent = (box[1], box[0]), (box[3], box[2])
    for axis, first in enumerate((old.y, old.x)):
        scale = edited_hw.shape[axis] / max(extent[axis] * size_hw[axis], 1e-6)
        sizes.append([max(size, 1) for size in _roundings(old.mask_HW.shape[axis] * scale)])
        offsets.append(_roundings((first - corner[axis] * size_hw[axis]) * scale))
    best, fewest = _Fit((sizes[0][0], sizes[1][0]), (offsets[0][0], offsets[1][0])), -1
    for height, width in product(*sizes):
        stretched_hw = _stretch(old.mask_HW, (height, width))
        for y, x in product(*offsets):
            count = _count_differences(stretched_hw, edited_hw, (y, x))
            if fewest < 0 or count < fewest:
                best, fewest = _Fit((height, width), (y, x)), count
    return best


def _roundings(value: float) -> list[int]:
    """Return the whole numbers that a length on the screen may have become: the nearest, or both about half way."""
    lower = math.floor(value)
    part = value - lower
    return [round(value)] if abs(part - 0.5) > _UNSURE else [lower, lower + 1]


def _stretch(mask_HW: BoolArray, size: tuple[int, int]) -> BoolArray:
    """Sample a mask at another size by the nearest pixel, as the App does."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (length / new)).astype(int), length - 1)
        for new, length in zip(size, mask_HW.shape, strict=True)
    )
    return mask_HW[np.ix_(rows, columns)]


def _overlap(lower: tuple[int, ...], upper: tuple[int, ...], offset: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Yield for each axis where the first mask, put at `offset`, and the second one overlap, in both."""
    for length, other, shift in zip(lower, upper, offset, strict=True):
        start, stop = max(shift, 0), max(min(shift + length, other), max(shift, 0))
        yield slice(start - shift, stop - shift), slice(start, stop)


def _count_differences(before_hw: BoolArray, after_hw: BoolArray, offset: tuple[int, int]) -> int:
    (y0, y1), (x0, x1) = _overlap(before_hw.shape, after_hw.shape, offset)
    both = np.count_nonzero(before_hw[y0, x0] & after_hw[y1, x1])
    return int(np.count_nonzero(before_hw)) + int(np.count_nonzero(after_hw)) - 2 * int(both)


def _on_one_canvas(
    before_hw: BoolArray, after_hw: BoolArray, offset: tuple[int, int]
) -> tuple[BoolArray, BoolArray, tuple[int, int]]:
    """Put both masks on a canvas that holds them; returns also where on it the first one begins."""
    tops = [max(-shift, 0) for shift in offset]
    shape = [
        max(top + shift + first, top + second)
        for top, shift, first, second in zip(tops, offset, before_hw.shape, after_hw.shape, strict=True)
    ]
    place = (tops[0] + offset[0], tops[1] + offset[1])
    canvases = []
    for mask_hw, (y, x) in ((before_hw, place), (after_hw, (tops[0], tops[1]))):
        canvas_hw = np.zeros(shape, bool)
        canvas_hw[y : y + mask_hw.shape[0], x : x + mask_hw.shape[1]] = mask_hw
        canvases.append(canvas_hw)
    return canvases[0], canvases[1], place


def _drop_thin(changed_hw: BoolArray) -> BoolArray:
    """Drop differences without a square of 2 x 2 pixels nearby: no brush is that thin."""
    strokes_hw = ndimage.binary_opening(changed_hw, np.ones((2, 2), bool))
    near_hw: BoolArray = ndimage.binary_dilation(strokes_hw, _NEAR) & changed_hw
    return near_hw


def _widen(changed_hw: BoolArray, before_hw: BoolArray, after_hw: BoolArray) -> BoolArray:
    """Add the pixels beside a stroke that already had its value: finer parts of the old mask may hide behind them."""
    wide_hw = changed_hw.copy()
    for value in (False, True):
        drawn_hw = ndimage.binary_dilation(changed_hw & (after_hw == value), _BESIDE)
        wide_hw |= drawn_hw & (before_hw == value) & (after_hw == value)
    return wide_hw


def _canvas_lines(length: int, first: int, scale: float, place: int) -> npt.NDArray[np.int64]:
    """Return for each row (or column) of the image the one of the canvas that shows its centre."""
    lines: npt.NDArray[np.int64] = np.floor((np.arange(length) + 0.5 - first) * scale).astype(np.int64) + place
    return lines
