"""Groups that are none: too small, or thrown together."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umscosod.config import GroupingConfig, PipelineConfig
from umscosod.data.groups import groups_from_folder
from umscosod.device import resolve_device
from umscosod.features.backbone import build_backbones
from umscosod.features.cache import FeatureCache
from umscosod.features.collection import encode_collection
from umscosod.grouping.discover import check_group, check_groups

DEV = Path(__file__).resolve().parents[4] / "shared" / "data" / "dev"
PHOTOGRAPHS = DEV / "ECSSD-Groups"


def test_alike_against_thrown_together(make_points: Any) -> None:
    rows, truth = make_points(8, 8, 8, 8)
    rows = rows - rows.mean(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    mixed = np.concatenate([np.flatnonzero(truth == group)[:2] for group in range(4)])
    assert not check_group(rows[truth == 2], rows).is_mixed
    assert check_group(rows[truth == 2], rows).reason == ""
    told = check_group(rows[mixed], rows)
    assert (told.size, told.is_mixed, told.is_small) == (8, True, False)
    assert told.cohesion < 0.1
    assert told == check_group(rows[mixed], rows)


def test_chance_is_rarely_taken_for_a_group(make_points: Any) -> None:
    rows, _ = make_points(*[1] * 60, noise=1.0, width=60)
    random = np.random.default_rng(0)
    drawn = [check_group(rows[random.choice(60, 8, replace=False)], rows).is_mixed for _ in range(40)]
    assert sum(drawn) >= 34  # the quantile is .95: two of forty by chance


@pytest.mark.parametrize("size", [0, 1, 2])
def test_small_groups(make_points: Any, size: int) -> None:
    rows, truth = make_points(6, 6)
    told = check_group(rows[truth == 0][:size], rows)
    assert told.is_small
    assert told.reason.startswith(f"{size} image{'' if size == 1 else 's'} only")
    assert np.isnan(told.cohesion) == (size < 2)
    assert not check_group(rows[truth == 0][:size], rows, GroupingConfig(min_size=1)).is_small or size == 0


def test_most_of_a_collection_is_not_judged_by_it(make_points: Any) -> None:
    rows, _ = make_points(6, 6)
    assert not check_group(rows, rows).is_mixed
    assert not check_group(rows[:7], rows).is_mixed


def test_real_groups_against_the_same_photographs_dealt_out(tmp_path: Path, quick: PipelineConfig) -> None:
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"{PHOTOGRAPHS} is not here: real photographs are needed to show what the check is good for")
    groups = groups_from_folder(PHOTOGRAPHS / "image")
    pair = build_backbones(quick.features, resolve_device("cpu"))
    features = encode_collection(groups, pair, quick, FeatureCache(tmp_path))
    ids = [image.id for group in groups for image in group.images]
    dealt = {f"dealt {start}": ids[start :: len(groups)] for start in range(len(groups))}
    pure, mixed = check_groups(features), check_groups(features, members=dealt)
    assert [name for name, told in pure.items() if told.is_mixed] == []
    assert sum(told.is_mixed for told in mixed.values()) >= len(mixed) - 1  # a chance of one in twenty each


def test_three_things_in_one_group_of_photographs(tmp_path: Path, quick: PipelineConfig) -> None:
    """A third of the pairs show one thing: more than chance gives, and still no group.

    Weight-free features tell things apart badly; the shares of sets and triples are those of the default check.
    """
    if not DEV.is_dir():
        pytest.skip(f"{DEV} is not here: real photographs are needed to show what the check is good for")
    pair = build_backbones(quick.features, resolve_device("cpu"))
    pure: list[bool] = []
    mixed: list[bool] = []
    for name in ("MSRC", "ECSSD-Groups", "PascalCoSeg"):
        groups = groups_from_folder(DEV / name / "image")
        features = encode_collection(groups, pair, quick, FeatureCache(tmp_path))
        pure += [told.is_mixed for told in check_groups(features).values()]
        triples = {
            "+".join(group.name for group in triple): [image.id for group in triple for image in group.images[:6]]
            for triple in itertools.combinations(groups, 3)
        }
        mixed += [told.is_mixed for told in check_groups(features, members=triples).values()]
    assert (len(pure), len(mixed)) == (19, 75)
    assert sum(pure) <= 3
    assert sum(mixed) >= 0.7 * len(mixed)
