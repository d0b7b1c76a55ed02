"""The small convolutional network of `starter`: what stands out in a picture.

Shape suffixes: ``N`` pictures, ``C`` channels, ``H W`` pixels, ``h w`` a quarter of their sides.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

_WIDTHS = (32, 48, 96, 160, 192)  # of the stem, and at strides 4, 8, 16 and 32
_BLOCKS = (1, 1, 2, 2)
_MERGED = 64  # channels in which the strides are merged
_MEAN, _DEVIATION = 0.45, 0.26  # of photographs in [0, 1], about those of any large collection


class StarterNetwork(nn.Module):
    """Encoder of residual blocks and a decoder that merges its strides, top down; 2.6 million parameters.

    Notes
    -----
    Sides of pictures must be multiples of 32. Residual blocks: He et al., arXiv 1512.03385; merging of strides: Lin et
    al., arXiv 1612.03144.
    """

    def __init__(self) -> None:
        super().__init__()
        stem, *widths = _WIDTHS
        self.stem = nn.Sequential(_conv(3, stem, 3, 2), nn.ReLU(), _conv(stem, widths[0], 3, 2), nn.ReLU())
        stages: list[nn.Module] = []
        before = widths[0]
        for width, blocks in zip(widths, _BLOCKS, strict=True):
            stride = 1 if not stages else 2
            stages.append(
                nn.Sequential(
                    *(_Block(before if at == 0 else width, width, stride if at == 0 else 1) for at in range(blocks))
                )
            )
            before = width
        self.stages = nn.ModuleList(stages)
        self.context = nn.Conv2d(before, before, 1)
        self.lateral = nn.ModuleList(nn.Conv2d(width, _MERGED, 1) for width in widths)
        self.merge = nn.ModuleList(_conv(_MERGED, _MERGED, 3, 1) for _ in widths)
        self.saliency = nn.Conv2d(_MERGED, 1, 1)

    def forward(self, pictures_N3HW: Tensor) -> Tensor:
        """Look at RGB pictures in [0, 1], float32, sides multiples of 32.

        Returns
        -------
        Tensor, float32, (N, H / 4, W / 4)
            Before the sigmoid: whether a cell belongs to what stands out.
        """
        current = self.stem((pictures_N3HW - _MEAN) / _DEVIATION)
        strides = []
        for stage in self.stages:
            current = stage(current)
            strides.append(current)
        strides[-1] = strides[-1] + self.context(strides[-1].mean((2, 3), keepdim=True))
        merged: Tensor | None = None
        for level in reversed(range(len(strides))):
            lateral = self.lateral[level](strides[level])
            if merged is not None:
                lateral = lateral + interpolate(merged, scale_factor=2.0, mode="nearest")
            merged = relu(self.merge[level](lateral))
        logits_N1hw: Tensor = self.saliency(merged)
        return logits_N1hw[:, 0]


class _Block(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(before, width, 3, stride)
        self.second = _conv(width, width, 3, 1)
        self.short = nn.Identity() if before == width and stride == 1 else _conv(before, width, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        return relu(self.second(relu(self.first(inputs))) + self.short(inputs))


def _conv(before: int, width: int, side: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, width, side, stride, side // 2, bias=False), nn.BatchNorm2d(width))
