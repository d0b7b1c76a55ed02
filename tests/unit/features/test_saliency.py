"""The attention map of an image, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from umscosod.errors import DataError
from umscosod.features.group import saliency_from_attention


def test_saliency_is_the_stretched_mean_of_the_heads() -> None:
    attn = np.array([[1, 3, 5], [3, 1, 9]], dtype=np.float16)  # means 2, 2, 7
    got = saliency_from_attention(attn)
    assert got.dtype == np.float32
    assert got.tolist() == [0.0, 0.0, 1.0]


def test_a_constant_map_has_no_salient_patch() -> None:
    assert saliency_from_attention(np.full((2, 4), 0.25, dtype=np.float16)).tolist() == [0.0] * 4


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((2, 0)), np.array([[np.nan, 1.0]])])
def test_bad_attention_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="attention"):
        saliency_from_attention(bad)


def test_a_single_patch_and_a_single_head() -> None:
    assert saliency_from_attention(np.array([[0.7]])).tolist() == [0.0]
    assert saliency_from_attention(np.array([[4.0, 2.0, 3.0]])).tolist() == [1.0, 0.0, 0.5]


def test_infinity_is_refused_and_heads_may_swap() -> None:
    with pytest.raises(DataError, match="finite"):
        saliency_from_attention(np.array([[np.inf, 1.0]]))
    attn = np.random.default_rng(0).random((3, 8))
    np.testing.assert_allclose(saliency_from_attention(attn[::-1]), saliency_from_attention(attn), atol=1e-7)
