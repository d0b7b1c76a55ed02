"""Pseudo-labels cleaned by border contrast and group prototypes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.pseudo.groups import make_features
from umscosod.config import PseudoConfig
from umscosod.pseudo import cleaning
from umscosod.pseudo.cleaning import clean_labels, prototype_nearness, token_contrast
from umscosod.types import GroupFeatures, PseudoLabel

GRID = (6, 6)
CONFIG = PseudoConfig(clean="prototype")
OBJECT, SKY, LEAF = np.eye(3)


def scene(*, with_leaf: bool = False) -> np.ndarray:
    """Sky, a 2 x 2 object in the middle, and, if asked, a leaf that belongs to this image alone."""
    tokens_hwD = np.tile(SKY, (*GRID, 1))
    tokens_hwD[2:4, 2:4] = OBJECT
    if with_leaf:
        tokens_hwD[1, 4] = LEAF
    return tokens_hwD.reshape(36, 3)


def features_of(*scenes: np.ndarray) -> GroupFeatures:
    return make_features([one.reshape(*GRID, 3) for one in scenes], [np.zeros(GRID)] * len(scenes))


def label(features: GroupFeatures, index: int, mask_hw: np.ndarray, source: str = "hac") -> PseudoLabel:
    image_id = features.group.images[index].id
    return PseudoLabel(
        image_id=image_id, map_hw=mask_hw.astype(np.float32), mask_hw=mask_hw, confidence=0.7, source=source
    )


def are_untouched(cleaned: dict[str, PseudoLabel], labels: dict[str, PseudoLabel]) -> bool:
    return cleaned.keys() == labels.keys() and all(cleaned[name] is labels[name] for name in labels)


def truth() -> np.ndarray:
    mask_hw = np.zeros(GRID, bool)
    mask_hw[2:4, 2:4] = True
    return mask_hw


def test_what_surrounds_the_object_goes_and_what_is_missing_comes() -> None:
    features = features_of(scene(), scene(), scene())
    wide, narrow = truth(), np.zeros(GRID, bool)
    wide[2:4, 1:5] = True  # sky on both sides comes with it
    narrow[2, 2:4] = True
    labels = [label(features, 0, wide), label(features, 1, narrow), label(features, 2, truth())]
    cleaned = clean_labels(features, {one.image_id: one for one in labels}, CONFIG)
    for one in cleaned.values():
        assert np.array_equal(one.mask_hw, truth())
        assert one.is_map
        assert (one.source, one.confidence) == ("hac", 0.7)
        assert one.map_hw.dtype == np.float32
        assert one.map_hw.min() == 0.0
        assert one.map_hw.max() == 1.0


def test_what_stands_out_in_one_image_only_counts_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "CLEAN_GAIN", 1.0)
    features = features_of(scene(with_leaf=True), scene(), scene())
    labels = {one.image_id: one for one in (label(features, i, truth()) for i in range(3))}
    first = next(iter(clean_labels(features, labels, CONFIG).values()))
    assert first.map_hw[truth()].min() == pytest.approx(1.0)
    assert first.map_hw[1, 4] == pytest.approx(0.5, abs=0.1)  # as unlike the border, but like neither prototype


def test_a_persons_mask_stays_and_speaks_for_the_group() -> None:
    features = features_of(scene(), scene())
    human = label(features, 0, truth(), source="human")
    cleaned = clean_labels(features, {human.image_id: human}, CONFIG)
    assert are_untouched(cleaned, {human.image_id: human})


@pytest.mark.parametrize("fill", [True, False])
def test_labels_of_all_or_nothing_say_nothing(fill: bool) -> None:
    features = features_of(scene(), scene())
    labels = {one.image_id: one for one in (label(features, i, np.full(GRID, fill)) for i in range(2))}
    assert are_untouched(clean_labels(features, labels, CONFIG), labels)


def test_none_and_auto_for_fitted_attention_leave_labels_alone() -> None:
    features = features_of(scene(), scene())
    labels = {one.image_id: one for one in (label(features, i, truth()) for i in range(2))}
    assert are_untouched(clean_labels(features, labels, replace(CONFIG, clean="none")), labels)
    fitted = replace(features, first=replace(features.first, has_attention=False))
    assert are_untouched(clean_labels(fitted, labels, replace(CONFIG, clean="auto")), labels)
    assert not are_untouched(clean_labels(features, labels, replace(CONFIG, clean="auto")), labels)


def test_equal_patches_give_empty_maps_not_nan() -> None:
    features = features_of(np.tile(SKY, (36, 1)), np.tile(SKY, (36, 1)))
    labels = {one.image_id: one for one in (label(features, i, truth()) for i in range(2))}
    for one in clean_labels(features, labels, CONFIG).values():
        assert not one.map_hw.any()


def test_gain_moves_values_away_from_one_half_but_no_border(monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_of(scene(with_leaf=True), scene(), scene())
    labels = {one.image_id: one for one in (label(features, i, truth()) for i in range(3))}
    steep = clean_labels(features, labels, CONFIG)
    monkeypatch.setattr(cleaning, "CLEAN_GAIN", 1.0)
    flat = clean_labels(features, labels, CONFIG)
    for name in flat:
        assert np.array_equal(flat[name].mask_hw, steep[name].mask_hw)
        assert (np.abs(steep[name].map_hw - 0.5) >= np.abs(flat[name].map_hw - 0.5) - 1e-6).all()


def test_contrast_and_nearness_by_hand() -> None:
    tokens = scene()[None]
    contrast = token_contrast(tokens, GRID).reshape(GRID)
    assert np.array_equal(contrast, truth().astype(float))
    cover = truth().astype(float).reshape(1, 36)
    nearness = prototype_nearness(tokens, tokens, cover).reshape(GRID)
    assert np.array_equal(nearness, truth().astype(float))  # cosines 1 and 0, and 0 and 1
