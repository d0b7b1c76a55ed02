"""Fake benchmark folders: the real layouts and file names, tiny generated pictures inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_pairs(
    root: Path,
    image_folder: str,
    mask_folder: str,
    groups: Mapping[str, Sequence[str]],
    *,
    image_suffix: str = ".jpg",
    mask_suffix: str = ".png",
) -> Path:
    """Write ``root/image_folder/GROUP/STEM.jpg`` and the mask of each; returns `root`."""
    rng = np.random.default_rng(0)
    for group, stems in groups.items():
        for stem in stems:
            image = root / image_folder / group / f"{stem}{image_suffix}"
            mask = root / mask_folder / group / f"{stem}{mask_suffix}"
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(image)
            mask_HW = np.zeros((12, 16), np.uint8)
            mask_HW[3:9, 4:12] = 255
            Image.fromarray(mask_HW).save(mask)
    return root
