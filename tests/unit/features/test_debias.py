"""What tokens share by place alone is found in noise and taken out; all else stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from umscosod.features.architectures import Vit
from umscosod.features.debias import place_directions, remove_directions
from umscosod.features.specs import VitSpec
from umscosod.features.vit import LoadedVit, VitBackbone
from umscosod.types import ByteArray

CPU = torch.device("cpu")


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_the_part_that_tells_the_place_goes_and_the_content_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    places_PD, content_D = torch.zeros(16, 12), torch.zeros(12)
    places_PD[:, :4] = 3 * torch.randn(16, 4, generator=generator)
    content_D[4:] = torch.randn(8, generator=generator)

    def encode(pictures: Sequence[ByteArray]) -> torch.Tensor:
        return places_PD + 0.1 * torch.randn(len(pictures), 16, 12, generator=generator)

    directions_DR = place_directions(encode, 8)
    torch.testing.assert_close(directions_DR.T @ directions_DR, torch.eye(4), atol=1e-5, rtol=0)
    tokens_PD = remove_directions((places_PD + content_D)[None], directions_DR)[0]
    assert cosine(places_PD[0] + content_D, places_PD[1] + content_D) < 0.9
    assert cosine(tokens_PD[0], tokens_PD[1]) > 0.99
    assert cosine(tokens_PD[0], content_D) > 0.99


@pytest.mark.parametrize("name", ["dino_vits8", "dinov2_vits14_reg"])
def test_tokens_lose_the_directions_and_keys_and_attention_nothing(
    make_tiny: Callable[[str], Vit], tiny_specs: dict[str, VitSpec], pictures: list[ByteArray], name: str
) -> None:
    vit = LoadedVit(spec=tiny_specs[name], module=make_tiny(name), weights_sha256="0" * 64)
    plain, debiased, again = (VitBackbone(vit, size_px=56, device=CPU, debias=debias) for debias in (False, True, True))
    before, after = plain.encode(pictures[:1])[0], debiased.encode(pictures[:1])[0]
    directions_DR = debiased._place_directions.numpy()
    assert np.abs(after.tokens_PD.astype(np.float32) @ directions_DR).max() < 0.02
    lost_PD = before.tokens_PD.astype(np.float32) - after.tokens_PD
    np.testing.assert_allclose(lost_PD @ directions_DR @ directions_DR.T, lost_PD, atol=0.02)
    assert np.abs(lost_PD).max() > 0.1
    np.testing.assert_array_equal(before.keys_PK, after.keys_PK)
    np.testing.assert_array_equal(before.attn_AP, after.attn_AP)
    np.testing.assert_array_equal(after.tokens_PD, again.encode(pictures)[0].tokens_PD)  # whatever comes with it
