"""Toy data sets in FiftyOne: a group is one colour and shape on noise; masks are exact. Nothing is downloaded."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

DatasetFactory = Callable[..., Any]
"""What the fixture `dataset_factory` gives."""
SHAPES = ("disk", "square", "diamond")


def group_name(index: int) -> str:
    """``disk-0``, ``square-1``, ``diamond-2``, ``disk-3``..."""
    return f"{SHAPES[index % len(SHAPES)]}-{index}"


def write_toy_pictures(
    root: Path, n_groups: int = 2, n_images: int = 4, size_hw: tuple[int, int] = (96, 128), *, seed: int = 0
) -> list[tuple[str, Path, Path]]:
    """Write ``root/image/GROUP/00.jpg`` and ``root/gt/GROUP/00.png`` (0/255); returns (group, image, mask) of each."""
    rng = np.random.default_rng(seed)
    written = []
    for index in range(n_groups):
        name = group_name(index)
        colour = np.asarray(colorsys.hsv_to_rgb(index / n_groups, 0.9, 0.9)) * 255
        for number in range(n_images):
            mask_HW = _shape_mask(SHAPES[index % len(SHAPES)], size_hw, rng)
            noise_HW3 = cv2.GaussianBlur(rng.normal(110, 25, (*size_hw, 3)), (5, 5), 0)
            picture_HW3 = np.where(mask_HW[..., None] > 0, colour + 0.3 * (noise_HW3 - 110), noise_HW3)
            image, mask = root / "image" / name / f"{number:02}.jpg", root / "gt" / name / f"{number:02}.png"
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(picture_HW3, 0, 255).astype(np.uint8)).save(image, quality=90)
            Image.fromarray(mask_HW).save(mask)
            written.append((name, image, mask))
    return written


def _shape_mask(shape: str, size_hw: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A shape of about a sixth of the frame, wholly inside it."""
    height, width = size_hw
    radius = int(rng.uniform(0.18, 0.28) * min(size_hw))
    y, x = int(rng.integers(radius, height - radius)), int(rng.integers(radius, width - radius))
    mask_HW = np.zeros(size_hw, np.uint8)
    if shape == "disk":
        cv2.circle(mask_HW, (x, y), radius, 255, -1)
    elif shape == "square":
        cv2.rectangle(mask_HW, (x - radius, y - radius), (x + radius, y + radius), 255, -1)
    else:
        corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
        cv2.fillConvexPoly(mask_HW, np.array(corners), 255)
    return mask_HW


def make_toy_dataset(
    root: Path, name: str, n_groups: int = 2, n_images: int = 4, size_hw: tuple[int, int] = (96, 128)
) -> Any:
    """A persistent `fiftyone.Dataset` of toy pictures below `root`: text field ``cls``, Segmentation ``ground_truth``.

    The samples are in the order of groups, then pictures.
    """
    import fiftyone as fo

    dataset = fo.Dataset(name, persistent=True)
    samples = []
    for group, image, mask in write_toy_pictures(root, n_groups, n_images, size_hw):
        sample = fo.Sample(filepath=str(image), cls=group)
        sample["ground_truth"] = fo.Segmentation(mask_path=str(mask))
        samples.append(sample)
    dataset.add_samples(samples)
    dataset.default_mask_targets = {255: "co-salient"}
    return dataset
