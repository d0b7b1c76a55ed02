"""Writes COCO instances: one JSON file with masks as run lengths, which keep holes and islands exactly."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from typing import IO, Any

from umscosod.data.masks import encode_rle
from umscosod.export.folder import ExportFolder, name_image
from umscosod.export.items import ExportItem, Masks, Options
from umscosod.export.polygons import Categories, bounding_box, iter_objects
from umscosod.types import BoolArray

FILE = "instances.json"


def write_coco(folder: ExportFolder, masks: Masks, options: Options) -> None:
    """Write ``instances.json``.

    Images are written first. Annotations wait in a temporary file: no mask stays in memory.

    Notes
    -----
    ``width``, ``height`` and masks are those of the upright picture. Masks are run lengths (compressed, ``counts`` as
    text), but ``iscrowd`` is 0: readers decode both forms, and 1 would mean "a crowd, do not count". An image has
    the additional key ``group``, an annotation ``group`` and (if known) ``score``. An image with an empty mask has
    no annotation.
    """
    counts, categories = folder.counts, Categories(options.category, per_group=options.per_group)
    with (
        tempfile.TemporaryFile(dir=folder.out) as annotations,  # the result's disk, so that only one disk needs room
        folder.add(FILE).open("wb") as stream,
    ):
        stream.write(b'{"info": {"description": "co-salient objects"}, "licenses": [],\n"images": [')
        for item, mask_HW in masks:
            image_id = counts.n_images
            height, width = mask_HW.shape
            name = name_image(item, options.image_root)
            image = {"id": image_id, "file_name": name, "width": width, "height": height, "group": item.group}
            _write_entry(stream, image, is_first=image_id == 1)
            category_id = 1 + categories.find(item)
            for part_HW in iter_objects(mask_HW, per_region=options.per_region):
                counts.n_objects += 1
                entry = _annotation(counts.n_objects, image_id, category_id, item, part_HW)
                _write_entry(annotations, entry, is_first=counts.n_objects == 1)
        stream.write(b'],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, stream)
        listed = [{"id": 1 + number, "name": name, "supercategory": ""} for name, number in categories.numbers.items()]
        stream.write(b'],\n"categories": ' + json.dumps(listed).encode("ascii") + b"}\n")


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
