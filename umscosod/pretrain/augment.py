"""Two views of each photograph, with its target.

Shape suffixes: ``B`` photographs, ``V = 2 B`` views (first views, then second ones), ``S`` side in pixels, ``T`` side
of a target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

_SCALES = (0.55, 1.0)  # side of a crop, as a share of the photograph's
_ASPECTS = (0.8, 1.25)
_GREY = 0.1  # share of views without colour
_PASTE_SCALES = (0.3, 1.1)  # of a pasted object, in sides of its own view


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """What a step sees.

    Attributes
    ----------
    pictures_V3SS : Tensor, float32, in [0, 1]
    targets_Vtt : Tensor, float32, in [0, 1]
        At a quarter of the views' sides.
    weights_V : Tensor, float32
    """

    pictures_V3SS: Tensor
    targets_Vtt: Tensor
    weights_V: Tensor


def make_views(
    pictures_BSS3: Tensor,
    targets_BTT: Tensor,
    weights_B: Tensor,
    generator: np.random.Generator,
    *,
    side_px: int,
    paste: float,
) -> Views:
    """Crop, flip, recolour; paste the objects of some photographs on others.

    Parameters
    ----------
    pictures_BSS3 : Tensor, uint8
    targets_BTT : Tensor, uint8
    weights_B : Tensor, float32
    generator : Generator
        All chance comes from it, on the CPU.
    side_px : int
        Of a view; a multiple of 32.
    paste : float
        Share of views on which an object is pasted.
    """
    device = pictures_BSS3.device
    count = 2 * len(pictures_BSS3)
    crop_V4 = torch.from_numpy(_draw_crops(generator, count)).to(device)
    twice = torch.arange(count, device=device) % len(pictures_BSS3)
    photos_V3SS = pictures_BSS3.permute(0, 3, 1, 2).float()[twice] / 255.0
    maps_V1TT = targets_BTT[:, None].float()[twice] / 255.0
    pictures_V3SS = _sample(photos_V3SS, crop_V4, side_px)
    maps_V1SS = _sample(maps_V1TT, crop_V4, side_px)
    weights_V = weights_B[twice]
    if paste:
        pictures_V3SS, maps_V1SS = _paste(pictures_V3SS, maps_V1SS, weights_V, generator, share=paste)
    pictures_V3SS = _recolour(pictures_V3SS, generator)
    targets_Vtt = interpolate(maps_V1SS, size=(side_px // 4, side_px // 4), mode="area")[:, 0]
    return Views(
        pictures_V3SS=pictures_V3SS.contiguous(memory_format=torch.channels_last),
        targets_Vtt=targets_Vtt,
        weights_V=weights_V,
    )


def _draw_crops(generator: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    """Half sides (x negative: mirrored) and centres of crops in the coordinates of `grid_sample`: (count, 4)."""
    side_N = generator.uniform(*_SCALES, count)
    flattest, steepest = (float(one) for one in np.log(_ASPECTS))
    aspect_N = np.exp(generator.uniform(flattest, steepest, count))
    half_N2 = np.minimum(np.stack([side_N * np.sqrt(aspect_N), side_N / np.sqrt(aspect_N)], 1), 1.0)
    centre_N2 = generator.uniform(-1.0, 1.0, (count, 2)) * (1.0 - half_N2)
    half_N2[:, 0] *= np.where(generator.random(count) < 0.5, -1.0, 1.0)
    return np.asarray(np.concatenate([half_N2, centre_N2], 1), np.float32)


def _sample(maps_VCSS: Tensor, crop_V4: Tensor, side_px: int) -> Tensor:
    axis = (torch.arange(side_px, device=maps_VCSS.device) + 0.5) * (2.0 / side_px) - 1.0
    x_VS = crop_V4[:, 2:3] + crop_V4[:, :1] * axis
    y_VS = crop_V4[:, 3:4] + crop_V4[:, 1:2] * axis
    columns_VSS = x_VS[:, None, :].expand(-1, side_px, -1)
    rows_VSS = y_VS[:, :, None].expand(-1, -1, side_px)
    grid_VSS2 = torch.stack([columns_VSS, rows_VSS], -1)
    return grid_sample(maps_VCSS, grid_VSS2, padding_mode="border", align_corners=False)


def _paste(
    pictures_V3SS: Tensor, maps_V1SS: Tensor, weights_V: Tensor, generator: np.random.Generator, *, share: float
) -> tuple[Tensor, Tensor]:
    """Paste the object of another view on a share of the views; the target is the union."""
    count = len(pictures_V3SS)
    shift = int(generator.integers(1, count // 2)) if count > 2 else 1
    source = (torch.arange(count, device=pictures_V3SS.device) + shift) % count
    is_chosen = torch.from_numpy(generator.random(count) < share).to(pictures_V3SS.device)
    scale_N2 = 1.0 / generator.uniform(*_PASTE_SCALES, (count, 1)) * np.ones((1, 2))
    scale_N2[:, 0] *= np.where(generator.random(count) < 0.5, -1.0, 1.0)
    offset_N2 = generator.uniform(-0.5, 0.5, (count, 2))
    crop_V4 = torch.from_numpy(np.concatenate([scale_N2, offset_N2], 1).astype(np.float32)).to(pictures_V3SS.device)
    side_px = pictures_V3SS.shape[-1]
    inside = torch.zeros_like(maps_V1SS)
    inside[..., 2:-2, 2:-2] = 1.0  # outside its view nothing of an object is known
    stacked = torch.cat([pictures_V3SS, maps_V1SS * inside], 1)[source]
    moved = _sample(stacked, crop_V4, side_px)
    use_V = is_chosen & (weights_V[source] > 0.5)
    over_V1SS = ((moved[:, 3:] - 0.35) / 0.3).clamp(0.0, 1.0) * use_V[:, None, None, None]
    pictures_V3SS = pictures_V3SS * (1.0 - over_V1SS) + moved[:, :3] * over_V1SS
    return pictures_V3SS, torch.maximum(maps_V1SS * (1.0 - over_V1SS), over_V1SS)


def _recolour(pictures_V3SS: Tensor, generator: np.random.Generator) -> Tensor:
    count = len(pictures_V3SS)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(generator.uniform(low, high, (count, *shape)).astype(np.float32)).to(
            pictures_V3SS.device
        )

    gain_V311 = draw(0.85, 1.15, 3, 1, 1) * draw(0.6, 1.4, 1, 1, 1)
    contrast_V111, saturation_V111 = draw(0.6, 1.4, 1, 1, 1), draw(0.3, 1.5, 1, 1, 1)
    saturation_V111 = saturation_V111 * (draw(0.0, 1.0, 1, 1, 1) > _GREY)
    grey_V1SS = pictures_V3SS.mean(1, keepdim=True)
    coloured = grey_V1SS + (pictures_V3SS - grey_V1SS) * saturation_V111
    centre_V111 = coloured.mean((1, 2, 3), keepdim=True)
    return ((centre_V111 + (coloured - centre_V111) * contrast_V111) * gain_V311).clamp(0.0, 1.0)
