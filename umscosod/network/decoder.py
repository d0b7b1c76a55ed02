"""Decoder: from enriched tokens to three supervised logit maps (spec A5).

Shapes: ``N`` images, ``P = h * w`` patches, ``C`` token width, ``D`` decoder channels, ``H W`` output pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from umscosod.config import DecoderConfig

STAGES = 3
STRIDE = 2  # side of the pictures over that of the last map: 28, 56 and 112 for 224
PICTURE_CHANNELS = 3


def stage_sizes(out_hw: tuple[int, int], stride: int) -> tuple[tuple[int, int], ...]:
    """Sizes of the three stages: 1/4, 1/2 and 1 of the output over the stride, at least one pixel.

    Examples
    --------
    >>> stage_sizes((224, 224), stride=2)
    ((28, 28), (56, 56), (112, 112))
    """
    shrink = [stride * 2 ** (STAGES - 1 - stage) for stage in range(STAGES)]
    return tuple((max(1, out_hw[0] // by), max(1, out_hw[1] // by)) for by in shrink)


def resize_maps(maps_NCHW: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize bilinearly with align_corners false; the same size passes through untouched."""
    if maps_NCHW.shape[-2:] == size_hw:
        return maps_NCHW
    return functional.interpolate(maps_NCHW, size=size_hw, mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """Three stages, coarse to fine, each with its own head.

    A stage is a bilinear resize and conv3x3-ReLU-conv3x3; a head is two conv3x3 + ReLU and a conv1x1 to one logit.
    With ``picture`` the RGB picture, scaled to [-1, 1] and shrunk with antialiasing, joins each stage as three more
    channels: the token grid alone cannot say where a border lies inside a patch.

    Parameters
    ----------
    dim : int
        Width C of the tokens.
    config : DecoderConfig
    """

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        extra = PICTURE_CHANNELS if config.picture else 0
        self.reduce = nn.Sequential(nn.Conv2d(dim, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width + extra, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
            )
            for _ in range(STAGES)
        )
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, 1, 1),
            )
            for _ in range(STAGES)
        )

    def forward(
        self,
        enriched_NPC: Tensor,
        grid_hw: tuple[int, int],
        out_hw: tuple[int, int],
        pictures_NHW3: Tensor | None = None,
        *,
        last_only: bool = False,
    ) -> tuple[Tensor, ...]:
        """Decode tokens to logits.

        Parameters
        ----------
        enriched_NPC : Tensor, float, (N, P, C)
        grid_hw, out_hw : (int, int)
        pictures_NHW3 : Tensor, uint8, (N, H', W', 3), optional
            Needed with ``picture`` on, ignored with it off.
        last_only : bool
            Run the finest head alone (inference).

        Returns
        -------
        tuple of Tensor, float, (N, 1, H, W)
            Three logit maps, coarse to fine, or the finest alone, all at `out_hw`.

        Raises
        ------
        ValueError
            The decoder was built with ``picture`` and none was given.
        """
        if self.config.picture and pictures_NHW3 is None:
            raise ValueError("network.decoder.picture is on: pass pictures_NHW3")
        maps = enriched_NPC.transpose(1, 2).reshape(enriched_NPC.shape[0], -1, *grid_hw)
        # Tokens already lie channels-last in memory; convolutions are fastest when they stay so.
        maps = self.reduce(maps.contiguous(memory_format=torch.channels_last))
        picture = scale_pictures(pictures_NHW3) if self.config.picture and pictures_NHW3 is not None else None
        logits: list[Tensor] = []
        for index, size_hw in enumerate(stage_sizes(out_hw, STRIDE)):
            maps = resize_maps(maps, size_hw)
            if picture is not None:
                shrunk = functional.interpolate(
                    picture, size=size_hw, mode="bilinear", align_corners=False, antialias=True
                )
                maps = torch.cat([maps, shrunk.to(maps.dtype)], dim=1)
            maps = self.stages[index](maps.contiguous(memory_format=torch.channels_last))
            if not last_only or index == STAGES - 1:
                logits.append(resize_maps(self.heads[index](maps), out_hw))
        return tuple(logits)


def scale_pictures(pictures_NHW3: Tensor) -> Tensor:
    """Turn uint8 RGB ``(N, H, W, 3)`` into float32 ``(N, 3, H, W)`` in [-1, 1]."""
    return pictures_NHW3.permute(0, 3, 1, 2).float() / 127.5 - 1.0
