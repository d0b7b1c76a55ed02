"""Position embeddings brought from the stored grid to the one in use, by the rule of each family's authors."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import interpolate

from umscosod.features.vit_specs import PosEmbedRule

_OFFSET = 0.1  # patches; the authors' guard against rounding, which became part of what their models see


def resize_pos_embed(pos_1TD: torch.Tensor, side: int, *, prefix: int, rule: PosEmbedRule) -> torch.Tensor:
    """Resize a square grid of position embeddings.

    Parameters
    ----------
    pos_1TD : Tensor, float32, (1, prefix + M * M, D)
        As stored; `prefix` entries come before the grid and are kept.
    side : int
        Patches down and across that are wanted.
    prefix : int
    rule : "offset" or "antialias"
        ``offset``: bicubic at the scale (side + 0.1) / M, so that samples do not lie where the ratio of the sizes
        would put them; original DINO, and DINOv2 without registers. ``antialias``: bicubic and antialiased to the
        wanted size; DINOv2 with registers.

    Returns
    -------
    Tensor, float32, (1, prefix + side * side, D)
        On the CPU, where equal inputs give equal bits. Of equal grids the values stay as they are.
    """
    pos_1TD = pos_1TD.detach().cpu()
    native = square_side(pos_1TD.shape[1] - prefix)
    if native == side:
        return pos_1TD
    grid_1DHW = pos_1TD[:, prefix:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
    if rule == "offset":
        scale = (side + _OFFSET) / native
        resized_1DHW = interpolate(grid_1DHW, scale_factor=(scale, scale), mode="bicubic")
    else:
        resized_1DHW = interpolate(grid_1DHW, size=(side, side), mode="bicubic", antialias=True)
    assert resized_1DHW.shape[-2:] == (side, side)
    return torch.cat([pos_1TD[:, :prefix], resized_1DHW.flatten(2).transpose(1, 2)], dim=1)


def square_side(length: int) -> int:
    """Side of the square grid that `length` positions fill; 0: they fill none.

    Examples
    --------
    >>> square_side(1369), square_side(1370), square_side(-1)
    (37, 0, 0)
    """
    side = math.isqrt(max(0, length))
    return side if side * side == length else 0
