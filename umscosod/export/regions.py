"""What one annotation holds: a whole mask, or one connected region of it; and the names of its category."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from skimage.measure import label

from umscosod.errors import ConfigError
from umscosod.export.items import ExportItem
from umscosod.types import BoolArray


class Categories:
    """Numbers of categories, in the order in which they turn up.

    Parameters
    ----------
    name : str
        Name of the one category, and with `per_group` of images whose group has no name.
    per_group : bool
        Each group is a category of its own.
    first : int
        Number of the first category.

    Raises
    ------
    ConfigError
        `name` is empty.

    Examples
    --------
    >>> from pathlib import Path
    >>> categories = Categories("co-salient", per_group=True, first=1)
    >>> cat = ExportItem(image=Path("1.jpg"), output="cat/1.png", group="cat", mask=Path("1.png"))
    >>> categories.find(cat), categories.find(cat), categories.names
    (1, 1, ['cat'])
    """

    def __init__(self, name: str, *, per_group: bool, first: int) -> None:
        if not name.strip():
            raise ConfigError("the category needs a name, got ''; for example: co-salient")
        self._name, self._per_group, self._first = name, per_group, first
        self._numbers: dict[str, int] = {} if per_group else {name: first}

    @property
    def names(self) -> list[str]:
        """Names in the order of their numbers."""
        return list(self._numbers)

    def name_of(self, item: ExportItem) -> str:
        """Name of an item's category."""
        return item.group or self._name if self._per_group else self._name

    def find(self, item: ExportItem) -> int:
        """Number of an item's category, a new one for a name not met before."""
        return self._numbers.setdefault(self.name_of(item), self._first + len(self._numbers))


def iter_objects(mask_HW: BoolArray, *, per_region: bool) -> Iterator[BoolArray]:
    """Split a mask into the masks of its annotations.

    Parameters
    ----------
    mask_HW : ndarray, bool, (H, W)
        An empty one gives nothing.
    per_region : bool
        One for each region connected by sides or corners, from the top down; else the mask as it is.

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
    """Left, top, width and height of a mask that is not empty, in whole pixels.

    Examples
    --------
    >>> bounding_box(np.array([[False, False], [False, True]]))
    (1, 1, 1, 1)
    """
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
