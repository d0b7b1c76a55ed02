"""The guided filter against a direct solution window by window, what it keeps, and when it is asked in vain."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pytest

from umscosod.config import CrfConfig, RefineConfig
from umscosod.errors import DataError
from umscosod.refine import upsample
from umscosod.refine.rrbe import refine_group
from umscosod.refine.threshold import adaptive_threshold, mean_uncertainty
from umscosod.refine.upsample import guided_filter, sharpen_maps, warn_unused

GUIDED = RefineConfig(upsample="guided", guided_radius_px=6, guided_eps=1e-4, crf=CrfConfig(enabled=False))


def direct(map_HW: npt.NDArray[np.float64], picture_HW3: npt.NDArray[np.uint8], radius: int, eps: float):
    """Ridge regression by a general solver in each window, then the mean of all lines through a pixel."""
    height, width = map_HW.shape
    guide = picture_HW3 / 255.0
    total, count = np.zeros(map_HW.shape), np.zeros(map_HW.shape)
    for y in range(height):
        for x in range(width):
            window = np.s_[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            colours, values = guide[window].reshape(-1, 3), map_HW[window].ravel()
            design = np.hstack([colours, np.ones((len(colours), 1))])
            penalty = len(colours) * eps * np.diag([1.0, 1.0, 1.0, 0.0])
            line = np.linalg.solve(design.T @ design + penalty, design.T @ values)
            total[window] += guide[window] @ line[:3] + line[3]
            count[window] += 1
    return total / count


def scene(side: int = 48, border: int = 24) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """A picture, dark left of its edge, bright right of it; a map whose ramp crosses 0.5 two pixels too far right."""
    rng = np.random.default_rng(1)
    picture = np.full((side, side, 3), 60, np.uint8)
    picture[:, border:] = (190, 170, 150)
    picture = (picture + rng.integers(0, 6, picture.shape)).astype(np.uint8)
    ramp = np.clip((np.arange(side) - (border + 2)) / 12 + 0.5, 0, 1).astype(np.float32)
    return np.tile(ramp, (side, 1)), picture


@pytest.mark.parametrize(("radius", "eps"), [(1, 1e-2), (3, 1e-4), (30, 1e-3)])  # the last: larger than the picture
def test_it_is_the_mean_of_ridge_regressions_in_windows(radius: int, eps: float) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    map_HW = rng.random((13, 17))
    expected = direct(map_HW, picture, radius, eps)
    filtered = guided_filter(map_HW, picture, radius, eps)
    np.testing.assert_allclose(filtered, np.clip(expected, 0.0, 1.0), atol=1e-6)
    assert filtered.dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_maps_stay_as_they_are_bit_for_bit(value: float) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    map_HW = np.full((20, 30), value, np.float32)
    assert np.array_equal(guided_filter(map_HW, picture, 5, 1e-6), map_HW)


def test_a_picture_of_one_colour_averages_only() -> None:
    map_HW = np.zeros((9, 9), np.float32)
    map_HW[4, 4] = 1.0
    filtered = guided_filter(map_HW, np.full((9, 9, 3), 77, np.uint8), 1, 1e-6)
    weights = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0  # two means of three in a row
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = np.outer(weights, weights)
    np.testing.assert_allclose(filtered, expected, atol=1e-6)


def test_the_pictures_edge_draws_the_border() -> None:
    map_HW, picture = scene()
    assert (map_HW >= 0.5).argmax(1).tolist() == [26] * 48
    filtered = guided_filter(map_HW, picture, 8, 1e-4)
    assert (filtered >= 0.5).argmax(1).tolist() == [24] * 48
    assert (np.diff(filtered, axis=1).argmax(1) == 23).all()


def test_a_high_eps_ignores_the_edge() -> None:
    map_HW, picture = scene()
    filtered = [guided_filter(map_HW, picture, 8, eps) for eps in (1e-4, 1e-2, 1.0)]
    steps = [np.diff(one, axis=1)[:, 23].mean() for one in filtered]
    assert steps[0] > steps[1] > steps[2]
    assert steps[2] < 0.1


def test_output_stays_a_map_and_comes_out_equal_twice() -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    map_HW = (rng.random((40, 40)) > 0.5).astype(np.float32)
    first, second = (guided_filter(map_HW, picture, 2, 1e-6) for _ in range(2))
    assert first.min() == 0.0
    assert first.max() == 1.0
    assert first.tobytes() == second.tobytes()


def test_the_arguments_are_left_alone_and_any_memory_layout_will_do() -> None:
    map_HW, picture = scene()
    before = map_HW.copy(), picture.copy()
    mirrored = guided_filter(map_HW[:, ::-1], picture[:, ::-1], 4, 1e-3)
    np.testing.assert_allclose(mirrored[:, ::-1], guided_filter(map_HW, picture, 4, 1e-3), atol=1e-6)
    assert np.array_equal(map_HW, before[0])
    assert np.array_equal(picture, before[1])


def test_a_picture_of_another_size_is_brought_to_the_map() -> None:
    map_HW, picture = scene()
    doubled = picture.repeat(2, 0).repeat(2, 1)
    assert np.array_equal(guided_filter(map_HW, doubled, 4, 1e-3), guided_filter(map_HW, picture, 4, 1e-3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_thin_pictures(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    map_HW, picture = rng.random(shape), rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = np.clip(direct(map_HW, picture, 2, 1e-3), 0.0, 1.0)
    np.testing.assert_allclose(guided_filter(map_HW, picture, 2, 1e-3), expected, atol=1e-6)


def test_bad_input_is_refused() -> None:
    map_HW, picture = scene()
    with pytest.raises(DataError, match="uint8 RGB"):
        guided_filter(map_HW, picture.astype(np.float32), 4, 1e-3)
    with pytest.raises(DataError, match="uint8 RGB"):
        guided_filter(map_HW, picture[..., 0], 4, 1e-3)
    with pytest.raises(DataError, match="NaN"):
        guided_filter(np.full_like(map_HW, np.nan), picture, 4, 1e-3)


def test_bilinear_hands_the_very_maps_back() -> None:
    map_HW, picture = scene()
    maps_NHW, pictures_NHW3 = map_HW[None], picture[None]
    assert sharpen_maps(maps_NHW, pictures_NHW3, RefineConfig()) is maps_NHW
    sharpened = sharpen_maps(maps_NHW, pictures_NHW3, GUIDED)
    assert np.array_equal(sharpened[0], guided_filter(map_HW, picture, 6, 1e-4))


def refined(config: RefineConfig, **more: float):
    map_HW, picture = scene()
    tokens = np.ones((2, 16, 3), np.float32)
    maps_NHW = np.stack([map_HW, map_HW[::-1]])
    return refine_group(maps_NHW, np.stack([picture] * 2), tokens, (4, 4), [(48, 48)] * 2, config, **more)


def test_masks_follow_but_the_threshold_reads_the_map_as_it_was() -> None:
    map_HW, picture = scene()
    b_bar = mean_uncertainty([map_HW])
    threshold = adaptive_threshold(map_HW, b_bar, GUIDED)
    assert threshold != adaptive_threshold(guided_filter(map_HW, picture, 6, 1e-4), b_bar, GUIDED)
    for one in refined(GUIDED, b_bar=b_bar):
        assert one.threshold == threshold
        assert one.mask_HW.argmax(1).tolist() == [24] * 48


def test_crf_starts_from_the_filtered_map() -> None:
    pytest.importorskip("pydensecrf.densecrf")
    # no kernel has weight: DenseCRF gives its start back
    crf = CrfConfig(size_px=48, gaussian_compat=0.0, bilateral_compat=0.0)
    config = RefineConfig(upsample="guided", guided_radius_px=6, guided_eps=1e-4, crf=crf)
    for one in refined(config):
        assert one.crf
        assert one.mask_HW.argmax(1).tolist() == [24] * 48


def test_settings_without_effect_are_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upsample, "_warned", set())
    with caplog.at_level(logging.WARNING, "umscosod"):
        warn_unused(RefineConfig())
        warn_unused(GUIDED)
        assert not caplog.records
        off = RefineConfig(upsample="guided", enabled=False)
        first, second = refined(off), refined(off)
        assert [record.getMessage() for record in caplog.records] == [
            "refine.upsample=guided is not used: refine.enabled is off, so masks are the maps at refine.th0"
        ]
        warn_unused(RefineConfig(guided_eps=1e-2))
    assert "refine.upsample is bilinear" in caplog.records[-1].getMessage()
    assert np.array_equal(first[0].mask_HW, second[0].mask_HW)
