from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from umscosod.demo.compose import Layer, backdrop, blend, expose, lay
from umscosod.demo.cutouts import BACKDROPS, Cutout, Placing, cutout


def square(**changes) -> Cutout:
    placing = Placing(source="square.png", turn_deg=0.0, share=(0.1, 0.2))
    return Cutout(
        placing=replace(placing, **changes),
        picture_HW3=np.full((40, 40, 3), 200, np.uint8),
        alpha_HW=np.full((40, 40), 255, np.uint8),
    )


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_an_object_covers_the_share_asked_for(share):
    layer = lay(square(), (100, 120), share, np.random.default_rng(0))
    assert layer.alpha_HW.shape == (100, 120)
    assert float(layer.alpha_HW.mean()) == pytest.approx(share, rel=0.05)


def test_an_object_never_outgrows_the_frame():
    layer = lay(square(turn_deg=45.0), (60, 200), 0.9, np.random.default_rng(1))
    # Wholly inside: no opacity on the border.
    assert float(layer.alpha_HW[[0, -1]].max()) == 0.0
    assert float(layer.alpha_HW[:, [0, -1]].max()) == 0.0


@pytest.mark.parametrize(("anchor", "quarter", "side"), [("top", 0, 0), ("bottom", 0, 2), ("top", 1, 3), ("top", 3, 1)])
def test_a_cut_off_side_lies_on_the_frame(anchor, quarter, side):
    cut = square(anchor=anchor, turn_deg=10.0, quarters=(quarter,))
    for seed in range(10):
        alpha_HW = lay(cut, (90, 120), 0.2, np.random.default_rng(seed)).alpha_HW
        rims = (alpha_HW[0], alpha_HW[:, -1], alpha_HW[-1], alpha_HW[:, 0])  # top, right, bottom, left
        assert [index for index, rim in enumerate(rims) if rim.max() > 0.5] == [side]


def test_rotation_uses_the_angle_that_was_asked_for():
    upright = lay(square(turn_deg=0.0), (100, 100), 0.16, np.random.default_rng(3)).alpha_HW
    rows, columns = np.nonzero(upright > 0.5)
    # 40 x 40 of 100 x 100 px, square to the frame: its box is full.
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (40, 40)
    turned = [lay(square(turn_deg=45.0), (100, 100), 0.16, np.random.default_rng(s)).alpha_HW for s in range(8)]
    boxes = [max(np.ptp(np.nonzero(alpha > 0.5)[0]), np.ptp(np.nonzero(alpha > 0.5)[1])) + 1 for alpha in turned]
    assert max(boxes) > 50
    assert max(boxes) <= 57  # 40 * sqrt(2)


@pytest.mark.parametrize("index", range(len(BACKDROPS)))
def test_a_backdrop_fills_the_frame_with_texture(index):
    picture_HW3 = backdrop(BACKDROPS[index], (60, 80), np.random.default_rng(index))
    assert picture_HW3.shape == (60, 80, 3)
    assert picture_HW3.min() >= 0.0
    assert picture_HW3.max() <= 255.0
    assert float(picture_HW3.std()) > 3.0


def test_blending_keeps_what_is_far_from_the_object_and_covers_what_is_under_it():
    alpha_HW = np.zeros((100, 100), np.float32)
    alpha_HW[10:30, 10:30] = 1.0
    layer = Layer(picture_HW3=np.full((100, 100, 3), 200.0, np.float32), alpha_HW=alpha_HW)
    dark, light = (np.full((100, 100, 3), value, np.float32) for value in (0.0, 100.0))
    on_dark, on_light = (blend(under, layer, np.random.default_rng(5)) for under in (dark, light))
    np.testing.assert_array_equal(on_dark[10:30, 10:30], on_light[10:30, 10:30])
    np.testing.assert_allclose(on_light[60:, 60:], 100.0)
    # 200 under a gain of 0.75 * 0.94 to 1.2 * 1.06, clipped at 255
    assert on_dark[20, 20].min() >= 140.9
    assert on_dark.max() <= 255.0
    # The shadow lies below: darker than the background, by at most 40 %.
    assert 60.0 <= float(on_light[31:33, 15:25].min()) < 99.0


def test_exposure_varies_with_the_generator_and_keeps_the_picture():
    picture_HW3 = cutout("coffee").picture_HW3.astype(np.float32)
    first, second = (expose(picture_HW3, np.random.default_rng(seed)) for seed in (0, 1))
    assert first.dtype == np.uint8
    assert not np.array_equal(first, second)
    for made in (first, second):
        assert np.corrcoef(made.ravel(), picture_HW3.ravel())[0, 1] > 0.9
