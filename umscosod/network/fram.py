"""FRAM: attention inside an image that amplifies its weakest positive relations (eq. 4, 5, spec A4).

MCA, in it, is three gates that re-weigh a feature grid along its rows, its columns and its channels (spec A4.1); it is
written from the description alone.

Shapes: ``N`` images, ``P`` patches, ``C`` width, ``Q`` queries and ``R`` keys of one image (``Q = R = P``); ``h w``
token grid, ``G`` gated axis.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from umscosod.config import FramConfig
from umscosod.network.cfmm import map_images

ALPHA = 3.0  # exponent of the rank amplification, eq. 4, as in the ancestors


def channel_kernel_size(dim: int) -> int:
    """Width of the 1-D convolution along the channels: round(|(log2 C - 1) / 1.5|), made odd, at least 1.

    Examples
    --------
    >>> [channel_kernel_size(dim) for dim in (4, 32, 48, 64, 384, 768)]
    [1, 3, 3, 3, 5, 5]
    """
    size = round(abs((math.log2(dim) - 1) / 1.5))
    return max(1, size if size % 2 else size - 1)


class Gate(nn.Module):
    """A gate along one axis: statistics over the two others, a short convolution, a sigmoid.

    Parameters
    ----------
    axis : int
        Gated axis of ``(N, h, w, C)``: 1, 2 or 3.
    kernel_size : int
        Odd width of the convolution along that axis.
    """

    def __init__(self, axis: int, kernel_size: int) -> None:
        super().__init__()
        self.axis = axis
        self.mix = nn.Parameter(torch.rand(2))
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=(kernel_size - 1) // 2, bias=False)

    def forward(self, grid_NhwC: Tensor) -> Tensor:
        """Compute the gate in (0, 1), with size 1 along the two axes that are not gated."""
        others = [axis for axis in (1, 2, 3) if axis != self.axis]
        grid = grid_NhwC.float()
        mean = grid.mean(dim=others, keepdim=True)
        # One value has no unbiased deviation: call it 0 instead of NaN (a grid of a single token).
        alone = math.prod(grid.shape[axis] for axis in others) < 2
        deviation = torch.zeros_like(mean) if alone else grid.std(dim=others, keepdim=True)
        share = self.mix.sigmoid()
        pooled = 0.5 * (mean + deviation) + share[0] * mean + share[1] * deviation
        gate_N1G: Tensor = self.conv(pooled.flatten(1).unsqueeze(1))
        return gate_N1G.sigmoid().view(mean.shape)


class Mca(nn.Module):
    """Mean of a row gate, a column gate and a channel gate, times the input.

    Parameters
    ----------
    dim : int
        Channels C.

    References
    ----------
    Y. Yu, Y. Zhang, Z. Cheng, Z. Song, C. Tang: MCA, multidimensional collaborative attention in deep convolutional
    neural networks for image recognition. Engineering Applications of Artificial Intelligence 126 (2023) 107079.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.rows = Gate(axis=1, kernel_size=3)
        self.columns = Gate(axis=2, kernel_size=3)
        self.channels = Gate(axis=3, kernel_size=channel_kernel_size(dim))

    def forward(self, grid_NhwC: Tensor) -> Tensor:
        """Gate a feature grid; ``(N, h, w, C)`` in and out."""
        gate: Tensor = (self.rows(grid_NhwC) + self.columns(grid_NhwC) + self.channels(grid_NhwC)) / 3
        return grid_NhwC * gate


@torch.no_grad()
def order_descending(scores_QR: Tensor) -> Tensor:
    """Sort the positive scores of each row, largest first; equal scores keep their order (lower index first).

    Parameters
    ----------
    scores_QR : Tensor, float32, (Q, R)

    Returns
    -------
    Tensor, int64, (Q, R)
        Column indices. Columns with a score <= 0 come last, in index order.

    Examples
    --------
    >>> order_descending(torch.tensor([[0.5, 2.0, -1.0, 2.0, -3.0]]))
    tensor([[1, 3, 0, 2, 4]])
    """
    positive_QR = scores_QR.clamp_min(0.0)
    if scores_QR.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.argsort(positive_QR, dim=-1, descending=True, stable=True)
    # Bit patterns of floats >= 0 are ordered like the floats: (complement, index) packed into 64 bits sorts by value
    # downwards and by index upwards, 3.5 times faster than a stable argsort and with the same result. Adding 0.0
    # turns -0.0, whose pattern is negative, into 0.0.
    bits_QR = (positive_QR + 0.0).contiguous().numpy().view(np.int32)
    packed_QR = ((~bits_QR).astype(np.int64) << 32) | np.arange(scores_QR.shape[-1])
    packed_QR.sort(axis=-1)
    return torch.from_numpy(packed_QR & 0xFFFFFFFF)


