"""One round of training, resumed at the step where it was killed.

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
from torch import Tensor, nn

from umscosod.data.files import open_atomic
from umscosod.device import deterministic_kernels, numpy_generator
from umscosod.features.starter_network import StarterNetwork
from umscosod.pretrain.augment import make_views
from umscosod.pretrain.losses import step_loss
from umscosod.pretrain.targets import Targets
from umscosod.types import ByteArray

_POINTS = 16  # of a photograph whose embeddings are compared
_WARM_UP = 0.05  # share of the steps in which the step size rises
_WEIGHT_DECAY = 0.02
_MOST_NORM = 5.0  # of a gradient
_SAVE_EVERY = 50  # steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """How one round trains.

    Attributes
    ----------
    steps : int
    side_px : int
        Of the views; a multiple of 32.
    photos : int
        A step; each gives two views.
    learning_rate : float
        The largest, of AdamW.
    paste : float
        Share of views on which an object of another is pasted.
    contrast : float
        Weight of the embeddings' losses.
    """

    steps: int
    side_px: int = 128
    photos: int = 16
    learning_rate: float = 2e-3
    paste: float = 0.0
    contrast: float = 0.1


def start_network(seed: int) -> StarterNetwork:
    """Build a network with the seed's first parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        network = StarterNetwork()
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def train_round(
    network: StarterNetwork,
    pictures_NSS3: ByteArray,
    targets: Targets,
    plan: Round,
    *,
    seed: int,
    number: int,
    state_file: Path,
    device: torch.device,
    tell: Callable[[int, float], None],
) -> StarterNetwork:
    """Train a network on targets; the average of its steps' parameters comes back.

    Parameters
    ----------
    network : StarterNetwork
        What the round starts from; it is changed.
    pictures_NSS3 : ndarray, uint8
    targets : Targets
    plan : Round
    seed, number : int
        Of the run, and of the round in it: they decide all chance.
    state_file : Path
        Where a killed round goes on from.
    device : torch.device
    tell : callable
        Gets the number of steps done and the last loss.
    """
    average = StarterNetwork()
    for one in (network, average):
        one.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    average.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=_WEIGHT_DECAY)
    done = _resume(state_file, number, network, average, optimiser)
    usable_N = np.flatnonzero(targets.weights_N > 0)
    per_epoch = max(1, len(usable_N) // plan.photos)
    with deterministic_kernels(device):
        for step in range(done, plan.steps):
            epoch, place = divmod(step, per_epoch)
            order = numpy_generator(seed, "pretrain", number, "epoch", epoch).permutation(usable_N)
            chosen = np.sort(order[place * plan.photos : (place + 1) * plan.photos])
            generator = numpy_generator(seed, "pretrain", number, "step", step)
            views = make_views(
                torch.from_numpy(pictures_NSS3[chosen]).to(device),
                torch.from_numpy(targets.maps_NTT[chosen]).to(device),
                torch.from_numpy(targets.weights_N[chosen]).to(device),
                generator,
                side_px=plan.side_px,
                points=_POINTS,
                paste=plan.paste,
            )
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate * _rate(step, plan.steps)
            loss = step_loss(network(views.pictures_V3SS), views, contrast=plan.contrast)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), _MOST_NORM)
            optimiser.step()
            _follow(average, network, step)
            if (step + 1) % _SAVE_EVERY == 0 or step + 1 == plan.steps:
                _save(state_file, number, step + 1, network, average, optimiser)
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


def _save(
    file: Path, number: int, done: int, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    state = {
        "round": number,
        "step": done,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    with open_atomic(file) as stream:
        torch.save(state, stream)


def _resume(file: Path, number: int, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    if not file.is_file():
        return 0
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    if state["round"] != number:
        return 0
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


@torch.no_grad()
def predict(network: StarterNetwork, pictures_NSS3: Tensor) -> Tensor:
    """Maps of square pictures, each the mean over the picture and its mirror image: float32, (N, S / 4, S / 4)."""
    inputs = (pictures_NSS3.permute(0, 3, 1, 2).float() / 255.0).contiguous(memory_format=torch.channels_last)
    straight: Tensor = network(inputs).logits_Nhw.sigmoid()
    mirrored: Tensor = network(inputs.flip(3)).logits_Nhw.sigmoid().flip(2)
    return 0.5 * (straight + mirrored)
