"""Polygons: filled again they are the mask, holes included."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.unit.export.masks import MASKS
from umscosod.export.polygons import Points, compute_polygons
from umscosod.types import BoolArray


def fill(polygons: list[Points], size_hw: tuple[int, ...]) -> BoolArray:
    filled = np.zeros(size_hw, np.uint8)
    for polygon in polygons:
        one = np.zeros(size_hw, np.uint8)
        cv2.fillPoly(one, [polygon], 1)
        filled |= one
    return filled.astype(bool)


@pytest.mark.parametrize("name", MASKS)
def test_filled_again_they_are_the_mask(name: str) -> None:
    polygons, n_dropped = compute_polygons(MASKS[name])
    lost = MASKS[name] & ~fill(polygons, MASKS[name].shape)
    assert not (fill(polygons, MASKS[name].shape) & ~MASKS[name]).any()
    assert lost.sum() <= 2 * n_dropped  # single pixels and pairs are no polygons


@given(arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_any_mask_comes_back_but_for_what_was_dropped(mask_HW: BoolArray) -> None:
    polygons, n_dropped = compute_polygons(mask_HW)
    filled = fill(polygons, mask_HW.shape)
    _, labels = cv2.connectedComponents(mask_HW.astype(np.uint8), connectivity=8)
    whole = [region for region in range(1, int(labels.max()) + 1) if filled[labels == region].all()]
    assert not (filled & ~mask_HW).any()
    assert len(whole) == len(polygons) == int(labels.max()) - n_dropped


def test_a_hole_is_joined_by_a_seam_and_an_island_is_a_polygon_of_its_own() -> None:
    ring = np.ones((7, 7), bool)
    ring[2:5, 2:5] = False
    [polygon], _ = compute_polygons(ring)
    assert len(polygon) > 8  # four corners outside, four inside, and the ends of the seam twice
    ring[3, 3] = True
    polygons, n_dropped = compute_polygons(ring)
    assert (len(polygons), n_dropped) == (1, 1)  # one pixel is no polygon
