"""The attention's own threshold becomes 0.5."""

from __future__ import annotations

import numpy as np

from tests.unit.pseudo.groups import make_features
from umscosod.baselines.maps import attention_maps


def test_the_patches_that_hold_the_mass_are_at_least_half() -> None:
    saliency = np.array([[0.1, 0.2], [0.3, 0.4]])  # 0.4 + 0.3 hold 70 %, 0.4 alone 40 %
    features = make_features([np.ones((2, 2, 3))], [saliency])
    (map_hw,) = attention_maps(features)
    assert (map_hw >= 0.5).tolist() == [[False, False], [True, True]]
    np.testing.assert_allclose(map_hw, [[0.1 / 0.6, 0.2 / 0.6], [0.5, 0.5 + 0.5 * 0.1 / 0.7]], rtol=1e-5)


def test_constant_attention_gives_zeros() -> None:
    for level in (0.0, 0.5):
        maps = attention_maps(make_features([np.ones((2, 2, 3))], [np.full((2, 2), level)]))
        assert maps.shape == (1, 2, 2)
        assert not maps.any()
