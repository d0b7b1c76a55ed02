"""What a person drew is taken over, what the screen's resolution changed is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from umscosod.integrations.fiftyone.runs.strokes import MAX_ISLANDS, Island, move_island, split_islands, take_over


def ragged(size_hw: tuple[int, int], seed: int = 0) -> Any:
    """A disk with a ragged border and holes of one pixel: one island."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    radius = 0.3 + 0.004 * rng.random(size_hw)
    disk = ((y / height - 0.5) ** 2 + (x / width - 0.5) ** 2) < radius**2
    disk[rng.random(size_hw) < 0.002] = False
    island = split_islands(disk)[0]
    whole = np.zeros(size_hw, bool)
    whole[island.y : island.y + island.mask_HW.shape[0], island.x : island.x + island.mask_HW.shape[1]] = island.mask_HW
    return whole


def on_screen(island: Island, size_hw: tuple[int, int], screen_hw: tuple[int, int]) -> Any:
    """The whole screen with the island, stretched by the nearest pixel."""
    scales = [screen / size for screen, size in zip(screen_hw, size_hw, strict=True)]
    lengths = [round(length * scale) for length, scale in zip(island.mask_HW.shape, scales, strict=True)]
    lines = [
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(lengths, island.mask_HW.shape, strict=True)
    ]
    canvas = np.zeros(screen_hw, bool)
    top, left = (round(first * scale) for first, scale in zip((island.y, island.x), scales, strict=True))
    canvas[top : top + lengths[0], left : left + lengths[1]] = island.mask_HW[np.ix_(*lines)]
    return canvas


def fitted(canvas: Any) -> tuple[Any, list[float]]:
    rows, columns = (np.flatnonzero(canvas.any(axis=axis)) for axis in (1, 0))
    height, width = canvas.shape
    cut = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cut, [columns[0] / width, rows[0] / height, cut.shape[1] / width, cut.shape[0] / height]


@pytest.mark.parametrize("screen_hw", [(749, 1123), (534, 745), (324, 454), (100, 150)])
@pytest.mark.parametrize("size_hw", [(96, 144), (401, 603), (1001, 1401)])
def test_only_the_stroke_changes(size_hw: tuple[int, int], screen_hw: tuple[int, int]) -> None:
    before = ragged(size_hw)
    (island,) = split_islands(before)
    canvas = on_screen(island, size_hw, screen_hw)
    rows = slice(round(0.45 * screen_hw[0]), round(0.55 * screen_hw[0]))
    canvas[rows] = False
    canvas[: round(0.1 * screen_hw[0]), : round(0.1 * screen_hw[1])] = True
    after = take_over(island, *fitted(canvas), size_hw)
    y, x = ((np.arange(length) + 0.5) / length for length in size_hw)
    off = 3 / min(*screen_hw, *size_hw)
    near = (np.abs(y - 0.5) < 0.05 + off)[:, None] | ((y < 0.1 + off)[:, None] & (x < 0.1 + off)[None])
    assert np.array_equal(after[~near], before[~near])
    assert not after[np.abs(y - 0.5) < 0.05 - off].any()
    assert after[np.ix_(y < 0.1 - off, x < 0.1 - off)].all()


def test_nothing_drawn_changes_nothing() -> None:
    before = ragged((401, 603))
    (island,) = split_islands(before)
    after = take_over(island, *fitted(on_screen(island, before.shape, (534, 745))), before.shape)
    assert np.array_equal(after, before)


def test_small_islands_share_one_object() -> None:
    mask = np.zeros((60, 60), bool)
    mask[::3, ::3] = True
    mask[:2, :2] = True
    islands = split_islands(mask)
    assert len(islands) == MAX_ISLANDS + 1
    assert islands[0].mask_HW.all()
    assert sum(int(island.mask_HW.sum()) for island in islands) == mask.sum()
    assert split_islands(np.zeros((3, 4), bool)) == []


def test_a_region_is_moved_as_it_is() -> None:
    (island,) = split_islands(ragged((40, 60)))
    left, top, width, height = island.box((40, 60))
    moved = move_island(island, [left + 5 / 60, top - 3 / 40, width, height], (40, 60))
    assert (moved.y, moved.x) == (island.y - 3, island.x + 5)
    assert np.array_equal(moved.mask_HW, island.mask_HW)
