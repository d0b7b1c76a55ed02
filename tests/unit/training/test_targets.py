"""Weights, targets and the fingerprint of a training set."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch

from tests.unit.training.conftest import Collection
from umscosod.errors import DataError
from umscosod.training.sampler import build_targets, compute_fingerprint, image_weight, select_groups
from umscosod.types import PseudoLabel


def _label(mask: list[list[int]], confidence: float = 0.5, source: str = "hac") -> PseudoLabel:
    array = np.array(mask, dtype=bool)
    return PseudoLabel(
        image_id="a", map_hw=array.astype(np.float32), mask_hw=array, confidence=confidence, source=source
    )


def test_weight_is_confidence_and_empty_machine_masks_weigh_nothing() -> None:
    assert image_weight(_label([[1, 0]])) == 0.5
    assert image_weight(_label([[0, 0]])) == 0.0
    assert image_weight(_label([[0, 0]], source="human")) == 0.5
    assert image_weight(None) == 0.0


def test_equal_weights_count_every_label_alike_but_not_those_left_out() -> None:
    assert image_weight(_label([[1, 0]], confidence=0.1), "equal") == 1.0
    assert image_weight(_label([[1, 0]], confidence=0.0), "equal") == 1.0, "an overlap of 0 is still a label"
    weak = dataclasses.replace(_label([[1, 0]], confidence=0.0), is_weak=True)  # pseudo.weak_weight = 0
    assert image_weight(weak, "equal") == 0.0
    assert image_weight(_label([[0, 0]]), "equal") == 0.0
    assert image_weight(None, "equal") == 0.0


def test_targets_are_masks_by_nearest_neighbour() -> None:
    got = build_targets([_label([[1, 0], [0, 1]]), _label([[1]])], (4, 4))
    assert got.dtype == torch.float32
    assert got[0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert got[1].eq(1).all()


def test_images_and_groups_without_labels_are_left_out(
    collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    groups = [one.group for one in collection.features]
    labels = {name: label for name, label in collection.labels.items() if not name.startswith("group2/")}
    labels["group0/1.png"] = dataclasses.replace(labels["group0/1.png"], confidence=0.0)
    with caplog.at_level(logging.WARNING):
        assert select_groups(groups, labels) == {0: (0, 2), 1: (0, 1, 2, 3, 4)}
    assert "1 of 3 groups" in caplog.text
    with pytest.raises(DataError, match="none of the 10 images"):
        select_groups(groups, {})


def test_fingerprint_changes_with_anything_that_matters(collection: Collection) -> None:
    groups, labels = [one.group for one in collection.features], collection.labels
    base = compute_fingerprint(groups, labels)
    assert compute_fingerprint(list(groups), dict(labels)) == base
    flipped = dataclasses.replace(labels["group0/0.png"], mask_hw=~labels["group0/0.png"].mask_hw)
    lighter = dataclasses.replace(labels["group0/0.png"], confidence=0.25)
    others = [
        compute_fingerprint(groups[::-1], labels),
        compute_fingerprint(groups, labels | {"group0/0.png": flipped}),
        compute_fingerprint(groups, labels | {"group0/0.png": lighter}),
    ]
    assert len({base, *others}) == 4
