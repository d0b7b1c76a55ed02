"""Masks that a person accepted, as files: copies that outlive the run they came from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from umscosod.data.files import open_atomic
from umscosod.data.images import read_upright_size
from umscosod.data.masks import encode_png, flatten_alpha
from umscosod.data.opening import check_regular, open_picture, reading
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.fields import REVIEWED
from umscosod.integrations.fiftyone.runs.places import review_folder


def reviewed_file(dataset: Any, reviewed: str, sample_id: str) -> Path:
    """Where a sample's accepted mask lies: the review folder, or a folder of its own for another field name."""
    folder = review_folder(dataset)
    return (folder if reviewed == REVIEWED else folder / reviewed) / f"{sample_id}.png"


def read_mask_file(path: Path) -> bytes:
    """Read a mask file whole and look at each pixel, so that no damaged file becomes a person's.

    Returns
    -------
    bytes
        The file as it is where it is an 8-bit grey PNG, as runs write it; else the same mask as such a PNG.

    Raises
    ------
    DataError
        Missing, damaged, or it holds values other than 0 and 255.
    """
    check_regular(path)
    with reading("mask file", path, "replace or remove it"):
        content = path.read_bytes()
        with open_picture(io.BytesIO(content)) as image:
            is_plain = image.format == "PNG" and image.mode == "L"
            grey = flatten_alpha(image).convert("L")
            counts = grey.histogram()  # decodes the whole file
    strange = [level for level, count in enumerate(counts) if count and level not in (0, 255)]
    if strange:
        values = ", ".join(str(level) for level in strange[:5])
        raise DataError(f"its mask file {path} holds values other than 0 and 255 ({values}); threshold it first")
    return content if is_plain else encode_png(np.asarray(grey))


def check_size(mask_path: Path, image_path: Path) -> None:
    """Refuse a mask that is not as large as its image (upright, as it is shown).

    Raises
    ------
    DataError
        The sizes differ, or one of the files cannot be read.
    """
    (mask_h, mask_w), _ = read_upright_size(mask_path)
    (image_h, image_w), _ = read_upright_size(image_path)
    if (mask_h, mask_w) != (image_h, image_w):
        raise DataError(
            f"the mask {mask_path} is {mask_w} x {mask_h} pixels, its image {image_path} {image_w} x {image_h}; "
            "save the mask at the size of the image"
        )


def write_reviewed(target: Path, content: bytes) -> None:
    """Write an accepted mask, whole or not at all."""
    with open_atomic(target) as stream:
        stream.write(content)


def holds(target: Path, content: bytes) -> bool:
    """Whether a file is there with just this content."""
    return target.is_file() and target.stat().st_size == len(content) and target.read_bytes() == content


def remove_reviewed(target: Path) -> None:
    """Remove an accepted mask that no label points to any more; one that is gone already is no error.

    Raises
    ------
    DataError
        The file may not be removed.
    """
    try:
        target.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot remove {target}: {error.strerror}; check the folder's owner") from error
