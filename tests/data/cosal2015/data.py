"""CoSal2015 (Zhang et al., IJCV 2016): Image/GROUP and GroundTruth/GROUP."""

from __future__ import annotations

from pathlib import Path

from tests.data.fake import write_pairs

GROUPS = {
    "aeroplane": ("aeroplane_001", "aeroplane_002", "aeroplane_010"),
    "axe": ("axe_001",),
}


def write(root: Path) -> Path:
    """Write the fake benchmark below `root`; returns its folder."""
    return write_pairs(root / "CoSal2015", "Image", "GroundTruth", GROUPS)