@torch.no_grad()
def compute_log_amplification(scores_QR: Tensor, alpha: float) -> Tensor:
    """Compute ln A_amp of eq. 4: ``alpha ln(rank + 1)`` where the score is positive, else 0.

    The rank counts from 0 at the largest score of the row, so the weakest positive relation is amplified most.

    Parameters
    ----------
    scores_QR : Tensor, float32, (Q, R)
        A_raw of one image.
    alpha : float

    Returns
    -------
    Tensor, float32, (Q, R), >= 0
        Without gradient. Ties: lower key index has the lower rank.

    Examples
    --------
    >>> compute_log_amplification(torch.tensor([[0.5, 2.0, -1.0, 2.0]]), alpha=3.0).exp().round()
    tensor([[27.,  1.,  1.,  8.]])
    """
    steps_R = torch.arange(1, scores_QR.shape[-1] + 1, dtype=torch.float32, device=scores_QR.device)
    table_QR = (alpha * steps_R.log()).expand(scores_QR.shape)
    ranked_QR = torch.empty_like(scores_QR, dtype=torch.float32).scatter_(-1, order_descending(scores_QR), table_QR)
    return ranked_QR.masked_fill_(scores_QR <= 0, 0.0)


def attend_amplified(query_PC: Tensor, key_PC: Tensor, value_PC: Tensor, alpha: float, amp_norm: str) -> Tensor:
    """Compute A_final V of eq. 5 for one image, in float32.

    Parameters
    ----------
    query_PC, key_PC, value_PC : Tensor, (P, C)
    alpha : float
    amp_norm : {"row", "none"}
        ``row`` divides A_norm * A_amp by its row sums, which is the softmax of A_raw + ln A_amp: a proper attention,
        finite in every precision. ``none`` is the published form; its factors reach P ** alpha.

    Returns
    -------
    Tensor, float32, (P, C)
    """
    with torch.autocast(query_PC.device.type, enabled=False):
        scores_QR = query_PC.float() @ key_PC.float().T / math.sqrt(query_PC.shape[-1])
        log_amp_QR = compute_log_amplification(scores_QR.detach(), alpha)
        if amp_norm == "row":
            return (scores_QR + log_amp_QR).softmax(dim=-1) @ value_PC.float()
        return (scores_QR.softmax(dim=-1) * log_amp_QR.exp()) @ value_PC.float()


class StackedLinear(nn.Module):
    """Two stacked 1x1 convolutions with nothing between, applied as the one linear map they are.

    Folding costs one (C, C, C) product a call instead of one (P, C, C) product an image, in training too, so that
    training and inference round alike.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, dim)
        self.outer = nn.Linear(dim, dim)

    def forward(self, tokens_NPC: Tensor) -> Tensor:
        """Map tokens; ``(N, P, C)`` in and out."""
        with torch.autocast(tokens_NPC.device.type, enabled=False):
            weight_CC = self.outer.weight @ self.inner.weight
            bias_C = self.outer.weight @ self.inner.bias + self.outer.bias
        return functional.linear(tokens_NPC, weight_CC, bias_C)


class Fram(nn.Module):
    """Feature refinement and amplification.

    ``F_act = relu(conv1x1(MCA(F_merged)))``, ``F_enrich = A_final V + F_act``. No image sees another.

    Parameters
    ----------
    dim : int
    config : FramConfig

    References
    ----------
    UMS-CoSOD, eq. 4 and 5.
    """

    def __init__(self, dim: int, config: FramConfig) -> None:
        super().__init__()
        self.config = config
        if not config.enabled:
            return
        self.mca = Mca(dim)
        self.activation = nn.Linear(dim, dim)
        self.query, self.key, self.value = StackedLinear(dim), StackedLinear(dim), StackedLinear(dim)

    def forward(self, merged_NPC: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Refine the tokens of each image.

        Parameters
        ----------
        merged_NPC : Tensor, float, (N, P, C)
        grid_hw : (int, int)
            Its product is P.

        Returns
        -------
        Tensor, (N, P, C)
            `merged_NPC` itself when switched off.
        """
        if not self.config.enabled:
            return merged_NPC
        gated_NPC = self.mca(merged_NPC.reshape(merged_NPC.shape[0], *grid_hw, -1)).flatten(1, 2)
        active_NPC: Tensor = self.activation(gated_NPC).relu()
        query_NPC, key_NPC, value_NPC = self.query(active_NPC), self.key(active_NPC), self.value(active_NPC)
        # Image by image: the (P, P) matrices of one fit a core's cache, those of a group of 500 fit no memory.
        norm = self.config.amp_norm
        attended_NPC = map_images(
            lambda query_PC, key_PC, value_PC: attend_amplified(query_PC, key_PC, value_PC, ALPHA, norm),
            query_NPC,
            key_NPC,
            value_NPC,
        )
        return attended_NPC + active_NPC
