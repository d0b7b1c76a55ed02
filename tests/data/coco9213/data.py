"""COCO9213 (Wang et al., AAAI 2019): img/GROUP and gt/GROUP, file names of COCO."""

from __future__ import annotations

from pathlib import Path

from tests.data.fake import write_pairs

GROUPS = {
    "airplane_2": ("COCO_train2014_000000000081", "COCO_val2014_000000000139"),
    "zebra_1": ("COCO_train2014_000000000034",),
}


def write(root: Path) -> Path:
    """Write the fake benchmark below `root`; returns its folder."""
    return write_pairs(root / "COCO9213", "img", "gt", GROUPS)
