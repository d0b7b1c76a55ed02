"""Mirrored features: every array on its own grid, and back again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from umscosod.features.mirror import mirror_features
from umscosod.types import GroupFeatures, GroupTokens, ImageGroup, ImageRef


def make_group() -> GroupFeatures:
    """Two images; first grid 2 x 3, second 1 x 2; values count up along each grid."""

    def stream(height: int, width: int) -> GroupTokens:
        flat = np.arange(2 * height * width, dtype=np.float16).reshape(2, height * width)
        return GroupTokens(
            tokens_NPD=np.stack([flat, flat + 100], axis=2),
            keys_NPK=flat[:, :, None],
            attn_NAP=np.stack([flat, flat + 50], axis=1),
            grid_hw=(height, width),
            backbone_id="toy",
        )

    images = tuple(ImageRef(id=f"g/{i}.png", path=Path(f"g/{i}.png"), output=f"g/{i}.png") for i in range(2))
    return GroupFeatures(
        group=ImageGroup(name="g", images=images),
        first=stream(2, 3),
        second=stream(1, 2),
        saliency_NP=np.arange(12, dtype=np.float32).reshape(2, 6) / 12,
        pictures_NHW3=np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3),
        sizes_hw=((4, 4),) * 2,
    )


def test_columns_are_reversed_row_by_row() -> None:
    features = make_group()
    mirrored = mirror_features(features)
    assert mirrored.first.keys_NPK[0, :, 0].tolist() == [2, 1, 0, 5, 4, 3]
    assert mirrored.first.tokens_NPD[1, :, 1].tolist() == [108, 107, 106, 111, 110, 109]
    assert mirrored.first.attn_NAP[0, 1].tolist() == [52, 51, 50, 55, 54, 53]
    assert mirrored.second.keys_NPK[1, :, 0].tolist() == [3, 2]
    assert (mirrored.saliency_NP[0] * 12).round().tolist() == [2, 1, 0, 5, 4, 3]
    assert np.array_equal(mirrored.pictures_NHW3[1], np.fliplr(features.pictures_NHW3[1]))
    assert mirrored.group == features.group


def test_twice_is_the_same_and_the_given_stays() -> None:
    features, before = make_group(), make_group()
    again = mirror_features(mirror_features(features))
    for one in (features, again):
        for name in ("tokens_NPD", "keys_NPK", "attn_NAP"):
            assert np.array_equal(getattr(one.first, name), getattr(before.first, name))
            assert np.array_equal(getattr(one.second, name), getattr(before.second, name))
        assert np.array_equal(one.saliency_NP, before.saliency_NP)
        assert np.array_equal(one.pictures_NHW3, before.pictures_NHW3)
