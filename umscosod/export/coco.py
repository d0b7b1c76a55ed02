"""Writes COCO instances: one JSON file with masks as run lengths, which keep holes and islands exactly."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from umscosod.data.masks import encode_rle
from umscosod.export.folder import name_image, open_export
from umscosod.export.items import DEFAULT_CATEGORY, Counts, ExportItem, ExportReport, iter_masks
from umscosod.export.polygons import Categories, bounding_box, iter_objects
from umscosod.types import BoolArray

FILE = "instances.json"


def export_coco(
    items: Iterable[ExportItem],
    out: str | os.PathLike[str],
    *,
    category: str = DEFAULT_CATEGORY,
    per_group: bool = False,
    per_region: bool = False,
    image_root: Path | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write ``OUT/instances.json``.

    Images are written first. Annotations wait in a temporary file: no mask stays in memory.

    Parameters
    ----------
    items : iterable of ExportItem
        Read one at a time.
    out : path
    category : str
        Name of the one category (id 1).
    per_group : bool
        One category for each group, numbered in order of appearance.
    per_region : bool
        One annotation for each connected region; otherwise one an image.
    image_root : Path, optional
        ``file_name`` is relative to it; without it, ``file_name`` is the item's path.
    overwrite : bool
        See `umscosod.export.folder.open_export`.

    Returns
    -------
    ExportReport

    Raises
    ------
    DataError
        As `umscosod.export.folder.open_export`.

    Notes
    -----
    ``width``, ``height`` and masks are those of the upright picture. Masks are run lengths (compressed, ``counts`` as
    text), but ``iscrowd`` is 0: readers decode both forms, and 1 would mean "a crowd, do not count". An image has
    the additional key ``group``, an annotation ``group`` and (if known) ``score``. An image with an empty mask has
    no annotation.
    """
    counts = Counts()
    categories = Categories(category, per_group=per_group, first=1)
    with (
        open_export(out, "coco", counts, overwrite=overwrite) as folder,
        tempfile.TemporaryFile(dir=folder.out) as annotations,  # the result's disk, so that only one disk needs room
        folder.add(FILE).open("wb") as stream,
    ):
        stream.write(b'{"info": {"description": "co-salient objects"}, "licenses": [],\n"images": [')
        for item, mask_HW in iter_masks(items, counts):
            image_id = counts.n_images
            height, width = mask_HW.shape
            name = name_image(item, image_root)
            image = {"id": image_id, "file_name": name, "width": width, "height": height, "group": item.group}
            _write_entry(stream, image, is_first=image_id == 1)
            category_id = categories.find(item)
            for part_HW in iter_objects(mask_HW, per_region=per_region):
                counts.n_objects += 1
                entry = _annotation(counts.n_objects, image_id, category_id, item, part_HW)
                _write_entry(annotations, entry, is_first=counts.n_objects == 1)
        stream.write(b'],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, stream)
        listed = [{"id": 1 + index, "name": name, "supercategory": ""} for index, name in enumerate(categories.names)]
        stream.write(b'],\n"categories": ' + json.dumps(listed).encode("ascii") + b"}\n")
    return counts.report(folder.out)


def _annotation(number: int, image_id: int, category_id: int, item: ExportItem, mask_HW: BoolArray) -> dict[str, Any]:
    entry = {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": encode_rle(mask_HW),
        "area": int(mask_HW.sum()),
        "bbox": list(bounding_box(mask_HW)),
        "iscrowd": 0,
        "group": item.group,
    }
    if item.confidence is not None:
        entry["score"] = round(item.confidence, 6)
    return entry


def _write_entry(stream: IO[bytes], entry: Mapping[str, Any], *, is_first: bool) -> None:
    stream.write((b"\n" if is_first else b",\n") + json.dumps(entry, allow_nan=False).encode("ascii"))
