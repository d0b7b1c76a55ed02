"""Sound masks, and the default proposer on painted grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.config import PseudoConfig
from umscosod.pseudo.proposals import HacProposer, MaskProposal, drop_duplicates, is_sound_mask

CONFIG = PseudoConfig()


def proposal(mask: np.ndarray, level: int = 0, score: float = 1.0) -> MaskProposal:
    return MaskProposal(mask_hw=mask, score=score, level=level, source="hac")


def test_area_and_corner_rules() -> None:
    assert is_sound_mask(box(20, 5, 5, 10, 10), CONFIG)
    assert not is_sound_mask(np.zeros((20, 20), dtype=bool), CONFIG)
    assert not is_sound_mask(np.zeros((20, 20), dtype=bool), replace(CONFIG, min_area_share=0.0))
    assert not is_sound_mask(box(20, 5, 5, 6, 6), CONFIG)  # 1 of 400 < 0.5 %
    assert is_sound_mask(box(20, 5, 5, 6, 7), CONFIG)  # 2 of 400 = 0.5 %
    assert is_sound_mask(box(20, 0, 0, 16, 20), CONFIG)  # 80 %, 2 corners
    assert not is_sound_mask(box(20, 0, 0, 17, 20), CONFIG)
    three = box(20, 0, 0, 2, 20) | box(20, 0, 0, 20, 2)
    assert not is_sound_mask(three, CONFIG)


def test_a_1x1_mask_is_background() -> None:
    assert not is_sound_mask(np.ones((1, 1), dtype=bool), CONFIG)


def test_hac_finds_the_painted_object_and_its_part_with_holes_filled() -> None:
    tokens = paint(12, {(2, 2, 8, 8): 1})
    tokens[2:4, 2:8] = [0.0, 1.0, 0.8, 0.0, 0.0, 0.0]  # a part: cosine 0.78 with the rest of the object
    tokens[6, 6] = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]  # a hole, unlike all else
    features = make_features([tokens], [np.ones((12, 12))])
    config = replace(CONFIG, hac_thresholds=(0.9, 0.5), min_area_share=0.01)
    found = HacProposer(config).propose(features, 0)
    by_level = {one.level: one for one in found}
    assert {one.source for one in found} == {"hac"}
    np.testing.assert_array_equal(by_level[0].mask_hw, box(12, 2, 2, 8, 8))
    parts = [one.mask_hw for one in found if one.level == 1]
    assert any(np.array_equal(mask, box(12, 2, 2, 4, 8)) for mask in parts)
    assert not any(one.mask_hw[0, 0] for one in found)  # the background holds 4 corners


def test_hac_finds_nothing_on_a_plain_image() -> None:
    features = make_features([paint(6, {})], [np.zeros((6, 6))])
    assert HacProposer(CONFIG).propose(features, 0) == []


def test_duplicates_go_and_levels_follow_coverage() -> None:
    whole, part = box(20, 0, 0, 10, 10), box(20, 0, 0, 5, 5)
    near = whole.copy()
    near[0, 0] = False
    kept = drop_duplicates([proposal(part), proposal(whole), proposal(near)], relevel=True)
    assert [one.level for one in kept] == [1, 0]
    np.testing.assert_array_equal(kept[1].mask_hw, whole)
    told = drop_duplicates([proposal(part, level=2), proposal(whole)], relevel=False)
    assert [one.level for one in told] == [2, 0]
    assert drop_duplicates([], relevel=True) == []
