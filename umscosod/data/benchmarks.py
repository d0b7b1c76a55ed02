"""Reads co-saliency benchmarks from disk: groups and their masks. Writes and downloads nothing.

CoCA, CoSOD3k, CoSal2015, DUTS-class, COCO9213 and their copies consist of two folder trees of equal shape
(``image|images|Image|img|ims`` and ``gt|GT|gts|binary|GroundTruth|masks``). This module recognises four layouts:

* ``BENCH/image/GROUP/x.jpg`` and ``BENCH/gt/GROUP/x.png``;
* ``DATA/images/BENCH/GROUP/x.jpg`` and ``DATA/gts/BENCH/GROUP/x.png`` (one pair of trees for several benchmarks);
* ``DATA/BENCH/image/GROUP/x.jpg`` and so on (several benchmarks side by side);
* ``BENCH/GROUP/x.jpg`` and ``BENCH/GROUP/GroundTruth/x.png`` (masks below their images), also ``BENCH/GROUP/image``.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from umscosod.data.folders import Found, Layout, is_image_name, iter_images, log_untaken, walk_files
from umscosod.data.groups import groups_of
from umscosod.data.naming import natural_key
from umscosod.errors import DataError, count_of
from umscosod.types import ImageGroup

logger = logging.getLogger(__name__)

_MASK_EXTENSIONS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".jpg", ".jpeg")  # the first existing one is used
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """Groups of images and their ground truth.

    Attributes
    ----------
    name : str
        Name of the folder.
    groups : tuple of ImageGroup
        All images, with or without a mask.
    masks : dict
        From image id to mask file; images without ground truth are absent.
    """

    name: str
    groups: tuple[ImageGroup, ...]
    masks: dict[str, Path]


def open_benchmark(root: str | os.PathLike[str]) -> Benchmark:
    """Open a benchmark folder.

    Images and masks are matched by their folder below the two trees and by the file name without extension. Without an
    exact match, letter case is ignored.

    Parameters
    ----------
    root : path
        A folder in one of the layouts of the module docstring.

    Returns
    -------
    Benchmark
        Image ids and group names are those of `umscosod.data.groups.groups_from_folder` on the same folder.

    Raises
    ------
    DataError
        `root` is not a folder, has no such layout, or no image has a mask. A warning counts single images without a
        mask and masks without an image.
    """
    root = Path(root)
    untaken: Counter[str] = Counter()
    everything = list(iter_images(root, untaken=untaken))
    found = [image for image in everything if image.layout is not None]
    if not found:
        raise DataError(
            f"{root}: not a benchmark layout; expected image/GROUP/x.jpg beside gt/GROUP/x.png (or images, img, Image, "
            "ims; GT, gts, binary, groundtruth, masks)"
        )
    untaken["images outside of the layout"] = len(everything) - len(found)
    log_untaken(root, +untaken)
    layouts = list(dict.fromkeys(image.layout for image in found if image.layout is not None))
    masks: dict[str, Path] = {}
    used: set[Path] = set()
    indices = {layout: _index_masks(layout.mask_dir) for layout in layouts}
    for image in found:
        mask = _find_mask(image, indices)
        if mask is not None:
            masks[image.name] = mask
            used.add(mask)
    if not masks:
        raise DataError(
            f"{root}: none of the {len(found)} images has a mask in {layouts[0].mask_dir}; "
            "masks must have the folder and file names of their images"
        )
    _warn_of_gaps(root, [image.name for image in found if image.name not in masks], "image", "without a mask")
    spare = [str(path) for index in indices.values() for path in index.values() if path not in used]
    _warn_of_gaps(root, sorted(set(spare), key=natural_key), "mask", "without an image")
    return Benchmark(name=root.resolve().name, groups=tuple(groups_of(found, root)), masks=masks)


def _index_masks(mask_dir: Path) -> dict[str, Path]:
    """Return the masks below a folder by relative path without extension, exact and case-folded."""
    index: dict[str, Path] = {}
    named = [path for path in walk_files(mask_dir) if is_image_name(path.name) and path.is_file()]
    usable = [path for path in named if _mask_rank(path.name) < len(_MASK_EXTENSIONS)]
    for path in sorted(usable, key=lambda path: (str(path.parent), _mask_rank(path.name), natural_key(path.name))):
        key = path.relative_to(mask_dir).with_suffix("").as_posix()
        index.setdefault(key, path)
        index.setdefault(_folded(key), path)
    return index


def _find_mask(image: Found, indices: dict[Layout, dict[str, Path]]) -> Path | None:
    if image.layout is None:
        return None
    inside = PurePosixPath(image.name).relative_to(image.layout.prefix or ".").with_suffix("").as_posix()
    index = indices[image.layout]
    return index.get(inside) or index.get(_folded(inside))


def _folded(key: str) -> str:
    return "\x00" + key.casefold()  # no file name has a NUL, so this differs from every exact key


def _mask_rank(name: str) -> int:
    suffix = PurePosixPath(name).suffix.lower()
    return _MASK_EXTENSIONS.index(suffix) if suffix in _MASK_EXTENSIONS else len(_MASK_EXTENSIONS)


def _warn_of_gaps(root: Path, names: Sequence[str], noun: str, what: str) -> None:
    if names:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        logger.warning("%s: %s %s: %s", root, count_of(len(names), noun), what, shown)
