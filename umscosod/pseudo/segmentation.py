"""The mask of one COCO annotation, at the size of its image; nothing in the annotation is trusted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pycocotools import mask as coco

from umscosod.data.masks import decode_rle, read_rle_size
from umscosod.data.values import describe_value, finite_number
from umscosod.errors import DataError
from umscosod.types import BoolArray

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
