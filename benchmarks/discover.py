"""How well `umscosod discover` recovers groups that are known: folders of images, mixed and found again.

python -m benchmarks.discover [FOLDER ...] [--backbone NAME] [--weights FILE]
Each FOLDER holds one sub-folder a group; without one, the five composed groups of the demo are taken. Prints, with the
number of groups given and chosen: purity (share of images in the majority of their found group), adjusted Rand index
(Hubert and Arabie 1985, DOI 10.1007/BF01908075; 0: chance, 1: equal; images left over count as a group), and the number
of groups.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from math import comb
from pathlib import Path

from benchmarks.rows import Given, Row, show
from umscosod import PipelineConfig, load_config
from umscosod.data.groups import groups_from_folder
from umscosod.demo.compose import make_groups
from umscosod.grouping.discover import Grouping, discover_groups


def purity(pairs: list[tuple[str, str]]) -> float:
    """Share of (true, found) pairs whose truth is the most frequent of their found group."""
    found = {label for _, label in pairs}
    return sum(max(Counter(true for true, label in pairs if label == one).values()) for one in found) / len(pairs)


def adjusted_rand(pairs: list[tuple[str, str]]) -> float:
    """Agreement of two partitions over pairs of images, less what chance gives."""

    def count(labels: list[object]) -> int:
        return sum(comb(size, 2) for size in Counter(labels).values())

    both = count(list(pairs))
    true, found = count([one for one, _ in pairs]), count([one for _, one in pairs])
    chance = true * found / comb(len(pairs), 2)
    return (both - chance) / ((true + found) / 2 - chance)


def name_pairs(grouping: Grouping) -> list[tuple[str, str]]:
    """Folder and found group of every image."""
    rows = [(image.path.parent.name, group.name) for group in grouping.groups for image in group.images]
    return rows + [(image.path.parent.name, "left over") for image in grouping.leftover]


def main() -> None:
    """Mix, find, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--weights", default="")
    given = parser.parse_args()
    settings = {"features.backbone": given.backbone, "features.weights": given.weights}
    config = load_config("fast", overrides=settings)
    with tempfile.TemporaryDirectory() as scratch:
        if not given.folders:
            make_groups(Path(scratch), seed=0, images_per_group=8, size=224)
        show(measure(given.folders or [Path(scratch) / "image"], config))


def measure(folders: list[Path], config: PipelineConfig) -> Iterator[Row]:
    """Purity and adjusted Rand index for each folder and way."""
    for folder in folders:
        true = len(groups_from_folder(folder))
        for number in (true, None):
            found = discover_groups(folder, n_groups=number, config=config)
            pairs = name_pairs(found)
            how = f"{true} groups given" if number else f"{len(found.groups)} chosen"
            yield Row(name=f"discover, {folder.name}, {how}: purity", unit="", figure=purity(pairs))
            yield Row(name=f"discover, {folder.name}, {how}: adjusted Rand", unit="", figure=adjusted_rand(pairs))


def rows(given: Given) -> Iterator[Row]:
    """Measure on the photographs, without weights."""
    if len(groups_from_folder(given.images)) < 2:
        yield Row(name="discover", detail="not run: needs two groups or more")
        return
    yield from measure([given.images], load_config("fast", overrides={"features.backbone": "embedded"}))


if __name__ == "__main__":
    main()
