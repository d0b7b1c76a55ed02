from __future__ import annotations

import numpy as np
import pytest

from umscosod.confidence.cues import (
    border_contact,
    centrality,
    colour_contrast,
    compactness,
    correlation,
    inner_outline,
    largest_component_share,
    mask_cues,
    separation,
)


def square(side: int = 40, low: int = 10, high: int = 30) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[low:high, low:high] = True
    return mask


def test_an_object_inside_the_image_touches_no_side_and_a_band_touches_three() -> None:
    band = np.zeros((40, 40), bool)
    band[25:] = True
    assert border_contact(square()) == 0.0
    assert border_contact(band) == -3.0
    assert inner_outline(square()) == 0.0
    assert inner_outline(band) == pytest.approx(-70 / 110)  # 40 below, 15 on either side; 40 inside


def test_form_of_a_square_and_of_its_dust() -> None:
    dust = square().copy()
    dust[::2] = False
    assert compactness(square()) == pytest.approx(np.sqrt(np.pi) / 2)
    assert compactness(dust) < compactness(square())
    assert largest_component_share(square()) == 1.0
    assert largest_component_share(dust) == pytest.approx(0.1)
    assert largest_component_share(np.zeros((3, 3), bool)) == 0.0


def test_a_mask_in_the_middle_is_central() -> None:
    corner = np.zeros((40, 40), bool)
    corner[:4, :4] = True
    assert centrality(square()) == 0.0
    assert centrality(corner) == pytest.approx(-np.hypot(0.45, 0.45))


def test_colours_contrast_only_where_they_differ() -> None:
    picture = np.full((40, 40, 3), 60, np.uint8)
    assert colour_contrast(square(), picture) == pytest.approx(0.0, abs=1e-9)
    picture[square()] = (200, 20, 20)
    assert colour_contrast(square(), picture) == 1.0


def test_tokens_that_part_as_the_mask_does() -> None:
    share = np.array([1.0, 1.0, 0.0, 0.0])
    assert separation(share[:, None] * 3.0, share) == pytest.approx(1.0)
    assert separation(np.ones((4, 2)), share) == 0.0
    assert separation(share[:, None], np.ones(4)) == 0.0
    assert correlation(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == -1.0


def test_every_cue_of_any_mask_is_finite() -> None:
    rng = np.random.default_rng(0)
    for share in (0.001, 0.1, 0.9, 0.999):
        mask = rng.random((32, 32)) < share
        mask[0, 0], mask[5, 5] = True, False
        values = mask_cues(mask, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        assert np.isfinite(list(values.values())).all()
