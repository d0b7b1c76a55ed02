"""What a step asks of the network: saliency maps that fit the targets, embeddings that know places and objects again.

Shape suffixes as in `umscosod.pretrain.augment`; ``D`` width of the embedding, ``R`` rows to tell apart.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, grid_sample, interpolate, normalize

from umscosod.features.starter_network import StarterOutput
from umscosod.network.losses import compute_loss
from umscosod.pretrain.augment import Views

_TEMPERATURE = 0.2  # of both contrasts, as in DenseCL
_LEAST_CELLS = 4.0  # of an object or a background whose mean is compared


def step_loss(output: StarterOutput, views: Views, *, contrast: float) -> Tensor:
    """Sum the loss of the maps and, with the weight `contrast`, those of the embeddings.

    References
    ----------
    Dense contrast: Wang et al., arXiv 2011.09157. Contrast of objects and backgrounds of several pictures: Van
    Gansbeke et al., arXiv 2102.06191.
    """
    loss = compute_loss((output.logits_Nhw[:, None],), views.targets_Vtt, views.weights_V).total
    if contrast:
        loss = loss + contrast * (_dense_contrast(output, views) + _object_contrast(output, views))
    return loss


def _dense_contrast(output: StarterOutput, views: Views) -> Tensor:
    """Tell each point's place in the other view from places of other photographs."""
    half = len(views.valid_BK)
    sampled = grid_sample(output.embedding_NChw, views.points_VK2[:, :, None], align_corners=False)[..., 0]
    rows_VKD = normalize(sampled.transpose(1, 2), dim=-1)
    photo_BK = torch.arange(half, device=rows_VKD.device)[:, None].expand_as(views.valid_BK)
    photo_R = photo_BK[views.valid_BK]
    if len(photo_R) < 2:
        return output.embedding_NChw.sum() * 0.0
    first_RD, second_RD = rows_VKD[:half][views.valid_BK], rows_VKD[half:][views.valid_BK]
    return _tell_apart(first_RD, second_RD, photo_R)


def _object_contrast(output: StarterOutput, views: Views) -> Tensor:
    """Tell the object of a view from the backgrounds and the objects of other photographs."""
    half = len(views.valid_BK)
    map_V1hw = interpolate(views.targets_Vtt[:, None], size=output.embedding_NChw.shape[2:], mode="area")
    unit_VDhw = normalize(output.embedding_NChw, dim=1)
    front_VD, front_V = _pool(unit_VDhw, map_V1hw)
    back_VD, back_V = _pool(unit_VDhw, 1.0 - map_V1hw)
    is_used_B = (torch.minimum(front_V, back_V)[:half] > 0) & (torch.minimum(front_V, back_V)[half:] > 0)
    is_used_B = is_used_B & (views.weights_V[:half] > 0.3)
    if int(is_used_B.sum()) < 2:
        return output.embedding_NChw.sum() * 0.0
    used = int(is_used_B.sum())
    first_RD = torch.cat([front_VD[:half][is_used_B], back_VD[:half][is_used_B]])
    second_RD = torch.cat([front_VD[half:][is_used_B], back_VD[half:][is_used_B]])
    # backgrounds of two photographs are often of one kind: they are not told from each other
    kind_R = torch.cat([torch.arange(used), torch.full((used,), -1)]).to(first_RD.device)
    return _tell_apart(first_RD, second_RD, kind_R)


def _pool(unit_VDhw: Tensor, map_V1hw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean inside a soft map, of unit length, and whether the map is large enough."""
    share_V1hw = (map_V1hw > 0.5).float()
    area_V = share_V1hw.sum((1, 2, 3))
    summed_VD = (unit_VDhw * share_V1hw).sum((2, 3))
    return normalize(summed_VD, dim=1), (area_V >= _LEAST_CELLS).float()


def _tell_apart(first_RD: Tensor, second_RD: Tensor, kind_R: Tensor) -> Tensor:
    """Cross-entropy of each row's partner against rows of other kinds, both ways."""
    scores_RR = first_RD @ second_RD.T / _TEMPERATURE
    is_same_RR = kind_R[:, None] == kind_R[None]
    is_same_RR.fill_diagonal_(False)
    scores_RR = scores_RR.masked_fill(is_same_RR, -1e4)
    partner_R = torch.arange(len(first_RD), device=first_RD.device)
    return 0.5 * (cross_entropy(scores_RR, partner_R) + cross_entropy(scores_RR.T, partner_R))
