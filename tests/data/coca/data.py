"""CoCA (Zhang et al., GICD, ECCV 2020): image/GROUP and binary/GROUP, file names of COCO."""

from __future__ import annotations

from pathlib import Path

from tests.data.fake import write_pairs

GROUPS = {
    "Accordion": ("000000005539", "000000086220"),
    "Teddy bear": ("000000001089",),
}


def write(root: Path) -> Path:
    """Write the fake benchmark below `root`; returns its folder."""
    return write_pairs(root / "CoCA", "image", "binary", GROUPS)
