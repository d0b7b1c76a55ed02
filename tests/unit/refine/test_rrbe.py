"""RRBE end to end on tiny groups: what each part does, each part off, and each way in which input can be bad."""

import sys

import numpy as np
import pytest

from umscosod.config import CrfConfig, RefineConfig
from umscosod.data.resize import resize_aligned, resize_mask
from umscosod.errors import DataError
from umscosod.refine.regions import filter_regions, group_prototype
from umscosod.refine.rrbe import _warn_once, adaptive_threshold, binarize, mean_uncertainty, refine_group

NO_CRF = CrfConfig(enabled=False)
CRF = CrfConfig(size_px=32, gaussian_xy_px=2, gaussian_compat=1, bilateral_xy_px=4, bilateral_rgb=10)
GRID = (4, 4)
OBJECT, OTHER, GROUND = np.eye(3)


def group(count=3, distractor=True):
    """Pictures of 32 px with the group's object (left) and, in the first image, another thing (right)."""
    rng = np.random.default_rng(0)
    maps = rng.random((count, 32, 32)).astype(np.float32) * 0.2
    pictures = np.full((count, 32, 32, 3), 60, dtype=np.uint8)
    tokens = np.tile(GROUND, (count, 16, 1)).astype(np.float16).reshape(count, 4, 4, 3)
    maps[:, 8:24, 0:16] = 0.9
    pictures[:, 8:24, 0:16] = 180
    tokens[:, 1:3, 0:2] = OBJECT
    if distractor:
        maps[0, 8:24, 24:32] = 0.95
        tokens[0, 1:3, 3] = OTHER
    return maps, pictures, tokens.reshape(count, 16, 3), GRID, [(32, 32)] * count


OBJECT_MASK = np.zeros((32, 32), dtype=bool)
OBJECT_MASK[8:24, 0:16] = True
DISTRACTOR_MASK = np.zeros((32, 32), dtype=bool)
DISTRACTOR_MASK[8:24, 24:32] = True


def test_the_distractor_goes_and_the_object_stays():
    for refined in refine_group(*group(), RefineConfig(crf=NO_CRF)):
        np.testing.assert_array_equal(refined.mask_HW, OBJECT_MASK)
        assert not refined.crf


def test_regions_are_reported():
    first, second, _ = refine_group(*group(), RefineConfig(crf=NO_CRF))
    assert [(region.area_px, region.is_kept) for region in first.regions] == [(256, True), (128, False)]
    assert [region.is_kept for region in second.regions] == [True]


def test_the_three_parts_in_the_order_of_the_paper():
    maps, pictures, tokens, grid, sizes = group()
    config = RefineConfig(crf=NO_CRF, th0=0.55)
    b_bar = mean_uncertainty(maps)
    thresholds = [adaptive_threshold(map_HW, b_bar, config) for map_HW in maps]
    masks = [binarize(map_HW, th, config) for map_HW, th in zip(maps, thresholds, strict=True)]
    prototype = group_prototype(masks, tokens, grid)
    expected = [filter_regions(masks[i], tokens[i], grid, prototype, config) for i in range(3)]
    got = refine_group(maps, pictures, tokens, grid, sizes, config)
    for i in range(3):
        np.testing.assert_array_equal(got[i].mask_HW, expected[i][0])
        assert got[i].regions == expected[i][1]
        assert got[i].threshold == thresholds[i]


def test_one_empty_mask_empties_its_group_in_the_published_form_only(caplog):
    _warn_once.cache_clear()
    maps, pictures, tokens, grid, sizes = group(distractor=False)
    maps[2] = 0.0
    published = RefineConfig(crf=NO_CRF, skip_empty=False, keep_best=False, sim_th=0.75)
    with caplog.at_level("WARNING"):
        assert not any(one.mask_HW.any() for one in refine_group(maps, pictures, tokens, grid, sizes, published))
    assert caplog.text.count("refine.skip_empty is off") == 1
    ours = refine_group(maps, pictures, tokens, grid, sizes, RefineConfig(crf=NO_CRF, keep_best=False, sim_th=0.75))
    assert [bool(one.mask_HW.any()) for one in ours] == [True, True, False]


def test_b_bar_of_the_checkpoint_is_used():
    config = RefineConfig(crf=NO_CRF, alpha_c=1.0)
    low, high = (refine_group(*group(), config, b_bar=b_bar)[0].threshold for b_bar in (0.1, 0.3))
    assert low - high == pytest.approx(0.2)


