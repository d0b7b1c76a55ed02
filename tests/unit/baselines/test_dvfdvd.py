"""Clusters over a group, and their votes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.baselines.dvfdvd import cluster_patches, count_votes, dvfdvd_maps
from umscosod.types import GroupFeatures


def group() -> GroupFeatures:
    """Axis 1 in all three images, axis 2 in the last alone; the attention lies on both."""
    boxes = [(1, 1, 3, 3), (2, 2, 5, 5), (1, 1, 3, 3)]
    tokens = [paint(6, {boxes[0]: 1}), paint(6, {boxes[1]: 1}), paint(6, {boxes[2]: 1, (4, 4, 6, 6): 2})]
    saliency = [box(6, *one).astype(float) for one in boxes]
    saliency[2] += box(6, 4, 4, 6, 6)
    return make_features(tokens, saliency)


def test_what_all_images_share_is_found_and_what_one_has_is_not() -> None:
    maps = dvfdvd_maps(group(), seed=1)
    assert maps.dtype == np.float32
    for map_hw, where in zip(maps, [(1, 1, 3, 3), (2, 2, 5, 5), (1, 1, 3, 3)], strict=True):
        np.testing.assert_array_equal(map_hw >= 0.5, box(6, *where))


def test_two_clear_clusters_are_found_and_the_elbow_stops_there() -> None:
    tokens = np.stack([paint(6, {(1, 1, 4, 4): 1}).reshape(36, -1)] * 2)
    labels = cluster_patches(tokens, np.random.default_rng(0))
    assert len(np.unique(labels)) == 2
    object_36 = box(6, 1, 1, 4, 4).ravel()
    assert len(np.unique(labels[:, object_36])) == len(np.unique(labels[:, ~object_36])) == 1


def test_equal_seeds_give_equal_bits() -> None:
    noisy = group()
    noise = np.random.default_rng(2).normal(0, 0.3, noisy.first.keys_NPK.shape)
    noisy = replace(noisy, first=replace(noisy.first, keys_NPK=noisy.first.keys_NPK + noise))
    first, second = (dvfdvd_maps(noisy, seed=4).tobytes() for _ in range(2))
    assert first == second


def test_a_single_image_is_segmented_by_its_own_vote() -> None:
    features = make_features([paint(6, {(1, 1, 3, 3): 1})], [box(6, 1, 1, 3, 3).astype(float)])
    (map_hw,) = dvfdvd_maps(features, seed=0)
    np.testing.assert_array_equal(map_hw >= 0.5, box(6, 1, 1, 3, 3))


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_equal_patches_give_zeros_whatever_the_attention(level: float) -> None:
    features = make_features([np.full((4, 4, 3), level)] * 2, [box(4, 1, 1, 3, 3).astype(float)] * 2)
    maps = dvfdvd_maps(features, seed=0)
    assert maps.shape == (2, 4, 4)
    assert not maps.any()


def test_without_attention_clusters_are_voted_for_by_the_mean() -> None:
    """Attention of 0.3 everywhere off the object: above the published level, under the mean."""
    features = group()
    dense = np.maximum(features.saliency_NP, np.float32(0.3))
    features = replace(features, saliency_NP=dense, first=replace(features.first, has_attention=False))
    map_hw = dvfdvd_maps(features, seed=1)[0]
    np.testing.assert_array_equal(map_hw >= 0.5, box(6, 1, 1, 3, 3))
    assert (dvfdvd_maps(replace(features, first=replace(features.first, has_attention=True)), seed=1)[0] >= 0.5).all()


def test_a_cluster_that_an_image_does_not_hold_gets_no_vote_of_it() -> None:
    labels = np.array([[0, 0, 1, 1], [0, 0, 0, 0]])
    saliency = np.array([[0.0, 0.0, 1.0, 1.0], [0.9, 0.9, 0.9, 0.9]])
    assert count_votes(labels, saliency, None).tolist() == [0.0, 0.5]
