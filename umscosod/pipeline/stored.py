"""Soft maps that an earlier job left as files: found, hashed, and read at the size that refinement works at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from umscosod.data.images import read_upright_size
from umscosod.data.masks import write_png_atomic
from umscosod.data.places import GUARDED, real_path
from umscosod.data.resize import LEAST_SIDE_PX, is_same_aspect, resize_aligned
from umscosod.errors import DataError
from umscosod.export.files import path_inside
from umscosod.export.png import read_map
from umscosod.types import FloatArray, ImageGroup, ImageRef

Maps = str | Path | Mapping[str, Path]


def find_stored(groups: Sequence[ImageGroup], maps: Maps, out: Path) -> dict[str, Path]:
    """Say where each image's map should lie.

    Parameters
    ----------
    groups : sequence of ImageGroup
    maps : path, or mapping of str to Path
        A folder laid out like the outputs; the ``OUT`` of an earlier job stands for ``OUT/maps``. Or a file by image
        id.
    out : Path
        Output folder of the job that will read them.

    Returns
    -------
    dict of str to Path
        By image id; a file need not exist. A mapping's images that are in no group are left out.

    Raises
    ------
    DataError
        No image has a map, or a map lies among the results in `out`, which the job would replace.
    """
    images = [image for group in groups for image in group.images]
    if isinstance(maps, Mapping):
        where = "the mapping given"
        files = {image.id: Path(maps[image.id]) for image in images if image.id in maps}
    else:
        folder = Path(maps) / "maps" if (Path(maps) / "maps").is_dir() else Path(maps)
        where = str(folder)
        files = {image.id: path_inside(folder, image.output) for image in images}
    if not any(file.is_file() for file in files.values()):
        example = next(iter(files.values()), None)
        wanted = f" (such as {example})" if example else ""
        raise DataError(
            f"none of {len(images)} images has a soft map in {where}{wanted}; give the output folder of a job that "
            "made maps of these images"
        )
    results = [real_path(out / name) for name in GUARDED]
    for file in files.values():
        if any(real_path(file).is_relative_to(place) for place in results):
            raise DataError(f"the map {file} belongs to the results in {out}; choose another --out")
    return files


def hash_stored(files: Mapping[str, Path]) -> str:
    """Hash what the maps hold, by image id; a map that cannot be read counts as none."""
    content = {image_id: _hash_file(file) for image_id, file in sorted(files.items())}
    return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogatepass")).hexdigest()


def check_stored(file: Path, image: ImageRef) -> bool:
    """Whether a map has another size than its image: its aspect at another scale, or the square of a network.

    Raises
    ------
    DataError
        It has another aspect than these, or is a stamp of a few pixels; or one of the files cannot be read.
    """
    map_hw, (size_hw, _) = read_upright_size(file)[0], read_upright_size(image.path)
    if map_hw == size_hw:
        return False
    if min(map_hw) < LEAST_SIDE_PX or not (map_hw[0] == map_hw[1] or is_same_aspect(map_hw, size_hw)):
        raise DataError(
            f"{file}: the map has {map_hw[1]} x {map_hw[0]} pixels, its image {size_hw[1]} x {size_hw[0]}; save it at "
            "the size of the image"
        )
    return True


def read_stored(file: Path, size_hw: tuple[int, int]) -> FloatArray:
    """Read a map at another size: float32, in [0, 1].

    The corner pixels stay in place, as they did when the map was enlarged to be saved (`resize_aligned`).

    Raises
    ------
    DataError
        The file is missing, damaged, or not an 8-bit grey picture.
    """
    return resize_aligned(read_map(file), size_hw)


def copy_stored(file: Path, target: Path, size_hw: tuple[int, int]) -> None:
    """Write a map among a job's own at the image's size: the same grey levels where it has that size already."""
    levels_HW = np.rint(resize_aligned(read_map(file), size_hw) * 255.0).astype(np.uint8)
    write_png_atomic(target, levels_HW)


def _hash_file(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    except OSError:
        return ""