def test_adaptive_off():
    config = RefineConfig(crf=NO_CRF, adaptive=False, th0=0.92)
    refined = refine_group(*group(), config)
    assert {mask.threshold for mask in refined} == {0.92}


def test_region_filter_off_keeps_the_distractor():
    refined = refine_group(*group(), RefineConfig(crf=NO_CRF, region_filter=False))
    np.testing.assert_array_equal(refined[0].mask_HW, OBJECT_MASK | DISTRACTOR_MASK)
    assert refined[0].regions == ()


def test_small_regions_go_with_the_region_filter_off_too():
    config = RefineConfig(crf=NO_CRF, region_filter=False, drop_regions_smaller_than=0.2)  # 128 / 1024 goes
    np.testing.assert_array_equal(refine_group(*group(), config)[0].mask_HW, OBJECT_MASK)


def test_the_crf_follows_the_picture():
    maps, pictures, tokens, grid, sizes = group(distractor=False)
    maps[:, 8:24, 14:16] = 0.1  # the map misses two columns of the object
    before = refine_group(maps, pictures, tokens, grid, sizes, RefineConfig(crf=NO_CRF))[0]
    trusting = CrfConfig(size_px=32, confidence=0.8, gaussian_compat=0.5, bilateral_xy_px=8, bilateral_rgb=10)
    after = refine_group(maps, pictures, tokens, grid, sizes, RefineConfig(crf=trusting))[0]
    assert after.crf
    assert not before.mask_HW[:, 14:].any()
    np.testing.assert_array_equal(after.mask_HW, OBJECT_MASK)


@pytest.mark.parametrize(("half_size", "size_px"), [(False, 32), (True, 128)])
def test_the_crf_weighs_the_soft_map(half_size, size_px):
    """Two halves of one colour: the surer one carries the other along, for which a labelling is blind."""
    maps, pictures, tokens, grid, sizes = group(count=1, distractor=False)
    maps[:] = 0.0
    maps[0, 8:24, 0:8] = 0.9
    maps[0, 8:24, 8:16] = 0.45  # under the threshold, but barely
    got = {}
    for unary in ("soft", "hard"):
        config = RefineConfig(adaptive=False, crf=CrfConfig(size_px=size_px, unary=unary, half_size=half_size))
        got[unary] = refine_group(maps, pictures, tokens, grid, sizes, config)[0].mask_HW
    np.testing.assert_array_equal(got["soft"], OBJECT_MASK)
    assert not got["hard"][:, 8:].any()


def test_what_the_crf_is_given(monkeypatch):
    maps, *rest = group()
    maps[1] *= 0.4  # 0.36 at most: the rule for empty masks
    given = []

    def keep(starts, config, pool):
        given.extend(starts)
        return lambda: [(start.mask_HW, False, "") for start in starts]

    monkeypatch.setattr("umscosod.refine.rrbe.begin_masks", keep)
    refined = refine_group(maps, *rest, RefineConfig(adaptive=False))
    assert [start.threshold for start in given] == [0.5, float(np.float32(0.9) * np.float32(0.4)), 0.5]
    assert [mask.threshold for mask in refined] == [0.5] * 3  # that of eq. 6 is reported
    np.testing.assert_array_equal(given[0].mask_HW, OBJECT_MASK)  # without the distractor
    for start, map_HW, picture_HW3 in zip(given, maps, rest[0], strict=True):
        np.testing.assert_array_equal(start.map_HW, map_HW)
        np.testing.assert_array_equal(start.picture_HW3, picture_HW3)


def test_off_is_the_soft_map_at_th0_and_own_size():
    maps, pictures, tokens, grid, _ = group()
    sizes = [(50, 41), (32, 32), (7, 90)]
    config = RefineConfig(enabled=False, th0=0.4)
    for map_HW, size, refined in zip(
        maps, sizes, refine_group(maps, pictures, tokens, grid, sizes, config), strict=True
    ):
        np.testing.assert_array_equal(refined.mask_HW, resize_aligned(map_HW.astype(np.float64), size) >= 0.4)
        assert (refined.threshold, refined.regions, refined.crf) == (0.4, (), False)


@pytest.mark.parametrize("crf", [NO_CRF, CRF])
def test_masks_come_at_each_images_own_size(crf):
    maps, pictures, tokens, grid, _ = group()
    sizes = [(64, 48), (32, 32), (9, 100)]
    for size, refined in zip(
        sizes, refine_group(maps, pictures, tokens, grid, sizes, RefineConfig(crf=crf)), strict=True
    ):
        assert refined.mask_HW.dtype == np.bool_
        np.testing.assert_array_equal(refined.mask_HW, resize_mask(OBJECT_MASK, size))


