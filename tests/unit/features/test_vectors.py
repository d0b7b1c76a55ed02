"""Patches as unit vectors: what is taken out, and what stays zero."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umscosod.features.vectors import describe_patches, facet_channels, map_patches, unit_patches
from umscosod.types import GroupFeatures, GroupTokens, ImageGroup, ImageRef, StreamTokens


def tokens(rows: list[list[list[float]]]) -> GroupTokens:
    stack = np.array(rows)
    return GroupTokens(
        tokens_NPD=stack, keys_NPK=2.0 * stack, attn_NAP=np.ones((len(stack), 1, 2)), grid_hw=(1, 2), backbone_id="x"
    )


def test_each_centre_takes_out_its_own_mean() -> None:
    two = tokens([[[0.0, 0.0], [2.0, 0.0]], [[0.0, 4.0], [2.0, 4.0]]])
    left, right = [-1.0, 0.0], [1.0, 0.0]
    assert unit_patches(two, "tokens", "image").tolist() == [[left, right], [left, right]]
    half = np.sqrt(0.2)
    np.testing.assert_allclose(unit_patches(two, "tokens", "group")[0, 0], [-half, -2 * half], rtol=1e-6)
    assert unit_patches(two, "tokens", "none")[0].tolist() == [[0.0, 0.0], right]


def test_what_is_centred_already_stays() -> None:
    whitened = replace(tokens([[[0.0, 0.0], [2.0, 0.0]]]), is_centred=True)
    assert unit_patches(whitened, "keys", "group")[0].tolist() == [[0.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("centre", ["group", "image"])
def test_equal_patches_have_nothing_of_their_own(centre: str) -> None:
    equal = tokens([[[0.1, 0.7], [0.1, 0.7]], [[0.1, 0.7], [0.1, 0.7]]])
    assert not unit_patches(equal, "tokens", centre).any()  # type: ignore[arg-type]


def test_a_few_images_at_a_time_are_described_as_all_at_once() -> None:
    rng = np.random.default_rng(0)
    fine, coarse = (rng.standard_normal((9, cells, 5)) for cells in (16, 4))
    fine[:4, 1:] *= 1e-9  # beside their first patch the others of these images have nothing of their own
    fine[:4] *= 1e-5
    attention = np.ones((9, 1, 16), np.float16)
    features = GroupFeatures(
        group=ImageGroup(
            name="g", images=tuple(ImageRef(id=str(n), path=Path(str(n)), output=f"{n}.png") for n in range(9))
        ),
        first=GroupTokens(
            tokens_NPD=fine, keys_NPK=fine[..., :3], attn_NAP=attention, grid_hw=(4, 4), backbone_id="fine"
        ),
        second=StreamTokens(tokens_NPD=coarse, attn_NAP=attention[:, :, :4], grid_hw=(2, 2), backbone_id="coarse"),
        saliency_NP=np.ones((9, 16), np.float32),
        pictures_NHW3=np.zeros((9, 8, 8, 3), np.uint8),
        sizes_hw=((8, 8),) * 9,
    )
    parts = list(map_patches(lambda images, facets: (images, facets), features))
    assert [images.tolist() for images, _ in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    ((some, facets),) = map_patches(lambda images, facets: (images, facets), features, np.array([1, 7]))
    assert some.tolist() == [1, 7]
    for at, whole_NPF in enumerate(describe_patches(features, "none")):
        np.testing.assert_array_equal(np.concatenate([part[at] for _, part in parts]), whole_NPF)
        np.testing.assert_array_equal(facets[at], whole_NPF[[1, 7]])
    assert facet_channels(features) == 5 + 3 + 5
