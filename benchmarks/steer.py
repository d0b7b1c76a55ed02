"""Time from examples to new masks: one group relabelled from cached tokens, the library loaded.

Run ``python benchmarks/steer.py PHOTOS [--backbone NAME --weights FILE]``: ``PHOTOS`` is one folder of pictures, of
which the first 20 are taken. Their first masks are shown, moved by a tenth of the picture: there is something to learn.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from umscosod import groups_from_folder, label_groups, load_config, relabel, undo_relabel
from umscosod.data.masks import read_mask

COUNT, ROUNDS = 20, 5


def main() -> None:
    """Label a group, relabel it by one, two and three masks, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--weights", default="")
    given = parser.parse_args()
    config = load_config("fast", overrides={"features.backbone": given.backbone, "features.weights": given.weights})
    with tempfile.TemporaryDirectory() as scratch:
        group = Path(scratch, "image", "group")
        group.mkdir(parents=True)
        for file in sorted(path for path in given.photos.iterdir() if path.is_file())[:COUNT]:
            shutil.copyfile(file, group / file.name)
        images = groups_from_folder(group.parent)[0].images
        out = Path(scratch, "out")
        label_groups(group.parent, out, config, train=False)
        for shown in (1, 2, 3):
            examples = {
                image.id: np.roll(mask_HW, mask_HW.shape[1] // 10, axis=1)
                for image in images[:shown]
                for mask_HW in (read_mask(out / "masks" / image.output),)
            }
            seconds = []
            for _ in range(ROUNDS):
                seconds.append(relabel(out, examples).seconds)
                undo_relabel(out)
            print(f"{len(images)} images, {shown} shown: {statistics.median(seconds):.2f} s")
        started = time.perf_counter()
        relabel(out, {})
        print(f"nothing to do: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
