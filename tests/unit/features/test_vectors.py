"""Patches as unit vectors: what is taken out, and what stays zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from umscosod.features.vectors import unit_patches
from umscosod.types import GroupTokens


def tokens(rows: list[list[list[float]]]) -> GroupTokens:
    stack = np.array(rows)
    return GroupTokens(
        tokens_NPD=stack, keys_NPK=2.0 * stack, attn_NAP=np.ones((len(stack), 1, 2)), grid_hw=(1, 2), backbone_id="x"
    )


def test_each_centre_takes_out_its_own_mean() -> None:
    two = tokens([[[0.0, 0.0], [2.0, 0.0]], [[0.0, 4.0], [2.0, 4.0]]])
    left, right = [-1.0, 0.0], [1.0, 0.0]
    assert unit_patches(two, "tokens", "image").tolist() == [[left, right], [left, right]]
    half = np.sqrt(0.2)
    np.testing.assert_allclose(unit_patches(two, "tokens", "group")[0, 0], [-half, -2 * half], rtol=1e-6)
    assert unit_patches(two, "tokens", "none")[0].tolist() == [[0.0, 0.0], right]


def test_what_is_centred_already_stays() -> None:
    whitened = replace(tokens([[[0.0, 0.0], [2.0, 0.0]]]), is_centred=True)
    assert unit_patches(whitened, "keys", "group")[0].tolist() == [[0.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("centre", ["group", "image"])
def test_equal_patches_have_nothing_of_their_own(centre: str) -> None:
    equal = tokens([[[0.1, 0.7], [0.1, 0.7]], [[0.1, 0.7], [0.1, 0.7]]])
    assert not unit_patches(equal, "tokens", centre).any()  # type: ignore[arg-type]
