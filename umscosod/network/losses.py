"""Losses: cross-entropy and soft IoU on pseudo-labels (eq. 9, 10, spec A6).

Shapes: ``N`` images, ``H W`` pixels. Each loss is computed per image; images are then averaged by their weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

IOU_EPS = 1e-7  # added to the union in eq. 10, as CFPAM does


class Loss(NamedTuple):
    """A training loss and its two parts, scalars.

    Attributes
    ----------
    total : Tensor
        With gradient.
    bce, iou : Tensor
        Detached, for the log.
    """

    total: Tensor
    bce: Tensor
    iou: Tensor


def bce_per_image(logits_NHW: Tensor, target_NHW: Tensor) -> Tensor:
    """Compute eq. 9 for each image: mean binary cross-entropy over its pixels; float32, ``(N,)``.

    Parameters
    ----------
    logits_NHW : Tensor, float, (N, H, W)
        Before the sigmoid, for numerical safety.
    target_NHW : Tensor, float, (N, H, W), in [0, 1]

    Examples
    --------
    >>> bce_per_image(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 1.0]]]))  # ln 2
    tensor([0.6931])
    """
    loss = functional.binary_cross_entropy_with_logits(logits_NHW.float(), target_NHW.float(), reduction="none")
    return loss.mean(dim=(1, 2))


def iou_per_image(probability_NHW: Tensor, target_NHW: Tensor) -> Tensor:
    """Compute eq. 10 for each image: 1 - I / (U + `IOU_EPS`), I = sum p y, U = sum p + sum y - I; float32, ``(N,)``.

    An empty target gives the constant 1, which has no gradient: give such an image a label or the weight 0.

    Examples
    --------
    >>> iou_per_image(torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[0.0, 1.0]]]))  # 1 - 1 / 1.5
    tensor([0.3333])
    """
    probability_NHW, target_NHW = probability_NHW.float(), target_NHW.float()
    intersection_N = (probability_NHW * target_NHW).sum(dim=(1, 2))
    union_N = probability_NHW.sum(dim=(1, 2)) + target_NHW.sum(dim=(1, 2)) - intersection_N
    return 1 - intersection_N / (union_N + IOU_EPS)


def compute_loss(
    logits: tuple[Tensor, ...],
    target_NHW: Tensor,
    weight_N: Tensor,
    *,
    label_smoothing: float = 0.0,
) -> Loss:
    """Compute L = L_iou + L_bce, averaged over the supervised outputs and, by weight, over images.

    Parameters
    ----------
    logits : tuple of Tensor, (N, 1, H, W)
        Deep supervision: the mean over these outputs.
    target_NHW : Tensor, float, (N, H, W), in [0, 1]
        Masks or soft maps.
    weight_N : Tensor, float, (N,), >= 0
        Trust in each image's target; only ratios matter. All zero: the loss is 0 with a zero gradient.
    label_smoothing : float, in [0, 1)
        The target t of the cross-entropy becomes (1 - s) t + s / 2. The IoU stays that with t itself: a share s / 2 of
        a wide background would outweigh a small object in its union.

    Returns
    -------
    Loss

    References
    ----------
    Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, arXiv 1512.00567, Sec. 7.
    """
    share_N = weight_N.float()
    total = share_N.sum()
    share_N = share_N / torch.where(total > 0, total, torch.ones_like(total))
    smoothed_NHW = target_NHW * (1.0 - label_smoothing) + label_smoothing / 2.0
    bce = torch.stack([(bce_per_image(one.squeeze(1), smoothed_NHW) * share_N).sum() for one in logits]).mean()
    iou = torch.stack(
        [(iou_per_image(one.squeeze(1).float().sigmoid(), target_NHW) * share_N).sum() for one in logits]
    ).mean()
    return Loss(bce + iou, bce.detach(), iou.detach())
