"""MCA: three gates that re-weigh a feature grid along its rows, its columns and its channels (spec A4.1).

Written from the description alone. Shapes: ``N`` images, ``h w`` token grid, ``C`` channels, ``G`` gated axis.

References
----------
Y. Yu, Y. Zhang, Z. Cheng, Z. Song, C. Tang: MCA, multidimensional collaborative attention in deep convolutional
neural networks for image recognition. Engineering Applications of Artificial Intelligence 126 (2023) 107079.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


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
