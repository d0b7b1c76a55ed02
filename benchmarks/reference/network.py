"""CFMM's importance from the whole affinity, and FRAM's ranks by two sorts."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def compute_importance(query_NPC: Tensor, key_NPC: Tensor) -> Tensor:
    """As `umscosod.network.cfmm.compute_importance`, with the affinity of all tokens of the group in memory at once."""
    count, patches, _ = query_NPC.shape
    affinity = query_NPC.flatten(0, 1) @ key_NPC.flatten(0, 1).T
    best = affinity.view(count * patches, count, patches).amax(dim=2)
    return best.mean(dim=1).view(count, patches)


@torch.no_grad()
def compute_log_amplification(scores_QR: Tensor, alpha: float) -> Tensor:
    """As `umscosod.network.fram.compute_log_amplification`: a sort gives the order, a sort of the order the ranks."""
    order_QR = torch.argsort(scores_QR.clamp_min(0.0), dim=-1, descending=True, stable=True)
    rank_QR = torch.argsort(order_QR, dim=-1)
    return torch.where(scores_QR > 0, alpha * (rank_QR.float() + 1.0).log(), 0.0)
