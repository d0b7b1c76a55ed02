"""Contrast and keys of the weight-free backbone, beside their plain form: time, and how far both are apart.

Run ``python -m benchmarks.embedded PHOTOS``: a folder, of which the first 40 pictures are taken.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.reference import embedded as plain
from umscosod import groups_from_folder
from umscosod.data.images import decode_image, square_picture
from umscosod.device import one_blas_thread
from umscosod.features import embedded as ours
from umscosod.types import FloatArray

COUNT, SIZE_PX, CELL_PX = 40, 224, 8
GRID_HW = (SIZE_PX // CELL_PX,) * 2


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    images = [image for group in groups_from_folder(parser.parse_args().photos) for image in group.images][:COUNT]
    cv2.setNumThreads(1)
    with one_blas_thread():
        described = [
            ours.compute_descriptors(square_picture(decode_image(image.path), SIZE_PX), CELL_PX).reshape(
                -1, ours.DESCRIPTOR_DIM
            )
            for image in images
        ]
        colours = [np.sqrt(ours._squared_distances(one[:, :3].astype(np.float64))) for one in described]
        compare("background", plain.background_probability, ours._background_probability, colours)
        compare("keys, signs aside", plain.spectral_keys, ours.spectral_keys, described)


def compare(
    name: str,
    before: Callable[[FloatArray, tuple[int, int]], FloatArray],
    after: Callable[[FloatArray, tuple[int, int]], FloatArray],
    inputs: list[FloatArray],
) -> None:
    """Time both on all inputs, in turn."""
    seconds, apart = np.zeros(2), 0.0
    for one in inputs:
        found = []
        for place, make in enumerate((before, after)):
            started = time.process_time()
            found.append(make(one, GRID_HW))
            seconds[place] += time.process_time() - started
        apart = max(apart, float(np.abs(np.abs(found[0]) - np.abs(found[1])).max()))
    first, second = 1000.0 * seconds / len(inputs)
    print(f"{name}: {first:.0f} -> {second:.0f} ms an image, {first / second:.1f} x; largest difference {apart:.1e}")


if __name__ == "__main__":
    main()
