"""Two sources' maps as one: neither counts more for being surer."""

from __future__ import annotations

import numpy as np
import pytest

from umscosod.data.blend import blend_maps

RNG = np.random.default_rng(0)
OWN = RNG.uniform(0.3, 0.7, (3, 8, 8)).astype(np.float32)
OTHER = RNG.uniform(0.0, 1.0, (3, 8, 8)).astype(np.float32)


def test_the_ends_are_one_source_alone() -> None:
    np.testing.assert_allclose(blend_maps(OWN, OTHER, 0.0), OWN, atol=1e-6)
    alone = blend_maps(OWN, OTHER, 1.0)
    assert ((alone > 0.5) == (OTHER > 0.5)).all(), "the other decides"
    assert alone.std() == pytest.approx(OWN.std(), rel=0.3), "as surely as our own maps do"


def test_a_surer_map_counts_no_more() -> None:
    logits = np.log(OTHER / (1.0 - OTHER)).clip(-1.5, 1.5)
    calm, sure = (1.0 / (1.0 + np.exp(-gain * logits)) for gain in (1.0, 4.0))
    np.testing.assert_allclose(blend_maps(OWN, calm, 0.25), blend_maps(OWN, sure, 0.25), atol=1e-5)


def test_a_network_that_says_no_everywhere_is_outvoted() -> None:
    own = np.where(RNG.random((3, 8, 8)) > 0.7, 0.9, 0.1).astype(np.float32)
    timid = np.full_like(own, 0.4) + RNG.normal(0.0, 1e-4, own.shape)
    assert ((blend_maps(own, timid, 0.25) > 0.5) == (own > 0.5)).all()


def test_zeros_and_ones_stay_finite_and_a_flat_map_says_nothing() -> None:
    hard = (OTHER > 0.5).astype(np.float32)
    blended = blend_maps(hard, 1.0 - hard, 0.5)
    assert np.isfinite(blended).all()
    assert np.allclose(blended, 0.5, atol=1e-6)
    assert np.array_equal(blend_maps(OWN, np.full_like(OTHER, 0.5), 0.9), OWN)
    assert blended.dtype == np.float32
