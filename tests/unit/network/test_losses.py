"""Losses against eq. 9 and 10 in loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from umscosod.network.losses import Loss, bce_per_image, compute_loss, iou_per_image


def _loss(logits: tuple[Tensor, ...], target: Tensor, weight: Tensor) -> Loss:
    return compute_loss(logits, target, weight)


def test_bce_and_iou_by_hand_with_soft_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 3, generator=generator)
    target = torch.rand(2, 2, 3, generator=generator)
    for n in range(2):
        pairs = list(zip(logits[n].sigmoid().flatten().tolist(), target[n].flatten().tolist(), strict=True))
        bce = -sum(y * math.log(p) + (1 - y) * math.log(1 - p) for p, y in pairs) / 6
        both = sum(p * y for p, y in pairs)
        iou = 1 - both / (sum(p + y for p, y in pairs) - both + 1e-7)
        assert float(bce_per_image(logits, target)[n]) == pytest.approx(bce, abs=1e-5)
        assert float(iou_per_image(logits.sigmoid(), target)[n]) == pytest.approx(iou, abs=1e-5)


def test_images_are_averaged_by_weight_and_outputs_evenly() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = tuple(torch.randn(2, 1, 2, 3, generator=generator) for _ in range(3))
    target, weight = torch.rand(2, 2, 3, generator=generator), torch.tensor([3.0, 1.0])
    single = [[_loss((one[n : n + 1],), target[n : n + 1], torch.ones(1)).total for n in range(2)] for one in logits]
    expected = sum((3 * first + second) / 4 for first, second in single) / 3
    got = _loss(logits, target, weight)
    torch.testing.assert_close(got.total, torch.as_tensor(expected))
    torch.testing.assert_close(got.total, got.bce + got.iou)


def test_zero_weights_give_a_zero_loss_with_zero_gradient() -> None:
    logits = torch.randn(2, 1, 2, 2, requires_grad=True)
    loss = _loss((logits,), torch.ones(2, 2, 2), torch.zeros(2))
    loss.total.backward()
    assert loss.total.item() == 0.0
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) == 0.0


def test_perfect_and_empty_extremes_are_finite() -> None:
    sure = torch.full((1, 1, 2, 2), 100.0)
    assert float(_loss((sure,), torch.ones(1, 2, 2), torch.ones(1)).total) == pytest.approx(0, abs=1e-6)
    empty = _loss((-sure,), torch.zeros(1, 2, 2), torch.ones(1))
    assert float(empty.iou) == 1.0
    assert float(empty.bce) == pytest.approx(0, abs=1e-6)


def test_smoothing_leaves_the_iou_of_a_small_object_and_its_gradient_alone() -> None:
    """With s = 0.2 in the union, a perfect mask of 1 % of the image had an IoU loss of .92, growing downwards."""
    target = torch.zeros(1, 20, 20)
    target[0, :2, :2] = 1.0
    logits = (target * 40.0 - 20.0).unsqueeze(1)
    perfect = compute_loss((logits,), target, torch.ones(1), label_smoothing=0.2)
    assert float(perfect.iou) == pytest.approx(0.0, abs=1e-4)
    unsure = (target * 4.0 - 2.0).unsqueeze(1).requires_grad_()
    compute_loss((unsure,), target, torch.ones(1), label_smoothing=0.2).total.backward()
    assert unsure.grad is not None
    assert (unsure.grad[0, 0][target[0] == 0] > 0).all(), "a step down the gradient must lower the background"


def test_smoothing_pulls_the_cross_entropy_to_targets_that_are_never_sure() -> None:
    target = torch.tensor([[[1.0, 0.0]]])
    best = torch.tensor([[[[0.9, 0.1]]]]).logit().requires_grad_()
    smoothed = compute_loss((best,), target, torch.ones(1), label_smoothing=0.2)
    of_iou = iou_per_image(best.sigmoid()[:, 0], target).sum()
    (of_bce,) = torch.autograd.grad(smoothed.total - of_iou, best)
    assert float(of_bce.abs().max()) < 1e-6
    hard = float(bce_per_image(best.detach()[:, 0], target))
    assert float(smoothed.bce) > hard
