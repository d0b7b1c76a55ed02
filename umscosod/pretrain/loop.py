"""The training of a starter network, resumed at the step where it was killed.

Shape suffixes: ``N`` photographs, ``S`` side in pixels, ``T`` side of a target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from umscosod.data.files import open_atomic
from umscosod.device import derive_seed, deterministic_kernels, numpy_generator
from umscosod.errors import DataError
from umscosod.features.starter_network import StarterNetwork
from umscosod.network.losses import compute_loss
from umscosod.pretrain.augment import make_views
from umscosod.pretrain.targets import Targets
from umscosod.types import ByteArray

_WARM_UP = 0.05  # share of the steps in which the step size rises
_WEIGHT_DECAY = 0.02
_MOST_NORM = 5.0  # of a gradient
_SAVE_EVERY = 50  # steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How starter weights are made.

    Attributes
    ----------
    labelled : int
        Photographs that get a target; fewer where there are not so many.
    steps : int
    side_px : int
        Of the views; a multiple of 32.
    photos : int
        A step; each gives two views.
    learning_rate : float
        The largest, of AdamW.
    paste : float
        Share of views on which an object of another is pasted.
    """

    labelled: int = 3600
    steps: int = 2000
    side_px: int = 96
    photos: int = 16
    learning_rate: float = 2e-3
    paste: float = 0.25


def start_network(seed: int) -> StarterNetwork:
    """Build a network with the seed's first parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        network = StarterNetwork()
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def train_starter(
    pictures_NSS3: ByteArray,
    targets: Targets,
    recipe: Recipe,
    *,
    seed: int,
    state_file: Path,
    device: torch.device,
    tell: Callable[[int, float], None],
) -> StarterNetwork:
    """Train a network on targets; the average of its steps' parameters comes back.

    Parameters
    ----------
    pictures_NSS3 : ndarray, uint8
    targets : Targets
        Of the first photographs; the others are kept back.
    recipe : Recipe
    seed : int
        It decides all chance.
    state_file : Path
        Where a killed run goes on from.
    device : torch.device
    tell : callable
        Gets the number of steps done and the last loss.

    Raises
    ------
    DataError
        No photograph has a mask that can be learnt.
    """
    network, average = start_network(derive_seed(seed, "pretrain")), StarterNetwork()
    for one in (network, average):
        one.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    average.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=_WEIGHT_DECAY)
    done = _resume(state_file, network, average, optimiser)
    usable_N = np.flatnonzero(targets.weights_N > 0)
    if not len(usable_N):
        raise DataError("no object stands out in any of the photographs: there is nothing to learn; give other ones")
    per_epoch = max(1, len(usable_N) // recipe.photos)
    with deterministic_kernels(device):
        for step in range(done, recipe.steps):
            epoch, place = divmod(step, per_epoch)
            order = numpy_generator(seed, "pretrain", "epoch", epoch).permutation(usable_N)
            chosen = np.sort(order[place * recipe.photos : (place + 1) * recipe.photos])
            views = make_views(
                torch.from_numpy(pictures_NSS3[chosen]).to(device),
                torch.from_numpy(targets.masks_NTT[chosen]).to(device),
                torch.from_numpy(targets.weights_N[chosen]).to(device),
                numpy_generator(seed, "pretrain", "step", step),
                side_px=recipe.side_px,
                paste=recipe.paste,
            )
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * _rate(step, recipe.steps)
            logits_V1tt = network(views.pictures_V3SS)[:, None]
            loss = compute_loss((logits_V1tt,), views.targets_Vtt, views.weights_V).total
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), _MOST_NORM)
            optimiser.step()
            _follow(average, network, step)
            if (step + 1) % _SAVE_EVERY == 0 or step + 1 == recipe.steps:
                _save(state_file, step + 1, network, average, optimiser)
                tell(step + 1, float(loss.detach()))
    return average.eval()


def _rate(step: int, steps: int) -> float:
    """Share of the largest step size: rises in a line, falls as a cosine to a hundredth."""
    rising = max(1, round(_WARM_UP * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@torch.no_grad()
def _follow(average: StarterNetwork, network: StarterNetwork, step: int) -> None:
    """Move the average a little towards the network; early steps are forgotten soon."""
    keep = min(0.995, (1.0 + step) / (10.0 + step))
    ours, theirs = average.state_dict(), network.state_dict()
    for name, tensor in ours.items():
        if tensor.is_floating_point():
            tensor.lerp_(theirs[name], 1.0 - keep)
        else:
            tensor.copy_(theirs[name])


def _save(file: Path, done: int, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    state = {
        "step": done,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    with open_atomic(file) as stream:
        torch.save(state, stream)


def _resume(file: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    if not file.is_file():
        return 0
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
