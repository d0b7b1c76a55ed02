"""CFMM: what the images of a group have in common, as one key point per image (eq. 3, spec A3).

Shapes: ``N`` images, ``P`` patches, ``C`` width, ``K = N`` key points, ``Q`` query patches of a block.
A 1x1 convolution over a token grid is a linear map of each token, and is written as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from umscosod.config import CfmmConfig

BLOCK_IMAGES = 1  # of the affinity and of inference: bounds memory, not results; one fits a core's cache
MINMAX_EPS = 1e-12  # denominator guard of the ancestors' min-max
FLAT_RANGE = 1e-6  # below this a response map is rounding noise: stretching it would turn 1e-8 into gradients of 1e12


def map_images(function: Callable[..., Tensor], *stacks: Tensor) -> Tensor:
    """Stack what a function makes of each image of a group, one image at a time.

    Traced for export, the loop becomes one of the graph (ONNX: ``Scan``), so that the graph takes any number of images
    and holds the intermediate values of one. The function is the same.

    Parameters
    ----------
    function : callable
        Tensors of one image in, one tensor out; its result may be a view of no argument.
    *stacks : Tensor, (N, ...)

    Returns
    -------
    Tensor, (N, ...)

    Examples
    --------
    >>> map_images(lambda one, other: one * other, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    tensor([3., 8.])
    """
    if not torch.compiler.is_compiling():
        return torch.stack([function(*parts) for parts in zip(*stacks, strict=True)])
    from torch._higher_order_ops.scan import scan  # a prototype of torch: of no concern to other work

    def step(carry: Tensor, parts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return carry.clone(), function(*parts)

    stacked: Tensor = scan(step, torch.zeros(1, device=stacks[0].device), stacks)[1]
    return stacked


@torch.no_grad()
def compute_importance(query_NPC: Tensor, key_NPC: Tensor, block_images: int) -> Tensor:
    """Compute F_lm: how well each token is answered by every image of the group.

    The affinity of every token with every token of the group, its maximum over the tokens of each image, then the
    mean over images, the own one included. Only one block of the affinity exists at a time, so memory is linear in
    the size of the group. Where `key_NPC` is the same object as `query_NPC` the affinity is symmetric and each pair
    of blocks is computed once.

    Parameters
    ----------
    query_NPC, key_NPC : Tensor, float, (N, P, C)
    block_images : int
        Images per side of a block; changes memory and speed, not the result (to rounding).

    Returns
    -------
    Tensor, float32, (N, P)
        Without gradient: the argmax taken from it would stop it anyway (spec A3, findings).

    Examples
    --------
    >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [3.0, 0.0]]])
    >>> compute_importance(tokens, tokens, 1)
    tensor([[2.0000, 3.0000],
            [1.5000, 6.0000]])
    """
    count, patches, _ = query_NPC.shape
    symmetric = key_NPC is query_NPC
    # Sums in float64 (where the device has it) so that the order of blocks cannot decide between near-equal tokens.
    wide = torch.float32 if query_NPC.device.type == "mps" else torch.float64
    if torch.compiler.is_compiling():  # loops over pairs of blocks would fix the number of images
        answers_MNP = map_images(lambda key_PC: (query_NPC @ key_PC.T).amax(dim=2), key_NPC)
        return answers_MNP.mean(dim=0, dtype=wide).float()
    total_NP = torch.zeros(count, patches, dtype=wide, device=query_NPC.device)
    for start in range(0, count, block_images):
        query_QC = query_NPC[start : start + block_images].flatten(0, 1)
        rows = query_QC.shape[0] // patches
        for other in range(start if symmetric else 0, count, block_images):
            key_RC = key_NPC[other : other + block_images].flatten(0, 1)
            affinity = (query_QC @ key_RC.T).view(rows, patches, -1, patches)
            total_NP[start : start + rows] += affinity.amax(dim=3).sum(dim=2, dtype=wide)
            if symmetric and other != start:
                total_NP[other : other + block_images] += affinity.amax(dim=1).sum(dim=0, dtype=wide)
    return (total_NP / count).float()


def select_seeds(importance_NP: Tensor, prior_NP: Tensor | None) -> Tensor:
    """Pick the seed token of each image: the argmax of minmax(F_lm) * prior, or of F_lm itself.

    Parameters
    ----------
    importance_NP : Tensor, float32, (N, P)
    prior_NP : Tensor or None, (N, P), in [0, 1]
        Self-attention map; None: no prior.

    Returns
    -------
    Tensor, int64, (N,)
        Ties: the lowest index. A constant F_lm leaves the decision to the prior.

    Examples
    --------
    >>> scores = torch.tensor([[1.0, 3.0, 3.0, 2.0]])
    >>> select_seeds(scores, None).item(), select_seeds(scores, torch.tensor([[1.0, 0.2, 0.1, 0.9]])).item()
    (1, 3)
    """
    if prior_NP is None:
        return importance_NP.argmax(dim=1)
    low_N1 = importance_NP.amin(dim=1, keepdim=True)
    spread_N1 = importance_NP.amax(dim=1, keepdim=True) - low_N1
    scaled_NP = torch.where(spread_N1 > 0, (importance_NP - low_N1) / (spread_N1 + MINMAX_EPS), 1.0)
    return (scaled_NP * prior_NP.float()).argmax(dim=1)


def minmax_per_image(map_NP: Tensor) -> Tensor:
    """Stretch each map to [0, 1] with 1e-12 in the denominator; a map flat to 1e-6 is only shifted to 0.

    Examples
    --------
    >>> minmax_per_image(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    tensor([[0.0000, 0.5000, 1.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    low_N1 = map_NP.amin(dim=1, keepdim=True)
    spread_N1 = map_NP.amax(dim=1, keepdim=True) - low_N1
    spread_N1 = torch.where(spread_N1 < FLAT_RANGE, torch.ones_like(spread_N1), spread_N1)
    return (map_NP - low_N1) / (spread_N1 + MINMAX_EPS)


class Cfmm(nn.Module):
    """Consensus feature mining: seeds, key points, response maps and eq. 3.

    `forward` is the composition of the other methods; inference on large groups calls them block by block, since
    images meet only in the key points (K, C) and in F_comp (C,).

    Parameters
    ----------
    dim : int
    config : CfmmConfig

    References
    ----------
    UMS-CoSOD, section 2.2 (CFMM) and eq. 3.
    """

    def __init__(self, dim: int, config: CfmmConfig) -> None:
        super().__init__()
        self.config = config
        if not config.enabled:
            return
        self.residual = nn.Linear(dim, dim)
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        for layer in (self.query, self.key):
            if config.init == "identity":
                nn.init.eye_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            # Only an argmax reads them, so no gradient can reach them: said aloud instead of left to be found.
            layer.requires_grad_(False)

    def compute_residual(self, fused_NPC: Tensor) -> Tensor:
        """F_res = conv1x1(X) + X; ``(N, P, C)``."""
        residual_NPC: Tensor = self.residual(fused_NPC) + fused_NPC
        return residual_NPC

    @torch.no_grad()
    def compute_seeds(self, residual_NPC: Tensor, saliency_NP: Tensor) -> Tensor:
        """Find the seed token of each image from the affinity of the whole group; int64, ``(N,)``."""
        with torch.autocast(residual_NPC.device.type, enabled=False):
            tokens_NPC = residual_NPC.float()
            query_NPC = self.query(tokens_NPC)
            key_NPC = query_NPC if self._is_symmetric() else self.key(tokens_NPC)
            # A positive scale commutes with the maximum and the mean.
            scale = 1 / math.sqrt(residual_NPC.shape[-1])
            importance_NP = compute_importance(query_NPC, key_NPC, BLOCK_IMAGES) * scale
        return select_seeds(importance_NP, saliency_NP if self.config.seed_prior == "attention" else None)

    def _is_symmetric(self) -> bool:
        """Whether queries and keys are the same map, as they begin; it saves time only, and values cannot be traced."""
        if torch.compiler.is_compiling():
            return False
        return torch.equal(self.query.weight, self.key.weight) and torch.equal(self.query.bias, self.key.bias)

    def compute_key_points(self, residual_NPC: Tensor, seeds_N: Tensor) -> Tensor:
        """Take the L2-normalised F_res at the seed of each image, one vector of unit length per image; ``(K, C)``."""
        index_N1C = seeds_N.view(-1, 1, 1).expand(-1, 1, residual_NPC.shape[-1])
        seed_KC = residual_NPC.gather(1, index_N1C).squeeze(1).float()
        return functional.normalize(functional.normalize(seed_KC, dim=-1), dim=-1)

    def compute_response(self, residual_NPC: Tensor, key_points_KC: Tensor) -> Tensor:
        """RM_mean: cosine of each token with every key point, rectified, averaged, min-maxed per image.

        Returns
        -------
        Tensor, float32, (N, P), in [0, 1]
        """
        # In bfloat16 a cosine has two digits, too few to tell the object's patches from their neighbours.
        with torch.autocast(residual_NPC.device.type, enabled=False):
            response_NPK = functional.normalize(residual_NPC.float(), dim=-1) @ key_points_KC.float().T
        rectified = self.config.rm_relu == "always" or not self.training
        mean_NP = (response_NPK.relu() if rectified else response_NPK).float().mean(dim=-1)
        return minmax_per_image(mean_NP)

    @staticmethod
    def sum_per_image(residual_NPC: Tensor, response_NP: Tensor) -> Tensor:
        """Sum RM_mean * F_res over the patches of each image; ``(N, C)``, the images' shares of F_comp."""
        return (residual_NPC.float() * response_NP.unsqueeze(-1)).sum(dim=1)

    @staticmethod
    def compute_consensus(sums_NC: Tensor, patches: int) -> Tensor:
        """F_comp: mean of RM_mean * F_res over the images and patches of the group; ``(C,)``."""
        return sums_NC.sum(dim=0) / (sums_NC.shape[0] * patches)

    @staticmethod
    def merge(residual_NPC: Tensor, response_NP: Tensor, consensus_C: Tensor) -> Tensor:
        """Apply eq. 3: F_merged = F_comp * F_res + RM_mean * F_res; ``(N, P, C)``."""
        return residual_NPC * (consensus_C + response_NP.unsqueeze(-1))

    def forward(self, fused_NPC: Tensor, saliency_NP: Tensor) -> Tensor:
        """Enhance what the group shares.

        Parameters
        ----------
        fused_NPC : Tensor, float, (N, P, C)
            Tokens of all images of one group; ``N = 1`` is fine.
        saliency_NP : Tensor, float, (N, P), in [0, 1]
            Self-attention maps, read only by ``seed_prior=attention``.

        Returns
        -------
        Tensor, (N, P, C)
            `fused_NPC` itself when switched off.
        """
        if not self.config.enabled:
            return fused_NPC
        residual_NPC = self.compute_residual(fused_NPC)
        key_points_KC = self.compute_key_points(residual_NPC, self.compute_seeds(residual_NPC, saliency_NP))
        response_NP = self.compute_response(residual_NPC, key_points_KC)
        sums_NC = self.sum_per_image(residual_NPC, response_NP)
        return self.merge(residual_NPC, response_NP, self.compute_consensus(sums_NC, residual_NPC.shape[1]))
