"""AFMM against eq. 2 written out in loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from umscosod.config import AfmmConfig
from umscosod.network.afmm import Afmm, SelfAttention


def _streams(count: int = 2, patches: int = 4, dim: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (count, patches, dim)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def test_weight_is_eq_2_by_hand() -> None:
    torch.manual_seed(0)
    module = Afmm(4, AfmmConfig())
    first, second = _streams()
    outer, inner = module.mixer[2], module.mixer[0]
    assert inner.weight.shape == (1, 8), "hidden width is C / 4 = 1"
    got = module.compute_weight(first, second).detach()
    for n in range(2):
        for p in range(4):
            row = [*first[n, p].tolist(), *second[n, p].tolist()]
            hidden = max(
                0.0, sum(w * x for w, x in zip(inner.weight[0].tolist(), row, strict=True)) + inner.bias.item()
            )
            logit = outer.weight[0, 0].item() * hidden + outer.bias[0].item()
            assert float(got[n, p, 0]) == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)


def _attend(module: SelfAttention, tokens_PD: Tensor, heads: int) -> Tensor:
    """Self-attention of one image of four patches of width four, in loops over heads, queries and keys."""
    stacked = tokens_PD @ module.query_key_value.weight.T + module.query_key_value.bias
    query, key, value = stacked[:, :4], stacked[:, 4:8], stacked[:, 8:]
    mixed, width = torch.zeros(4, 4), 4 // heads
    for start in range(0, 4, width):
        head = slice(start, start + width)
        for p in range(4):
            scores = [float(query[p, head] @ key[r, head]) / math.sqrt(width) for r in range(4)]
            total = sum(math.exp(score) for score in scores)
            for r in range(4):
                mixed[p, head] += math.exp(scores[r]) / total * value[r, head]
    return mixed @ module.output.weight.T + module.output.bias


@torch.no_grad()
def test_self_attention_by_hand() -> None:
    torch.manual_seed(0)
    module = SelfAttention(4, heads=2)
    tokens, _ = _streams()
    expected = torch.stack([_attend(module, tokens_PD, heads=2) for tokens_PD in tokens])
    torch.testing.assert_close(module(tokens), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_output_is_the_norm_of_mix_plus_attention() -> None:
    torch.manual_seed(0)
    module = Afmm(4, AfmmConfig())
    first, second = _streams()
    weight = module.compute_weight(first, second)
    dynamic = weight * first + (1 - weight) * second
    expected = dynamic + torch.stack([_attend(module.attention, one_PD, heads=4) for one_PD in dynamic])
    expected = expected - expected.mean(dim=-1, keepdim=True)
    expected = expected / (expected.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(module(first, second), expected, atol=1e-5, rtol=1e-5)


def test_off_is_the_plain_mean_without_parameters() -> None:
    module = Afmm(4, AfmmConfig(enabled=False))
    first, second = _streams()
    assert list(module.parameters()) == []
    assert torch.equal(module(first, second), (first + second) / 2)
