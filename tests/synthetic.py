"""A tiny collection with exact masks, composed by the product's own demo generator."""

from __future__ import annotations

from pathlib import Path

from umscosod.demo.compose import GROUP_NAMES, DemoGroup, make_groups


def tiny_collection(
    tmp_path: Path, groups: int = 2, images: int = 3, size: int = 96, *, seed: int = 0
) -> list[DemoGroup]:
    """Write ``tmp_path/image/GROUP/NAME.jpg`` and ``tmp_path/gt/GROUP/NAME.png`` in well under a second.

    `groups` counts from the easiest: coffee, shuttle, cat, astronaut, coins.
    """
    order = ("coffee", "shuttle", "cat", "astronaut", "coins")
    assert sorted(order) == sorted(GROUP_NAMES)
    assert 1 <= groups <= len(order), f"there are {len(order)} demo groups, not {groups}"
    return make_groups(tmp_path, seed=seed, groups=order[:groups], images_per_group=images, size=size)
