"""Time from examples to new masks: one group relabelled from cached tokens, the library loaded.

Run ``python -m benchmarks.steer PHOTOS [--backbone NAME --weights FILE]``: ``PHOTOS`` is one folder of pictures, of
which the first 20 are taken. Their first masks are shown, moved by a tenth of the picture: there is something to learn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.label import copy_group
from benchmarks.rows import Given, Row, scratch_folder, show
from umscosod import groups_from_folder, label_groups, load_config, relabel, undo_relabel
from umscosod.data.masks import read_mask

COUNT, ROUNDS = 20, 5


def rows(given: Given) -> Iterator[Row]:
    """Measure without weights."""
    yield from measure(given.paths(6 if given.is_quick else COUNT), 1 if given.is_quick else ROUNDS, {})


def measure(photos: Sequence[Path], rounds: int, features: dict[str, str]) -> Iterator[Row]:
    """Label a group, relabel it by one, two and three masks, then by nothing."""
    config = load_config("fast", overrides={"features.backbone": "embedded", **features})
    with scratch_folder() as scratch:
        folder = copy_group(photos, scratch / "image")
        images = groups_from_folder(folder)[0].images
        out = scratch / "out"
        label_groups(folder, out, config, train=False)
        for shown in (1, 2, 3):
            examples = {
                image.id: np.roll(mask_HW, mask_HW.shape[1] // 10, axis=1)
                for image in images[:shown]
                for mask_HW in (read_mask(out / "masks" / image.output),)
            }
            seconds = []
            for _ in range(rounds):
                seconds.append(relabel(out, examples).seconds)
                undo_relabel(out)
            name = f"relabel a group of {len(images)}, {shown} shown"
            yield Row(name=name, better="lower", unit="s", figure=statistics.median(seconds))
        started = time.perf_counter()
        relabel(out, {})
        name = f"relabel a group of {len(images)}, nothing to do"
        yield Row(name=name, better="lower", unit="s", figure=time.perf_counter() - started)


def main() -> None:
    """Print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--weights", default="")
    given = parser.parse_args()
    photos = sorted(path for path in given.photos.iterdir() if path.is_file())[:COUNT]
    show(measure(photos, ROUNDS, {"features.backbone": given.backbone, "features.weights": given.weights}))


if __name__ == "__main__":
    main()
