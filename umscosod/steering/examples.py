"""What a person shows of an image: its mask, a region that is not the object, points, boxes.

In a folder of examples, ``GROUP/NAME.png`` is a mask of the whole object, ``GROUP/NAME.not.png`` a region that is not
it, and ``GROUP/NAME.json`` holds points and boxes: ``{"points": [[x, y, true], ...], "boxes": [[x, y, width, height],
...]}``, in shares of the upright image's width and height.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from umscosod.data.files import read_json
from umscosod.data.foreign import MaskReader
from umscosod.data.images import read_upright_size
from umscosod.data.mask_rules import MaskValue, decide_rule
from umscosod.data.masks import encode_rle
from umscosod.data.resize import is_same_aspect, mask_share, resize_mask
from umscosod.errors import DataError
from umscosod.types import BoolArray, FloatArray, ImageGroup, ImageRef

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A place in an image that belongs to the object, or does not.

    Attributes
    ----------
    x, y : float, in [0, 1]
        From the left and from the top, as shares of the upright image's width and height.
    is_object : bool
    """

    x: float
    y: float
    is_object: bool = True

    def __post_init__(self) -> None:
        if not (0.0 <= self.x <= 1.0 and 0.0 <= self.y <= 1.0):
            raise DataError(
                f"the point ({self.x}, {self.y}) lies outside its image; give shares of its width and height"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """The object lies in it, and nothing of it outside.

    Attributes
    ----------
    x, y, width, height : float, in [0, 1]
        Left, top and sides, as shares of the upright image's width and height.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        inside = 0.0 <= self.x < self.x + self.width <= 1.0 + _ROUNDING
        if not (inside and 0.0 <= self.y < self.y + self.height <= 1.0 + _ROUNDING):
            raise DataError(
                f"the box ({self.x}, {self.y}, {self.width}, {self.height}) is empty or lies outside its image; give "
                "left, top, width and height as shares of its width and height"
            )


_ROUNDING = 1e-6  # a box drawn to the edge may end a rounding error beyond it


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """What a person shows of one image.

    Attributes
    ----------
    mask_HW : ndarray, bool, (H, W), optional
        The whole object and nothing else, at the image's own size; all False: it is not in this image.
    not_HW : ndarray, bool, (H, W), optional
        A region that is not the object.
    points : tuple of Point
    boxes : tuple of Box
        Together they hold the object.
    """

    mask_HW: BoolArray | None = None
    not_HW: BoolArray | None = None
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()

    @property
    def says_anything(self) -> bool:
        """Whether there is anything to learn from."""
        return self.mask_HW is not None or self.not_HW is not None or bool(self.points or self.boxes)


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchTargets:
    """An example on the token grid.

    Attributes
    ----------
    targets_P : ndarray, float32, (P,), in [0, 1]
    weights_P : ndarray, float32, (P,), in [0, 1]
        0 where the example says nothing.
    """

    targets_P: FloatArray
    weights_P: FloatArray


def to_patches(example: Example, grid_hw: tuple[int, int], base_P: FloatArray) -> PatchTargets:
    """Put an example on the token grid.

    A mask says all patches. A region that is not the object says the patches that it covers by half. A point says its
    patch. Boxes say that what lies outside is background, and that the patches inside belong to the object as far as
    the map that was there says so, stretched to reach 1.

    Parameters
    ----------
    example : Example
    grid_hw : (int, int)
    base_P : ndarray, float, (P,), in [0, 1]
        The map that was there.

    Returns
    -------
    PatchTargets
        What is said last holds: boxes, then the mask, the region, the points.
    """
    height, width = grid_hw
    targets_hw, weights_hw = np.zeros(grid_hw, np.float32), np.zeros(grid_hw, np.float32)
    if example.boxes:
        inside_hw = np.zeros(grid_hw, bool)
        for box in example.boxes:
            rows = slice(int(box.y * height), max(1, round((box.y + box.height) * height)))
            cols = slice(int(box.x * width), max(1, round((box.x + box.width) * width)))
            inside_hw[rows, cols] = True
        base_hw = base_P.reshape(grid_hw)
        highest = float(base_hw[inside_hw].max(initial=0.0))
        targets_hw = np.where(inside_hw, base_hw / highest if highest > 0.0 else 1.0, 0.0).astype(np.float32)
        weights_hw[:] = 1.0
    if example.mask_HW is not None:
        targets_hw, weights_hw = mask_share(example.mask_HW, grid_hw), np.ones_like(weights_hw)
    if example.not_HW is not None:
        is_not_hw = mask_share(example.not_HW, grid_hw) >= _COVERED
        targets_hw, weights_hw = np.where(is_not_hw, 0.0, targets_hw), np.where(is_not_hw, 1.0, weights_hw)
    for point in example.points:
        cell = min(int(point.y * height), height - 1), min(int(point.x * width), width - 1)
        targets_hw[cell], weights_hw[cell] = float(point.is_object), 1.0
    return PatchTargets(
        targets_P=np.asarray(targets_hw, np.float32).ravel(), weights_P=np.asarray(weights_hw, np.float32).ravel()
    )


_COVERED = 0.5  # share of a patch that a region covers, from which on the patch is in it


def hash_example(example: Example) -> str:
    """Hash all that an example says."""
    content = {
        "masks": [None if mask_HW is None else encode_rle(mask_HW) for mask_HW in (example.mask_HW, example.not_HW)],
        "points": [asdict(point) for point in example.points],
        "boxes": [asdict(box) for box in example.boxes],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_examples(
    folder: Path, groups: Iterable[ImageGroup], mask_value: MaskValue | None = None
) -> dict[str, Example]:
    """Read a folder of examples; see the head of this module.

    Parameters
    ----------
    folder : Path
    groups : iterable of ImageGroup
    mask_value : int, str or sequence, optional
        What is foreground where masks hold several ids, see `umscosod.data.mask_rules.MaskValue`.

    Returns
    -------
    dict of str to Example
        By image id. The log says by what rule the masks were read, where it is not 0 and 255.

    Raises
    ------
    DataError
        The folder is missing or holds no example of these images; a mask cannot be read or has another aspect than its
        image; a file of points is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder of examples; make it with masks named GROUP/NAME.png")
    found: dict[ImageRef, dict[str, Path]] = {}
    for image in (image for group in groups for image in group.images):
        base = folder / image.output
        files = {"mask": base, "not": base.with_suffix(".not.png"), "points": base.with_suffix(".json")}
        there = {what: file for what, file in files.items() if file.is_file()}
        if there:
            found[image] = there
    if not found:
        raise DataError(f"{folder} holds no example of these images; name them like the results: GROUP/NAME.png")
    used = {file for files in found.values() for file in files.values()}
    unused = sorted({*folder.rglob("*.png"), *folder.rglob("*.json")} - used)
    if unused:
        logger.warning("%d files in %s are of no image here (%s is one)", len(unused), folder, unused[0])
    rule = decide_rule(sorted(file for file in used if file.suffix == ".png"), mask_value)
    rule.check_clear(str(folder), can_ask=True)
    reader = MaskReader(rule)
    examples = {image.id: _read_example(image, files, reader) for image, files in found.items()}
    reader.warn()
    return examples


def _read_example(image: ImageRef, files: dict[str, Path], reader: MaskReader) -> Example:
    masks = {what: _read_mask(files[what], image, reader) for what in ("mask", "not") if what in files}
    points, boxes = _read_places(files["points"]) if "points" in files else ((), ())
    return Example(mask_HW=masks.get("mask"), not_HW=masks.get("not"), points=points, boxes=boxes)


def _read_mask(file: Path, image: ImageRef, reader: MaskReader) -> BoolArray:
    mask_HW, (size_hw, _) = reader.read(file).foreground, read_upright_size(image.path)
    if mask_HW.shape == size_hw:
        return mask_HW
    if not is_same_aspect(mask_HW.shape, size_hw):
        raise DataError(
            f"{file} has {mask_HW.shape[1]} x {mask_HW.shape[0]} pixels, its image {size_hw[1]} x {size_hw[0]}; save "
            "it at the size of the image"
        )
    return resize_mask(mask_HW, size_hw)


def _read_places(file: Path) -> tuple[tuple[Point, ...], tuple[Box, ...]]:
    content = read_json(file)
    try:
        points = tuple(Point(x=float(x), y=float(y), is_object=bool(on)) for x, y, on in content.get("points", []))
        boxes = tuple(
            Box(x=float(x), y=float(y), width=float(w), height=float(h)) for x, y, w, h in content.get("boxes", [])
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f'{file} holds no points and boxes ({error}); write {{"points": [[x, y, true]], "boxes": [[x, y, width, '
            "height]]}, in shares of the image"
        ) from None
    return points, boxes
