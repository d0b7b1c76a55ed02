"""Masks with what formats stumble over: holes, islands within holes, thin lines, borders, and nothing at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from umscosod.export.items import ExportItem
from umscosod.export.png import write_mask
from umscosod.types import BoolArray


def target() -> BoolArray:
    """A disc that touches the border, with a hole, an island in the hole, and a hole in the island."""
    rows, columns = np.mgrid[:40, :50]
    radius = np.hypot(rows - 19.5, columns - 19.5)
    return ((radius < 20) & (radius >= 14)) | ((radius < 9) & (radius >= 4))


def noise(seed: int = 0) -> BoolArray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((60, 45)), 2.0)
    mask: BoolArray = smooth > np.quantile(smooth, 0.4)
    return mask


MASKS: dict[str, BoolArray] = {
    "cat/target": target(),
    "cat/noise": noise(),
    "dog/line": np.eye(12, 17, dtype=bool),
    "dog/empty": np.zeros((9, 7), dtype=bool),
    "dog/full": np.ones((9, 7), dtype=bool),
}


def write_items(root: Path, masks: dict[str, BoolArray] = MASKS, *, with_images: bool = True) -> list[ExportItem]:
    """Write ``root/m/GROUP/NAME.png`` and ``root/image/GROUP/NAME.jpg`` of one size."""
    items = []
    for number, (name, mask_HW) in enumerate(masks.items()):
        mask, image = root / "m" / f"{name}.png", root / "image" / f"{name}.jpg"
        write_mask(mask, mask_HW)
        if with_images:
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask_HW).convert("RGB").save(image)
        group = name.partition("/")[0]
        output, confidence = f"{name}.png", (0.5 + number / 10 if number else None)
        items.append(ExportItem(image=image, output=output, group=group, mask=mask, confidence=confidence))
    return items
