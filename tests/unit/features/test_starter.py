"""The backbone `starter`: what it gives for any picture, and what a damaged weight file says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from umscosod.errors import ConfigError, WeightsError
from umscosod.features import starter
from umscosod.features.starter import StarterBackbone
from umscosod.features.starter_weights import load_starter, packaged_starter
from umscosod.types import ByteArray

CPU = torch.device("cpu")


def test_shapes_and_independence_of_the_others(pictures: list[ByteArray]) -> None:
    backbone = StarterBackbone(64, 16, CPU)
    encoded = backbone.encode(pictures)
    for picture, one in zip(pictures, encoded, strict=True):
        alone = backbone.encode([picture])[0]
        for name in ("tokens_PD", "keys_PK", "attn_AP"):
            array = getattr(one, name)
            assert np.array_equal(array, getattr(alone, name)) and array.dtype == np.float16
        assert one.tokens_PD.shape == (16, backbone.dim)
        assert one.grid_hw == backbone.grid_hw == (4, 4)
        assert 0.0 <= one.attn_AP.min() and one.attn_AP.max() <= 1.0
    assert backbone.encode([]) == []


def test_an_object_stands_out() -> None:
    picture = np.full((120, 120, 3), (90, 140, 80), np.uint8)
    cv2.circle(picture, (66, 60), 26, (220, 40, 30), -1)
    attn_hw = StarterBackbone(224, 8, CPU).encode([picture])[0].attn_AP.reshape(28, 28).astype(float)
    inside_hw = cv2.resize((picture[..., 0] > 200).astype(np.float32), (28, 28)) > 0.9
    assert attn_hw[inside_hw].mean() > 3.0 * attn_hw[[0, -1]].mean()


def test_a_side_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        StarterBackbone(80, 16, CPU)


def test_the_id_follows_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = StarterBackbone(224, 8, CPU)
    assert backbone.weights_sha256 in backbone.id
    assert StarterBackbone(224, 16, CPU).id != backbone.id
    content = bytearray(packaged_starter())
    content[-1] ^= 1
    monkeypatch.setattr(starter, "packaged_starter", lambda: bytes(content))
    assert StarterBackbone(224, 8, CPU).id != backbone.id


@pytest.mark.parametrize("content", [b"", b"no weights", packaged_starter()[:-100]])
def test_a_damaged_file_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(WeightsError, match=r"^weights w cannot be used: .*umscosod") as caught:
        load_starter(content, "w")
    assert "\n" not in str(caught.value)
