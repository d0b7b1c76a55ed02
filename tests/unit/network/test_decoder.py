"""Decoder: sizes, heads, the picture input."""

from __future__ import annotations

import pytest
import torch

from umscosod.config import DecoderConfig
from umscosod.network.decoder import Decoder, scale_pictures, stage_sizes


@pytest.mark.parametrize(
    ("out", "stride", "sizes"),
    [
        ((224, 224), 1, ((56, 56), (112, 112), (224, 224))),
        ((224, 224), 2, ((28, 28), (56, 56), (112, 112))),
        ((100, 60), 2, ((12, 7), (25, 15), (50, 30))),
        ((6, 6), 8, ((1, 1), (1, 1), (1, 1))),
    ],
)
def test_stage_sizes(out: tuple[int, int], stride: int, sizes: tuple[tuple[int, int], ...]) -> None:
    assert stage_sizes(out, stride) == sizes


def test_three_logit_maps_at_output_size_and_last_only_is_the_last() -> None:
    torch.manual_seed(0)
    decoder, tokens = Decoder(8, DecoderConfig(channels=4)), torch.randn(2, 6, 8)
    logits = decoder(tokens, (2, 3), (16, 24))
    assert [tuple(one.shape) for one in logits] == [(2, 1, 16, 24)] * 3
    (last,) = decoder(tokens, (2, 3), (16, 24), last_only=True)
    assert torch.equal(last, logits[-1])
    sum(one.sum() for one in logits).backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())


def test_tokens_keep_their_place() -> None:
    torch.manual_seed(0)
    decoder = Decoder(4, DecoderConfig(channels=8))
    tokens = torch.zeros(1, 16, 4)
    moved = tokens.clone()
    moved[0, 3] = 10.0  # upper right corner of a 4x4 grid
    change = (decoder(moved, (4, 4), (32, 32))[-1] - decoder(tokens, (4, 4), (32, 32))[-1]).abs()[0, 0]
    assert change[:8, 24:].mean() > 5 * change[24:, :8].mean()


def test_picture_input_reaches_the_maps() -> None:
    torch.manual_seed(0)
    decoder, tokens = Decoder(4, DecoderConfig(channels=4, picture=True)), torch.randn(1, 4, 4)
    dark = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    light = dark.clone()
    light[:, 8:] = 255
    first, second = (decoder(tokens, (2, 2), (16, 16), picture)[-1] for picture in (dark, light))
    assert not torch.allclose(first, second)
    with pytest.raises(ValueError, match="pictures_NHW3"):
        decoder(tokens, (2, 2), (16, 16))


def test_scale_pictures() -> None:
    picture = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    torch.testing.assert_close(scale_pictures(picture).flatten(), torch.tensor([-1.0, 1.0, -0.6]))
