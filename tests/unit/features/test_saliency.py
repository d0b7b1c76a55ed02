"""The attention map of an image, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from umscosod.errors import DataError
from umscosod.features.saliency import saliency_from_attention


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
