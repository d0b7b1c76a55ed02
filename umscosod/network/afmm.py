"""AFMM: adaptive mixing of the two token streams, then self-attention inside each image (eq. 2, spec A2).

Shapes: ``N`` images, ``P`` patches, ``C`` common width, ``A`` heads, ``E = C / A``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from umscosod.config import AfmmConfig

HEADS = 4  # of the self-attention, as in the paper
HIDDEN_DIVISOR = 4  # the hidden width of the mixing MLP is C over this (spec A2; the paper does not say)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the patches of one image, without positional code.

    Parameters
    ----------
    dim : int
        Width C of the tokens.
    heads : int
        Heads A; must divide `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, tokens_NPC: Tensor) -> Tensor:
        """Attend within each image; ``(N, P, C)`` in, ``(N, P, C)`` out."""
        count, patches, dim = tokens_NPC.shape
        stacked: Tensor = self.query_key_value(tokens_NPC)
        query_NAPE, key_NAPE, value_NAPE = stacked.view(count, patches, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # The fused kernel returns no weights and never holds the (P, P) matrix of a whole batch.
        mixed_NAPE = functional.scaled_dot_product_attention(query_NAPE, key_NAPE, value_NAPE)
        mixed_NPC: Tensor = self.output(mixed_NAPE.transpose(1, 2).reshape(count, patches, dim))
        return mixed_NPC


class Afmm(nn.Module):
    """Adaptive feature mixing: a learned convex mix of two streams, made consistent by self-attention.

    ``F_dyn = w F_first + (1 - w) F_second`` with ``w = sigmoid(linear(relu(linear([F_first; F_second]))))``, then
    ``LayerNorm(F_dyn + MHA(F_dyn))``. Switched off it is the plain mean of the streams and has no parameters (first
    row of the paper's ablation).

    Parameters
    ----------
    dim : int
        Common width C of both streams, a multiple of `HEADS`.
    config : AfmmConfig

    References
    ----------
    UMS-CoSOD, eq. 2 and the line after it.
    """

    def __init__(self, dim: int, config: AfmmConfig) -> None:
        super().__init__()
        self.config = config
        if not config.enabled:
            return
        hidden = max(1, dim // HIDDEN_DIVISOR)
        self.mixer = nn.Sequential(nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.attention = SelfAttention(dim, HEADS)
        self.norm = nn.LayerNorm(dim)

    def compute_weight(self, first_NPC: Tensor, second_NPC: Tensor) -> Tensor:
        """Compute the share w of the first stream (eq. 2), one for each patch: ``(N, P, 1)``, in (0, 1)."""
        logit: Tensor = self.mixer(torch.cat([first_NPC, second_NPC], dim=-1))
        return logit.sigmoid()

    def forward(self, first_NPC: Tensor, second_NPC: Tensor) -> Tensor:
        """Mix two streams of equal shape; images never see each other.

        Parameters
        ----------
        first_NPC, second_NPC : Tensor, float, (N, P, C)

        Returns
        -------
        Tensor, (N, P, C)
            Layer-normalised where enabled, else the mean of the inputs.
        """
        if not self.config.enabled:
            return 0.5 * (first_NPC + second_NPC)
        weight = self.compute_weight(first_NPC, second_NPC)
        dynamic_NPC = weight * first_NPC + (1 - weight) * second_NPC
        fused_NPC: Tensor = self.norm(dynamic_NPC + self.attention(dynamic_NPC))
        return fused_NPC
