"""Fast clustering against a naive one that looks at every pair at every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from umscosod.errors import ConfigError, DataError
from umscosod.pseudo.regions import merge_patches

DESCENDING = (0.8, 0.4, 0.2, 0.1)


def naive_partitions(keys: NDArray[np.float64], grid_hw: tuple[int, int], levels: Sequence[float]) -> list[list[int]]:
    """Reference: recompute the cosine of every neighbouring pair from scratch before each merge."""
    height, width = grid_hw
    label = list(range(height * width))
    result = []
    for level in levels:
        while True:
            units = {}
            for region in set(label):
                mean = keys[[p for p, r in enumerate(label) if r == region]].sum(axis=0)
                norm = np.sqrt((mean**2).sum())
                units[region] = mean / norm if norm > 0 else mean * 0
            pairs = set()
            for row in range(height):
                for col in range(width):
                    here = label[row * width + col]
                    for r2, c2 in ((row, col + 1), (row + 1, col)):
                        if r2 < height and c2 < width and label[r2 * width + c2] != here:
                            there = label[r2 * width + c2]
                            pairs.add((min(here, there), max(here, there)))
            # ten digits: equal cosines tie whatever the order of the sums
            scored = sorted((-round(float(units[a] @ units[b]), 10), a, b) for a, b in pairs)
            if not scored or -scored[0][0] < level:
                break
            _, first, second = scored[0]
            label = [first if r == second else r for r in label]
        order = {region: i for i, region in enumerate(dict.fromkeys(label))}
        result.append([order[r] for r in label])
    return result


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("grid_hw", [(1, 1), (1, 7), (5, 4), (6, 6)])
def test_random_grids_equal_the_naive_merging(seed: int, grid_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(grid_hw[0] * grid_hw[1], 3))
    got = [m.ravel().tolist() for m in merge_patches(keys, grid_hw, DESCENDING)]
    assert got == naive_partitions(keys, grid_hw, DESCENDING)


@pytest.mark.parametrize("seed", range(6))
def test_structured_grids_with_many_ties_equal_the_naive_merging(seed: int) -> None:
    rng = np.random.default_rng(seed)
    palette = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0], [-1, 0, 0]])
    keys = palette[rng.integers(0, len(palette), size=30)]
    got = [m.ravel().tolist() for m in merge_patches(keys, (5, 6), (0.9, 0.3, 0.0, -1.0))]
    assert got == naive_partitions(keys, (5, 6), (0.9, 0.3, 0.0, -1.0))


def test_one_run_equals_separate_runs() -> None:
    keys = np.random.default_rng(0).normal(size=(100, 4))
    together = merge_patches(keys, (10, 10), DESCENDING)
    apart = [merge_patches(keys, (10, 10), (level,))[0] for level in DESCENDING]
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_square_on_a_plain_background_is_one_region() -> None:
    keys = np.tile([1.0, 0.0], (64, 1)).reshape(8, 8, 2)
    keys[2:5, 3:6] = [0.0, 1.0]
    (map_hw,) = merge_patches(keys.reshape(64, 2), (8, 8), (0.5,))
    expected = np.zeros((8, 8), dtype=np.int32)
    expected[2:5, 3:6] = 1
    np.testing.assert_array_equal(map_hw, expected)


def test_a_cosine_equal_to_the_threshold_merges() -> None:
    keys = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert merge_patches(keys, (1, 2), (np.sqrt(0.5),))[0].max() == 0
    assert merge_patches(keys, (1, 2), (np.sqrt(0.5) + 1e-6,))[0].max() == 1


def test_float16_keys_are_accepted_and_left_alone() -> None:
    keys = np.random.default_rng(3).normal(size=(9, 5)).astype(np.float16)
    before = keys.copy()
    assert merge_patches(keys, (3, 3), (0.3,))[0].dtype == np.int32
    np.testing.assert_array_equal(keys, before)


@pytest.mark.parametrize("thresholds", [(), (0.1, 0.2), (0.3, 0.3)])
def test_thresholds_must_descend(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="hac_thresholds"):
        merge_patches(np.ones((4, 2)), (2, 2), thresholds)


def test_bad_keys_are_refused() -> None:
    with pytest.raises(DataError, match="2 x 3"):
        merge_patches(np.ones((4, 2)), (2, 3), (0.5,))
    with pytest.raises(DataError, match="NaN"):
        merge_patches(np.full((4, 2), np.nan), (2, 2), (0.5,))
