"""What refinement must not depend on: the order of a group, how often its images are listed, the mask's shape."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from umscosod.config import CrfConfig, RefineConfig
from umscosod.refine.regions import filter_regions, group_prototype, pool_regions
from umscosod.refine.rrbe import adaptive_threshold, binarize, map_confidence, refine_group

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)
CRF = CrfConfig(size_px=32)


def random_group(seed, count):
    rng = np.random.default_rng(seed)
    maps = np.repeat(np.repeat(rng.random((count, 6, 5)), 4, axis=1), 4, axis=2)
    pictures = rng.integers(0, 256, (count, 24, 20, 3), dtype=np.uint8)
    tokens = rng.normal(size=(count, 12, 8)).astype(np.float16)
    sizes = [(int(h), int(w)) for h, w in rng.integers(5, 60, (count, 2))]
    return maps, pictures, tokens, sizes


def refined(maps, pictures, tokens, sizes, config, b_bar=None):
    return refine_group(maps, pictures, tokens, (4, 3), sizes, config, b_bar)


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.mask_HW, b.mask_HW)
        assert (a.threshold, a.regions, a.crf) == (b.threshold, b.regions, b.crf)


@SETTINGS
@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
def test_permuting_the_images_permutes_the_masks(seed, count, use_crf):
    maps, pictures, tokens, sizes = random_group(seed, count)
    order = np.random.default_rng(seed + 1).permutation(count)
    config = RefineConfig(sim_th=0.2, crf=CRF if use_crf else CrfConfig(enabled=False))
    plain = refined(maps, pictures, tokens, sizes, config)
    moved = refined(maps[order], pictures[order], tokens[order], [sizes[i] for i in order], config)
    assert_same([plain[i] for i in order], moved)


@SETTINGS
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_listing_every_image_twice_changes_nothing(seed, count):
    maps, pictures, tokens, sizes = random_group(seed, count)
    config = RefineConfig(sim_th=0.2, crf=CRF)
    twice = [np.concatenate([part, part]) for part in (maps, pictures, tokens)]
    plain = refined(maps, pictures, tokens, sizes, config)
    assert_same([*plain, *plain], refined(*twice, sizes * 2, config))


@SETTINGS
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_a_duplicated_image_gets_its_twins_mask(seed, count):
    maps, pictures, tokens, sizes = random_group(seed, count)
    parts = [np.concatenate([part, part[:1]]) for part in (maps, pictures, tokens)]
    masks = refined(*parts, [*sizes, sizes[0]], RefineConfig(sim_th=0.2, crf=CRF))
    assert_same(masks[:1], masks[-1:])


@SETTINGS
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 3), st.floats(0, 1))
def test_thresholds_stay_in_their_bounds(seed, b_bar, alpha_c, scale):
    map_HW = np.random.default_rng(seed).random((4, 6)) * scale
    config = RefineConfig(alpha_c=alpha_c)
    assert 0.0 <= map_confidence(map_HW) <= 1.0
    threshold = adaptive_threshold(map_HW, b_bar, config)
    assert config.th_clamp[0] <= threshold <= config.th_clamp[1]
    mask = binarize(map_HW, threshold, config)
    assert mask.any() == (map_HW.max() >= threshold or map_HW.max() > config.empty_floor)


@SETTINGS
@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_the_filter_only_removes_whole_regions(seed, size_hw, grid_hw):
    rng = np.random.default_rng(seed)
    mask = rng.random(size_hw) < 0.5
    tokens_PD = rng.normal(size=(grid_hw[0] * grid_hw[1], 5))
    prototype = group_prototype([mask], tokens_PD[None], grid_hw)
    kept, regions = filter_regions(mask, tokens_PD, grid_hw, prototype, RefineConfig())
    assert not (kept & ~mask).any()
    assert sum(region.area_px for region in regions) == mask.sum()
    assert sum(region.area_px for region in regions if region.is_kept) == kept.sum()
    assert kept.any() == mask.any()  # keep_best
    np.testing.assert_allclose(pool_regions(mask.astype(int), 1, grid_hw).sum(), mask.sum(), rtol=1e-9)
