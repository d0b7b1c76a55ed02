"""Writes YOLO segmentation labels: one text file an image, one line an island."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from umscosod.export.folder import ExportFolder, name_beside
from umscosod.export.items import ExportItem, Masks, Options
from umscosod.export.polygons import Categories, Points, compute_polygons

FILE = "data.yaml"


def write_yolo(folder: ExportFolder, masks: Masks, options: Options) -> None:
    """Write ``labels/**.txt``, ``images/**`` and ``data.yaml``.

    Available image files are linked (or copied, if the disk has no links) under the names of their labels, so that one
    can train on the folder. Without them the user must fill ``images/``.

    Notes
    -----
    A line is ``class x1 y1 x2 y2 ...``; pixel (i, j) has the coordinates ((i + .5) / width, (j + .5) / height), so that
    readers that truncate to whole pixels get this pixel. The format has no holes and no islands: holes are joined to
    the outer border by seams (see `umscosod.export.polygons.compute_polygons`), and each island becomes an object. An
    empty mask gives an empty file: an image without an object.
    """
    categories = Categories(options.category, per_group=options.per_group)
    for item, mask_HW in masks:
        polygons, n_dropped = compute_polygons(mask_HW)
        number = categories.find(item)
        lines = [format_line(number, polygon, mask_HW.shape) for polygon in polygons]
        folder.add(name_beside(item, "labels", ".txt")).write_text("".join(lines), encoding="ascii", newline="\n")
        folder.counts.n_objects += len(polygons)
        folder.counts.n_dropped += n_dropped
        if item.image_file is not None:
            _link_image(folder, item, item.image_file.resolve())
    # without "path" readers use the folder of this file, so that the data set can be moved
    document = {"train": "images", "val": "images", "names": dict(enumerate(categories.numbers))}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    folder.add(FILE).write_text(text, encoding="utf-8", newline="\n")


def format_line(number: int, polygon: Points, size_hw: tuple[int, ...]) -> str:
    r"""Return one island as a line of a label file.

    Examples
    --------
    >>> import numpy as np
    >>> format_line(0, np.array([[0, 0], [0, 3], [3, 3]]), (4, 8))
    '0 0.062500 0.125000 0.062500 0.875000 0.437500 0.875000\n'
    """
    height, width = size_hw
    corners = ((polygon + 0.5) / (width, height)).ravel()
    return f"{number} {' '.join(f'{value:.6f}' for value in corners)}\n"


def _link_image(folder: ExportFolder, item: ExportItem, source: Path) -> None:
    path = folder.add(name_beside(item, "images", item.image.suffix))
    try:
        path.symlink_to(source)
    except OSError:  # the disk has no links, or the user may not make them
        shutil.copyfile(source, path)
