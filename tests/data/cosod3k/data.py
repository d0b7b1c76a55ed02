"""CoSOD3k (Fan et al., CVPR 2020): image/GROUP and gt/GROUP, file names of ImageNet."""

from __future__ import annotations

from pathlib import Path

from tests.data.fake import write_pairs

GROUPS = {
    "airplane": ("ILSVRC2012_val_00000123", "n02691156_1"),
    "baby bed": ("ILSVRC2013_val_00000007",),
}


def write(root: Path) -> Path:
    """Write the fake benchmark below `root`; returns its folder."""
    return write_pairs(root / "CoSOD3k", "image", "gt", GROUPS)
