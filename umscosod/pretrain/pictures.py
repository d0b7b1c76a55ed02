"""The photographs of a folder, decoded once into one array on the disk.

Shape suffixes: ``N`` photographs, ``S`` side in pixels.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umscosod.config import DataConfig
from umscosod.data.files import open_atomic
from umscosod.data.images import decode_image, image_sha256, readable_suffixes, square_picture
from umscosod.errors import DataError
from umscosod.progress import ProgressFn
from umscosod.types import ByteArray

logger = logging.getLogger(__name__)

SIDE_PX = 144  # of the kept photographs: a little more than the network sees, so that crops lose nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Photographs to learn from.

    Attributes
    ----------
    array_NSS3 : ndarray, uint8, (N, S, S, 3)
        RGB, aspect not kept; on the disk.
    list_sha256 : str
        Hash over the sorted hashes of the files: equal photographs give equal hashes, whatever they are called.
    """

    array_NSS3: ByteArray
    list_sha256: str


def find_photos(folder: Path) -> list[Path]:
    """Find the pictures in a folder and all below it, in the order of their paths.

    Raises
    ------
    DataError
        There is no such folder, or no picture in it.
    """
    suffixes = readable_suffixes()
    found = [
        Path(parent) / name
        for parent, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in suffixes
    ]
    if not found:
        raise DataError(f"{folder}: no pictures to learn from; give a folder of photographs")
    return sorted(found)


def read_pictures(folder: Path, work: Path, progress: ProgressFn) -> Pictures:
    """Decode all photographs of a folder, or take what an earlier call has decoded.

    The order is that of the files' hashes, so that names decide nothing; of equal files one is taken. Those that
    cannot be decoded are left out, and the log says so.

    Raises
    ------
    DataError
        There is nothing to decode.
    """
    by_hash: dict[str, Path] = {}
    for path in find_photos(folder):
        by_hash.setdefault(image_sha256(path), path)
    names = sorted(by_hash)
    list_sha256 = hashlib.sha256("\n".join(names).encode()).hexdigest()
    file = work / f"pictures-{list_sha256[:16]}.npy"
    if not file.is_file():
        limits = DataConfig()
        pictures = []
        for at, name in enumerate(names):
            try:
                decoded = decode_image(by_hash[name], max_pixels=limits.max_pixels, min_side_px=limits.min_side_px)
            except DataError as error:
                logger.warning("%s: left out: %s", by_hash[name], error)
            else:
                pictures.append(square_picture(decoded, SIDE_PX))
            progress(at + 1, len(names), "pictures")
        if not pictures:
            raise DataError(f"{folder}: none of {len(names)} pictures can be decoded")
        with open_atomic(file) as stream:
            np.save(stream, np.stack(pictures))
    return Pictures(array_NSS3=np.load(file, mmap_mode="r"), list_sha256=list_sha256)
