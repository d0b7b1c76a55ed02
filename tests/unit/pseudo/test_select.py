"""Frequency against attention, fallbacks and confidence on painted groups."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.config import PseudoConfig
from umscosod.data.masks import decode_rle
from umscosod.pseudo import select
from umscosod.pseudo.proposals import HacProposer, MaskProposal
from umscosod.pseudo.select import Category, choose_category, choose_labels
from umscosod.types import GroupFeatures

CONFIG = PseudoConfig(min_area_share=0.01)
COMMON, DISTRACTOR = box(12, 1, 1, 5, 5), box(12, 7, 7, 11, 11)


class Nothing:
    def propose(self, features: GroupFeatures, index: int) -> list[MaskProposal]:
        return []


def group_of_three() -> GroupFeatures:
    """The common object (axis 1) in all images; a distractor, more salient, of another kind in each."""
    tokens = [paint(12, {(1, 1, 5, 5): 1, (7, 7, 11, 11): 2 + i}) for i in range(3)]
    return make_features(tokens, [COMMON * 0.6 + DISTRACTOR * 1.0] * 3)


def test_k_1_is_frequency_alone_and_a_large_k_attention_alone() -> None:
    features = group_of_three()
    saliency = [COMMON * 0.2 + DISTRACTOR * 1.0] * 3
    features = replace(features, saliency_NP=np.stack(saliency).reshape(3, -1).astype(np.float32))
    by_frequency = choose_labels(features, HacProposer(CONFIG), replace(CONFIG, top_k=1))
    by_attention = choose_labels(features, HacProposer(CONFIG), replace(CONFIG, top_k=99))
    for label in by_frequency:
        np.testing.assert_array_equal(label.mask_hw, COMMON)
        assert label.details["frequency"] == 1.0
        assert label.details["rank"] == 0
    for label in by_attention:
        np.testing.assert_array_equal(label.mask_hw, DISTRACTOR)
        assert label.details["frequency"] == 1 / 3


def test_masks_alone_take_the_most_frequent_category_and_never_look_at_the_attention() -> None:
    config = replace(CONFIG, select="masks")
    features = group_of_three()
    for saliency in ([DISTRACTOR * 1.0] * 3, [COMMON * 1.0] * 3):
        other = replace(features, saliency_NP=np.stack(saliency).reshape(3, -1).astype(np.float32))
        for label in choose_labels(other, HacProposer(config), config):
            np.testing.assert_array_equal(label.mask_hw, COMMON)
            assert (label.source, label.confidence, label.is_weak) == ("hac", 1.0, False)
    for label in choose_labels(features, Nothing(), config):
        assert not label.mask_hw.any()
        assert (label.source, label.confidence) == ("none", 0.0)


def test_masks_alone_break_ties_by_the_number_of_masks() -> None:
    config = replace(CONFIG, select="masks")
    tokens = [paint(12, {(1, 1, 4, 4): 1, (8, 1, 11, 4): 2, (8, 8, 11, 11): 2}) for _ in range(2)]
    features = make_features(tokens, [box(12, 1, 1, 4, 4) * 1.0] * 2)
    for label in choose_labels(features, HacProposer(config), config):
        np.testing.assert_array_equal(label.mask_hw, box(12, 8, 1, 11, 4) | box(12, 8, 8, 11, 11))


def test_overlap_and_confidence_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    saliency = box(12, 1, 1, 5, 9) * 1.0  # 32 patches, 16 of them in the object
    features = make_features([paint(12, {(1, 1, 5, 5): 1}), paint(12, {})], [saliency, saliency])
    monkeypatch.setattr(select, "SA_MASS", 1.0)
    label, fallback = choose_labels(features, HacProposer(CONFIG), CONFIG)
    assert label.source == "hac"
    assert not label.is_weak
    assert label.details["overlap"] == 0.5
    assert label.details["frequency"] == 0.5
    assert label.confidence == 0.5  # sqrt(0.5 * 0.5)
    assert fallback.source == "attention"
    np.testing.assert_array_equal(fallback.mask_hw, saliency > 0)
    assert fallback.confidence == select.WEAK_WEIGHT  # overlap 1 with itself
    assert fallback.details["category"] is None


def test_the_label_is_the_union_of_the_masks_of_one_category() -> None:
    second = box(12, 7, 1, 10, 4)
    features = make_features([paint(12, {(1, 1, 5, 5): 1, (7, 1, 10, 4): 1})], [COMMON * 1.0])
    (label,) = choose_labels(features, HacProposer(CONFIG), CONFIG)
    np.testing.assert_array_equal(label.mask_hw, COMMON | second)
    assert label.map_hw.dtype == np.float32
    np.testing.assert_array_equal(label.map_hw, label.mask_hw)


def test_no_overlap_makes_a_weak_label() -> None:
    features = make_features([paint(12, {(1, 1, 5, 5): 1})], [DISTRACTOR * 1.0])
    (label,) = choose_labels(features, HacProposer(CONFIG), CONFIG)
    assert label.is_weak
    assert label.confidence == 0.0
    np.testing.assert_array_equal(label.mask_hw, COMMON)


def test_no_mask_takes_the_largest_component_and_a_plain_map_nothing() -> None:
    features = make_features([paint(12, {})] * 2, [(COMMON | box(12, 8, 8, 10, 10)) * 1.0, np.zeros((12, 12))])
    first, second = choose_labels(features, Nothing(), CONFIG)
    assert first.source == second.source == "attention"
    np.testing.assert_array_equal(first.mask_hw, COMMON)
    assert first.details["overlap"] == 16 / 20
    assert not second.mask_hw.any()
    assert second.is_weak
    assert second.confidence == 0.0


def test_candidates_suffice_to_rebuild_every_choice() -> None:
    features = group_of_three()
    labels = choose_labels(features, HacProposer(CONFIG), CONFIG)
    for label in labels:
        chosen = [c for c in label.details["candidates"] if c["category"] == label.details["category"]]
        union = np.any([decode_rle(c["rle"]) for c in chosen], axis=0)
        np.testing.assert_array_equal(union, label.mask_hw)
        assert len(label.details["categories"]) == 2


def test_levels_deeper_than_the_limit_are_kept_but_not_used() -> None:
    class Two:
        def propose(self, features: GroupFeatures, index: int) -> list[MaskProposal]:
            return [
                MaskProposal(mask_hw=COMMON, score=1.0, level=0, source="hac"),
                MaskProposal(mask_hw=DISTRACTOR, score=1.0, level=2, source="hac"),
            ]

    features = make_features([paint(12, {(1, 1, 5, 5): 1, (7, 7, 11, 11): 1})], [DISTRACTOR * 1.0])
    (label,) = choose_labels(features, Two(), CONFIG)
    np.testing.assert_array_equal(label.mask_hw, COMMON)
    assert [c["category"] for c in label.details["candidates"]] == [0, None]


def test_masks_over_the_group_limit_are_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "MAX_GROUP_MASKS", 3)
    features = group_of_three()
    with caplog.at_level(logging.WARNING):
        labels = choose_labels(features, HacProposer(CONFIG), CONFIG)
    assert "masks 3 can be clustered; the best 1 per image are used" in caplog.text
    assert all(len(label.details["categories"]) == 1 for label in labels)


def test_ties_of_overlap_go_to_the_more_frequent() -> None:
    order = [
        Category(id=5, frequency=1.0, mean_overlap=0.3, masks=2),
        Category(id=1, frequency=0.5, mean_overlap=0.3, masks=2),
    ]
    chosen = choose_category({1: 0.3, 5: 0.3}, order, 3)
    assert chosen is not None
    assert chosen.id == 5
    only = choose_category({1: 0.3}, order, 1)  # k counts the image's own categories
    assert only is not None
    assert only.id == 1
    assert choose_category({}, order, 3) is None
