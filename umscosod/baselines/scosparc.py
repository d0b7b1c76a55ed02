"""Baseline ``scosparc``: cross-attention of an image to the rest of its group, without labels (arXiv 2403.11107).

Its second stage, an adaptive threshold, a filter on regions and DenseCRF, is what our stage 3 was made from (eq. 6-8):
the maps of this first stage go there like all others.

Suffixes: ``N`` images, ``P`` patches, ``C`` width, ``h w`` the token grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from umscosod.device import derive_seed, numpy_generator
from umscosod.network.model import to_device
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import FloatArray, GroupFeatures

# As published but where it is said.
EPOCHS = 10  # passes over all groups (SCoSPARC: 150 on 17,500 images)
MIN_STEPS = 120  # small collections get more epochs until so many steps are done
RESTARTS = 4  # trainings from so many starts; the lowest loss is kept (SCoSPARC: 1; whitened tokens need several)
BATCH_IMAGES = 24  # one step = one group of at most so many images
LEARNING_RATE = 1e-4  # Adam's
WEIGHT_DECAY = 1e-4  # L2, inside Adam
BETAS = (0.9, 0.99)  # Adam's
SALIENCY_WEIGHT = 0.3  # of the saliency loss
LEVEL = 0.65  # min-maxed cross-attention at which the map is 0.5
SOFTNESS = 0.15  # width of the sigmoid about that level

_TINY = 1e-6


class CrossAttention(nn.Module):
    """Mean affinity of every patch with the patches of the group's other images.

    Parameters
    ----------
    dim : int
        Token width C.
    seed : int
        Of the weights, which start as torch's linear layers do.
    """

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "scosparc", "init"))
            self.residual, self.query, self.key = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, tokens_NPC: Tensor) -> Tensor:
        """Compute the maps: float32, (N, P), in [0, 1].

        The mean over all keys of the others is one product with their sum, so that no matrix of patches by patches is
        made. Min-maxed per image, then a sigmoid about `LEVEL`; a map that is constant becomes zero. An image by
        itself is compared with itself.
        """
        residual_NPC = self.compute_residual(tokens_NPC)
        return self.compute_maps(residual_NPC, mean_of_others(self.key(residual_NPC).mean(1)))

    def compute_residual(self, tokens_NPC: Tensor) -> Tensor:
        """Tokens plus their linear image, as the keys and queries see them."""
        return tokens_NPC + cast(Tensor, self.residual(tokens_NPC))

    def compute_maps(self, residual_NPC: Tensor, others_NC: Tensor) -> Tensor:
        """Maps of images, given the mean key of the others for each; see `forward`."""
        affinity_NP = (self.query(residual_NPC) @ others_NC[..., None])[..., 0] / math.sqrt(others_NC.shape[1])
        low_N1, high_N1 = affinity_NP.amin(1, keepdim=True), affinity_NP.amax(1, keepdim=True)
        span_N1 = high_N1 - low_N1
        is_flat_N1 = span_N1 <= _TINY * torch.maximum(low_N1.abs(), high_N1.abs())
        share_NP = (affinity_NP - low_N1) / span_N1.masked_fill(is_flat_N1, 1.0)
        maps_NP = torch.sigmoid((share_NP - LEVEL) / SOFTNESS)
        return maps_NP.masked_fill(is_flat_N1, 0.0)


def mean_of_others(keys_NC: Tensor) -> Tensor:
    """Mean over all rows but its own, for each row; a single row stands for itself.

    Examples
    --------
    >>> mean_of_others(torch.tensor([[0.0], [2.0], [4.0]])).ravel().tolist()
    [3.0, 2.0, 1.0]
    """
    count = len(keys_NC)
    return (keys_NC.sum(0, keepdim=True) - keys_NC) / (count - 1) if count > 1 else keys_NC


def correspondence_loss(maps_NP: Tensor, tokens_NPC: Tensor) -> Tensor:
    """Ask that the foregrounds of a group be alike, and each unlike its own background: scalar, in (0, 1).

    Mean over pairs i < j of d+ / (d+ + d-), with d+ = exp(1 - cos(f_i, f_j)) and
    d- = exp(1 - cos(f_i, b_i) - cos(f_j, b_j)), which is the logistic function of
    cos(f_i, b_i) + cos(f_j, b_j) - cos(f_i, f_j). f and b are the means of the tokens weighted by the map and by its
    complement.

    Parameters
    ----------
    maps_NP : Tensor, (N, P), in [0, 1]
    tokens_NPC : Tensor, (N, P, C)
        Two images at least.

    Examples
    --------
    Equal foregrounds at a right angle to the backgrounds: logistic(0 + 0 - 1).

    >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).repeat(2, 1, 1)
    >>> round(correspondence_loss(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), tokens).item(), 4)
    0.2689
    """
    front_NC = (maps_NP[..., None] * tokens_NPC).mean(1)
    back_NC = ((1.0 - maps_NP)[..., None] * tokens_NPC).mean(1)
    own_N = nn.functional.cosine_similarity(front_NC, back_NC, dim=1)
    unit_NC = nn.functional.normalize(front_NC, dim=1)
    between_NN = unit_NC @ unit_NC.T
    rows, columns = torch.triu_indices(len(maps_NP), len(maps_NP), 1)
    return torch.sigmoid(own_N[rows] + own_N[columns] - between_NN[rows, columns]).mean()


def saliency_loss(maps_NP: Tensor, saliency_NP: Tensor) -> Tensor:
    """Ask that the map lie where the attention is: 1 - mean(map * attention), scalar.

    Examples
    --------
    >>> saliency_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 1.0]])).item()
    0.75
    """
    return 1.0 - (maps_NP * saliency_NP).mean()


def train_scosparc(
    features: Sequence[GroupFeatures],
    seed: int,
    device: torch.device,
    progress: ProgressFn = ignore_progress,
) -> CrossAttention:
    """Train on a collection: one group a step, all losses without labels.

    Parameters
    ----------
    features : sequence of GroupFeatures
        At least one. Groups of one image have no pair to compare and are passed over.
    seed : int
    device : torch.device
    progress : callable
        After every step.

    Returns
    -------
    CrossAttention
        In eval mode; as it started where no group has two images. Of several starts the one whose last epoch had the
        lowest mean loss: with tokens whose mean is zero, about every other start ends on the background, at a higher
        loss.
    """
    sizes = [len(one.group.images) for one in features]
    usable = [index for index, size in enumerate(sizes) if size > 1]
    epochs = max(EPOCHS, math.ceil(MIN_STEPS / max(1, len(usable))))
    total = RESTARTS * epochs * len(usable)
    best: tuple[float, CrossAttention] | None = None
    for start in range(RESTARTS):
        start_seed = derive_seed(seed, "scosparc", start)
        model = CrossAttention(features[0].first.tokens_NPD.shape[2], start_seed).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS)
        loss = math.inf
        for epoch in range(epochs if usable else 0):
            generator, losses = numpy_generator(start_seed, "scosparc", epoch), []
            for index in generator.permutation(usable).tolist():
                chosen = np.sort(generator.permutation(sizes[index])[:BATCH_IMAGES])
                losses.append(_train_step(model, optimizer, features[index], chosen, device))
                progress((start * epochs + epoch) * len(usable) + len(losses), total, "training scosparc")
            loss = math.fsum(losses) / len(losses)
        if best is None or loss < best[0]:
            best = (loss, model)
    assert best is not None, "there is at least one start"
    return best[1].eval()


def _train_step(
    model: CrossAttention,
    optimizer: torch.optim.Optimizer,
    features: GroupFeatures,
    chosen: npt.NDArray[np.int64],
    device: torch.device,
) -> float:
    tokens_NPC = to_device(features.first.tokens_NPD[chosen], device)
    maps_NP = model(tokens_NPC)
    saliency = saliency_loss(maps_NP, to_device(features.saliency_NP[chosen], device))
    loss = correspondence_loss(maps_NP, tokens_NPC) + SALIENCY_WEIGHT * saliency
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.item())


def scosparc_maps(model: CrossAttention, features: GroupFeatures, device: torch.device) -> FloatArray:
    """Compute a group's maps, one image at a time: float32, (N, h, w), in [0, 1]."""
    tokens_NPD, grid_hw = features.first.tokens_NPD, features.first.grid_hw

    def residual(index: int) -> Tensor:
        return model.compute_residual(to_device(tokens_NPD[index : index + 1], device))

    indices = range(len(tokens_NPD))
    with torch.inference_mode():
        others_NC = mean_of_others(torch.cat([model.key(residual(index)).mean(1) for index in indices]))
        maps = [model.compute_maps(residual(index), others_NC[index : index + 1]).cpu().numpy() for index in indices]
    return np.asarray(np.concatenate(maps), np.float32).reshape(-1, *grid_hw)