def test_maps_and_crf_may_differ_in_size():
    maps, pictures, tokens, grid, sizes = group(distractor=False)
    refined = refine_group(maps[:, ::2, ::2], pictures, tokens, grid, sizes, RefineConfig(crf=CRF))
    np.testing.assert_array_equal(refined[0].mask_HW, OBJECT_MASK)
    assert refined[0].crf


def test_a_group_of_one():
    (refined,) = refine_group(*group(count=1, distractor=False), RefineConfig(crf=CRF))
    np.testing.assert_array_equal(refined.mask_HW, OBJECT_MASK)


def test_an_empty_image_does_not_poison_its_group():
    maps, pictures, tokens, grid, sizes = group()
    maps[1] = 0.0
    refined = refine_group(maps, pictures, tokens, grid, sizes, RefineConfig(crf=CRF), b_bar=0.1)
    assert not refined[1].mask_HW.any()
    assert not refined[1].crf
    np.testing.assert_array_equal(refined[0].mask_HW, OBJECT_MASK)
    np.testing.assert_array_equal(refined[2].mask_HW, OBJECT_MASK)


def test_a_group_of_zero_maps_gives_empty_masks():
    maps, *rest = group()
    for refined in refine_group(maps * 0, *rest, RefineConfig()):
        assert not refined.mask_HW.any()
        assert refined.regions == ()


def test_a_constant_map_is_one_region():
    maps, *rest = group()
    for refined in refine_group(np.full_like(maps, 0.6), *rest, RefineConfig(crf=CRF)):
        assert refined.mask_HW.all()
        assert not refined.crf  # nothing to do
    for refined in refine_group(np.full_like(maps, 0.05), *rest, RefineConfig(crf=CRF)):
        assert not refined.mask_HW.any()


def test_one_pixel_images():
    maps, pictures = np.full((2, 1, 1), 0.8), np.zeros((2, 1, 1, 3), dtype=np.uint8)
    refined = refine_group(maps, pictures, np.ones((2, 1, 3)), (1, 1), [(1, 1), (3, 2)], RefineConfig())
    assert [mask.mask_HW.tolist() for mask in refined] == [[[True]], [[True, True]] * 3]


def test_keep_best_holds_against_an_erasing_crf():
    maps, pictures, tokens, grid, sizes = group(count=1, distractor=False)
    maps[:] = 0.0
    maps[0, 10:13, 3:6] = 1.0  # nine pixels on an even picture: smoothing outvotes them
    pictures[:] = 100
    erasing = CrfConfig(size_px=32)
    (kept,) = refine_group(maps, pictures, tokens, grid, sizes, RefineConfig(crf=erasing))
    assert kept.mask_HW.sum() == 9
    assert not kept.crf
    (gone,) = refine_group(maps, pictures, tokens, grid, sizes, RefineConfig(crf=erasing, keep_best=False))
    assert not gone.mask_HW.any()
    assert gone.crf


def test_without_pydensecrf_masks_come_from_the_map(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    for refined in refine_group(*group(), RefineConfig(crf=CRF)):
        np.testing.assert_array_equal(refined.mask_HW, OBJECT_MASK)
        assert not refined.crf


def test_nan_is_named_with_its_image():
    maps, *rest = group()
    maps[2, 5, 5] = np.nan
    for config in (RefineConfig(), RefineConfig(enabled=False)):
        with pytest.raises(DataError, match="map 2 of the group holds 1 of 1024"):
            refine_group(maps, *rest, config)


def test_counts_must_agree():
    maps, pictures, tokens, grid, sizes = group()
    with pytest.raises(DataError, match=r"\(3, 3, 3, 2\)"):
        refine_group(maps, pictures, tokens, grid, sizes[:2], RefineConfig())
    with pytest.raises(DataError, match="at least one"):
        refine_group(maps[:0], pictures[:0], tokens[:0], grid, [], RefineConfig())


def test_inputs_are_left_alone():
    arguments = group()
    copies = [part.copy() for part in arguments[:3]]
    refine_group(*arguments, RefineConfig(crf=CRF))
    for part, copy in zip(arguments[:3], copies, strict=True):
        np.testing.assert_array_equal(part, copy)
