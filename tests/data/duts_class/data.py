"""DUTS-class (Zhang et al., GICD, ECCV 2020): DUTS by ImageNet class, img/GROUP and gt/GROUP."""

from __future__ import annotations

from pathlib import Path

from tests.data.fake import write_pairs

GROUPS = {
    "accordion": ("ILSVRC2012_test_00000022", "n02672831_10005"),
    "can opener": ("n02951585_1",),
}


def write(root: Path) -> Path:
    """Write the fake benchmark below `root`; returns its folder."""
    return write_pairs(root / "DUTS_class", "img", "gt", GROUPS)
