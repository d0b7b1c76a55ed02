"""Writes CVAT for images 1.1: one XML file with run-length masks, to upload and correct in CVAT."""

from __future__ import annotations

import logging
import shutil
import tempfile
from xml.sax.saxutils import escape, quoteattr  # writes XML, reads none  # nosec B406

import numpy as np

from umscosod.export.folder import ExportFolder, clean_markup, name_image
from umscosod.export.items import Masks, Options
from umscosod.export.polygons import Categories, bounding_box, iter_objects
from umscosod.types import BoolArray

logger = logging.getLogger(__name__)

FILE = "annotations.xml"
_LINE_END = {"\r": "&#13;"}  # a reader would turn it into a line feed


def write_cvat(folder: ExportFolder, masks: Masks, options: Options) -> None:
    """Write ``annotations.xml``. The labels of the CVAT task must have the names of the categories.

    References
    ----------
    XML annotation format, version 1.1: https://docs.cvat.ai/docs/other/xml_format
    """
    counts, categories = folder.counts, Categories(options.category, per_group=options.per_group)
    lost: list[str] = []
    # the header lists the labels, which are known only at the end
    with tempfile.TemporaryFile(dir=folder.out) as images:  # on the result's disk, so that only one disk needs room
        for item, mask_HW in masks:
            height, width = mask_HW.shape
            number, name = counts.n_images - 1, name_image(item, options.image_root)
            lost += [one for one in (name, categories.name_of(item)) if clean_markup(one) != one]
            images.write(_encode(f'  <image id="{number}" name={quoteattr(name)} width="{width}" height="{height}">\n'))
            categories.find(item)
            for part_HW in iter_objects(mask_HW, per_region=options.per_region):
                counts.n_objects += 1
                images.write(_encode(_mask_element(part_HW, categories.name_of(item))))
            images.write(b"  </image>\n")
        if lost:
            logger.warning(
                "%d names hold characters that XML cannot (%r is one): '?' stands for them, so that CVAT will not find "
                "those files by name; rename the files",
                len(set(lost)),
                lost[0],
            )
        images.seek(0)
        with folder.add(FILE).open("wb") as stream:
            stream.write(_encode(_head(list(categories.numbers), counts.n_images)))
            shutil.copyfileobj(images, stream)
            stream.write(b"</annotations>\n")


def encode_runs(mask_HW: BoolArray) -> list[int]:
    """Return run lengths along the rows, background first (a mask that starts with the object starts with 0).

    Examples
    --------
    >>> encode_runs(np.array([[True, False], [False, True]]))
    [0, 1, 2, 1]
    """
    flat = np.concatenate([[False], mask_HW.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs: list[int] = np.diff(np.concatenate([[0], edges, [mask_HW.size]])).tolist()
    return runs


def _mask_element(mask_HW: BoolArray, name: str) -> str:
    """Return one mask as a CVAT element: run lengths within its bounding box."""
    left, top, width, height = bounding_box(mask_HW)
    runs = encode_runs(mask_HW[top : top + height, left : left + width])
    return (
        f'    <mask label={quoteattr(name)} source="auto" occluded="0" rle="{", ".join(map(str, runs))}" '
        f'left="{left}" top="{top}" width="{width}" height="{height}" z_order="0">\n    </mask>\n'
    )


def _head(names: list[str], n_images: int) -> str:
    labels = "".join(
        f"        <label>\n          <name>{escape(name, _LINE_END)}</name>\n          <type>mask</type>\n"
        "          <attributes>\n          </attributes>\n        </label>\n"
        for name in names
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n'
        f"      <name>co-salient objects</name>\n      <size>{n_images}</size>\n      <mode>annotation</mode>\n"
        f"      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"
    )


def _encode(text: str) -> bytes:
    return clean_markup(text).encode()
