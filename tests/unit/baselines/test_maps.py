"""Decisions at 0.5, by hand."""

from __future__ import annotations

import numpy as np

from umscosod.baselines.maps import average_with_evidence, piecewise_rescale


def test_a_rescaled_value_is_half_at_its_level_and_never_decides_below_it() -> None:
    values = np.array([0.1, 0.2 - 1e-12, 0.2, 0.6, 1.0, 3.0])
    map_P = piecewise_rescale(values, 0.0, 0.2, 1.0)
    assert map_P.dtype == np.float32
    np.testing.assert_allclose(map_P, [0.25, 0.5, 0.5, 0.75, 1.0, 1.0], atol=1e-6)
    assert (map_P >= 0.5).tolist() == [False, False, True, True, True, True]


def test_rescaling_without_room_is_a_step() -> None:
    assert piecewise_rescale(np.array([0.9, 1.0]), 0.0, 1.0, 1.0)[1] == 1.0
    assert piecewise_rescale(np.array([0.0, 0.5]), 0.0, 0.0, 1.0).tolist() == [0.5, 0.75]


def test_a_mask_averaged_with_evidence_keeps_its_decision() -> None:
    map_P = average_with_evidence(np.array([True, True, False, False]), np.array([0.0, 1.0, 1.0, 0.0]))
    assert (map_P >= 0.5).tolist() == [True, True, False, False]
    assert map_P[[0, 1, 3]].tolist() == [0.5, 1.0, 0.0]
