from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.confidence.cues import foreground_prototypes, gather_evidence, principal_tokens
from umscosod.confidence.group import max_group_cosine
from umscosod.features.vectors import add_ridge
from umscosod.types import GroupFeatures

GRID = 8
BOX = (2, 2, 6, 6)


def group_of(axes: list[int], *, is_whitened: bool = False) -> GroupFeatures:
    """One thing an image, each along an axis of its own, with a little noise."""
    rng = np.random.default_rng(5)
    tokens = [paint(GRID, {BOX: axis}) + rng.normal(scale=0.05, size=(GRID, GRID, 6)) for axis in axes]
    features = make_features(tokens, [np.ones((GRID, GRID))] * len(axes))
    return replace(features, first=replace(features.first, is_whitened=is_whitened))


def shares(count: int) -> np.ndarray:
    return np.tile(box(GRID, *BOX).ravel().astype(np.float64), (count, 1))


@pytest.mark.parametrize("is_whitened", [False, True])
def test_the_image_with_another_thing_has_the_least_kin(is_whitened: bool) -> None:
    features = group_of([1, 1, 2, 1], is_whitened=is_whitened)
    found = max_group_cosine(foreground_prototypes(features, shares(4)))
    assert found.argmin() == 2
    assert np.delete(found, 2).min() > 0.8 > found[2] + 0.3


@pytest.mark.parametrize("is_whitened", [False, True])
def test_an_empty_mask_has_a_prototype_of_nothing(is_whitened: bool) -> None:
    share_NP = shares(3)
    share_NP[1] = 0.0
    found_NF = foreground_prototypes(group_of([1, 1, 1], is_whitened=is_whitened), share_NP)
    assert not found_NF[1].any()
    assert found_NF[[0, 2]].any(axis=1).all()


def test_a_prototype_is_the_mean_unit_key_less_the_groups() -> None:
    features = group_of([1, 3])
    keys_NPK = features.first.keys_NPK.astype(np.float64)
    keys_NPK /= np.linalg.norm(keys_NPK, axis=2, keepdims=True)
    inside = box(GRID, *BOX).ravel()
    expected = keys_NPK[:, inside].mean(axis=1) - keys_NPK.mean(axis=(0, 1))
    np.testing.assert_allclose(foreground_prototypes(features, shares(2)), expected, atol=1e-6)


def test_tokens_without_any_difference_give_no_streams_and_no_prototypes() -> None:
    features = make_features([np.ones((GRID, GRID, 3))] * 2, [np.ones((GRID, GRID))] * 2)
    evidence = gather_evidence(features, [box(GRID, *BOX)] * 2)
    assert evidence.streams == ()
    assert evidence.prototype_NF.shape == (2, 0)


def test_a_ridge_stands_in_where_there_is_no_scatter() -> None:
    np.testing.assert_array_equal(add_ridge(np.zeros((2, 2)), 0.3), np.eye(2))
    np.testing.assert_allclose(add_ridge(np.diag([1.0, 3.0]), 0.5), np.diag([2.0, 4.0]))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_principal_tokens_are_those_of_the_group_as_one_matrix(kind: type) -> None:
    rng = np.random.default_rng(1)
    tokens_NPD = (rng.normal(size=(5, 40, 12)) * np.arange(1, 13) + 3.0).astype(kind)
    flat_RD = tokens_NPD.reshape(-1, 12).astype(np.float64)
    flat_RD = flat_RD - flat_RD.mean(axis=0)
    direction_DD = np.linalg.svd(flat_RD, full_matrices=False)[2][:7]
    wanted_RD = flat_RD @ direction_DD.T
    found_RD = principal_tokens(tokens_NPD, 7).reshape(-1, 7)
    sign_D = np.sign((found_RD * wanted_RD).sum(axis=0))  # a direction has no sign
    np.testing.assert_allclose(found_RD * sign_D, wanted_RD, atol=1e-6)


def test_the_same_bits_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens_NPD = np.random.default_rng(2).normal(size=(9, 40, 12)).astype(np.float32)
    monkeypatch.setattr("umscosod.device.count_cores", lambda: 3)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(principal_tokens(tokens_NPD, 7).tobytes())
    assert found[0] == found[1]


def test_a_group_is_not_copied_to_wide_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # each thread holds an image
    tokens_NPD = np.random.default_rng(0).normal(size=(40, 100, 128)).astype(np.float16)
    tracemalloc.start()
    principal_tokens(tokens_NPD, 4)
    assert tracemalloc.get_traced_memory()[1] < 0.25 * tokens_NPD.size * 8
    tracemalloc.stop()
