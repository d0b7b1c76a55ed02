"""Descriptors, contrast and keys of the weight-free backbone beside their plain form: time, and largest difference.

Run ``python -m benchmarks.embedded PHOTOS``: a folder, of which the first 40 pictures are taken.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.reference import embedded as plain
from benchmarks.rows import Given, Row, show
from umscosod.data.images import decode_image, square_picture
from umscosod.device import one_blas_thread
from umscosod.features import embedded as ours
from umscosod.types import ByteArray, FloatArray

COUNT, SIZE_PX, CELL_PX = 40, 224, 8


def rows(given: Given) -> Iterator[Row]:
    """Measure on the first photographs."""
    cv2.setNumThreads(1)
    with one_blas_thread():
        paths = given.paths(4 if given.is_quick else COUNT)
        pictures = [square_picture(decode_image(path), SIZE_PX) for path in paths]
        yield compare("descriptors", partial(plain.compute_descriptors, cell_px=CELL_PX), describe, pictures)
        described = [describe(picture).reshape(-1, ours.DESCRIPTOR_DIM) for picture in pictures]
        colours = [cdist(one[:, :3], one[:, :3]) for one in described]
        on_grid = {"grid_hw": (SIZE_PX // CELL_PX,) * 2}
        background = (plain.background_probability, ours._background_probability)
        yield compare("background", *(partial(make, **on_grid) for make in background), colours)
        keys = (plain.spectral_keys, ours.spectral_keys)
        yield compare("keys, signs aside", *(partial(make, **on_grid) for make in keys), described)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    show(rows(Given(images=parser.parse_args().photos)))


def describe(picture_HW3: ByteArray) -> FloatArray:
    """Ours, for the benchmark's cells."""
    return ours.compute_descriptors(picture_HW3, CELL_PX)


def compare(
    name: str, before: Callable[[Any], FloatArray], after: Callable[[Any], FloatArray], inputs: Sequence[Any]
) -> Row:
    """Time both on all inputs, in turn."""
    seconds, apart = np.zeros(2), 0.0
    for one in inputs:
        found = []
        for place, make in enumerate((before, after)):
            started = time.process_time()
            found.append(make(one))
            seconds[place] += time.process_time() - started
        apart = max(apart, float(np.abs(np.abs(found[0]) - np.abs(found[1])).max()))
    first, second = 1000.0 * seconds / len(inputs)
    return Row(
        name=f"`embedded`, {name}: plain form, ours",
        figure=first / second,
        detail=f"{first:.0f} and {second:.0f} ms an image, largest difference {apart:.1e}",
    )


if __name__ == "__main__":
    main()
