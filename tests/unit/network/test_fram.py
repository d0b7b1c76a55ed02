"""FRAM against eq. 4 and 5 in loops, with ties, and its behaviour in half precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from umscosod.config import FramConfig
from umscosod.network.fram import (
    Fram,
    StackedLinear,
    attend_amplified,
    compute_log_amplification,
    order_descending,
)


def _amplification(row: list[float], alpha: float) -> list[float]:
    """Eq. 4 for one row, by counting: rank = how many precede in descending stable order."""
    factors = []
    for index, value in enumerate(row):
        before = sum(other > value or (other == value and k < index) for k, other in enumerate(row))
        factors.append(float((before + 1) ** alpha) if value > 0 else 1.0)
    return factors


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5, 3.0])
def test_amplification_is_eq_4_with_ties_zeros_and_negatives(alpha: float) -> None:
    rows = [[0.5, 2.0, -1.0, 2.0, 0.5], [0.0, -0.0, 1.0, 1.0, 1.0], [-1.0, -2.0, -3.0, -3.0, 0.0], [9.0, 8.0, 7.0, 6.0, 5.0]]  # fmt: skip  # noqa: E501
    got = compute_log_amplification(torch.tensor(rows), alpha).exp()
    torch.testing.assert_close(got, torch.tensor([_amplification(row, alpha) for row in rows]), atol=0, rtol=1e-5)


def test_packed_order_is_the_stable_argsort() -> None:
    scores = torch.randint(-5, 6, (50, 40), generator=torch.Generator().manual_seed(0)).float() / 7
    scores[0] = 0.0
    scores[1] = -0.0
    expected = torch.argsort(scores.clamp_min(0), dim=-1, descending=True, stable=True)
    assert torch.equal(order_descending(scores), expected)


@pytest.mark.parametrize("amp_norm", ["row", "none"])
def test_eq_5_by_hand(amp_norm: str) -> None:
    generator = torch.Generator().manual_seed(5)
    query, key, value = (torch.randn(4, 4, generator=generator) for _ in range(3))
    got = attend_amplified(query, key, value, 3.0, amp_norm)
    for q in range(4):
        raw = [float(query[q] @ key[r]) / math.sqrt(4) for r in range(4)]
        total = sum(math.exp(x) for x in raw)
        final = [math.exp(x) / total * a for x, a in zip(raw, _amplification(raw, 3.0), strict=True)]
        if amp_norm == "row":
            final = [x / sum(final) for x in final]
        expected = sum((final[r] * value[r] for r in range(4)), torch.zeros(4))
        torch.testing.assert_close(got[q], expected, atol=1e-5, rtol=1e-5)


def test_row_gradient_is_that_of_the_normalised_product() -> None:
    generator = torch.Generator().manual_seed(6)
    query, key, value = (torch.randn(6, 4, generator=generator) for _ in range(3))

    def direct(query_PC: Tensor) -> Tensor:
        raw = query_PC @ key.T / 2
        product = raw.softmax(-1) * compute_log_amplification(raw.detach(), 3.0).exp()
        return (product / product.sum(-1, keepdim=True)) @ value

    grads = []
    for function in (direct, lambda q: attend_amplified(q, key, value, 3.0, "row")):
        leaf = query.clone().requires_grad_()
        (function(leaf) * torch.arange(24).view(6, 4)).sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-3, rtol=1e-4)


def test_published_form_overflows_half_precision_and_row_does_not() -> None:
    tokens = torch.rand(784, 8, generator=torch.Generator().manual_seed(0))
    published = attend_amplified(tokens, tokens, tokens, 3.0, "none")
    assert float(published.max()) > 1e6
    assert torch.isinf(published.half()).any()
    row = attend_amplified(tokens, tokens, tokens, 3.0, "row")
    assert float(row.max()) <= 1.0
    assert torch.isfinite(row.half()).all()


def test_stacked_linear_is_two_layers() -> None:
    torch.manual_seed(0)
    module, tokens = StackedLinear(4), torch.randn(2, 3, 4)
    torch.testing.assert_close(module(tokens), module.outer(module.inner(tokens)), atol=1e-6, rtol=1e-5)


def test_module_adds_attention_to_the_activation() -> None:
    torch.manual_seed(0)
    module, tokens = Fram(8, FramConfig()), torch.randn(2, 6, 8)
    gated = module.mca(tokens.view(2, 2, 3, 8)).view(2, 6, 8)
    active = module.activation(gated).relu()
    expected = torch.stack(
        [
            attend_amplified(q, k, v, 3.0, "row") + a
            for q, k, v, a in zip(module.query(active), module.key(active), module.value(active), active, strict=True)
        ]
    )
    torch.testing.assert_close(module(tokens, (2, 3)), expected)


def test_off_passes_through_without_parameters() -> None:
    module, tokens = Fram(8, FramConfig(enabled=False)), torch.randn(1, 6, 8)
    assert list(module.parameters()) == []
    assert module(tokens, (2, 3)) is tokens
