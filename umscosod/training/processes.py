"""Several processes that train one network together: who is first, how they wait, how gradients become one.

A launcher such as ``torchrun`` starts them, or has joined them already, as Ray Train does. A step has the same groups
however many processes share it, and each process takes the same step with the sum of all gradients. So the number of
processes changes nothing but the order of a sum.

The sum is one ``all_reduce`` of one vector a step, not DistributedDataParallel: that must be told of parameters without
a gradient, of processes that a short last step leaves without a group and of steps that gather several groups, and it
sums in an order of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from umscosod.config import PipelineConfig
from umscosod.device import launched_as, resolve_device
from umscosod.errors import ConfigError, UmscosodError, one_line

T = TypeVar("T")

_PATIENCE = timedelta(days=7)
"""Longest wait: the first process may encode a large collection meanwhile. One that ends is noticed at once, one that
raises and lives on is not: its caller must end it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """The processes of one training, as one of them sees them.

    Attributes
    ----------
    rank : int
        Own number; 0 is the first, which alone writes.
    size : int
        How many there are.
    device : str
        Own device; empty: what the settings say.
    waiting, summing : ProcessGroup or None
        What messages on the CPU go through, and what gradients do; None: torch's default.
    """

    rank: int = 0
    size: int = 1
    device: str = ""
    waiting: dist.ProcessGroup | None = None
    summing: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def settle(self, config: PipelineConfig) -> PipelineConfig:
        """Put in what depends on the number of processes: ``train.groups_per_step`` = 0, and the device.

        Raises
        ------
        ConfigError
            The groups of a step cannot be shared evenly, or there is no cache to share.
        """
        wanted = config.train.groups_per_step or self.size
        if wanted % self.size:
            raise ConfigError(
                f"train.groups_per_step is {wanted}, which {self.size} processes cannot share evenly; give a multiple "
                f"of {self.size}, or start another number of processes"
            )
        if self.size > 1 and not config.features.use_cache:
            raise ConfigError(
                f"features.use_cache is off, but {self.size} processes share the features by the cache; leave it on"
            )
        config = replace(config, train=replace(config.train, groups_per_step=wanted))
        return replace(config, device=self.device) if self.device else config

    def share(self, things: Sequence[T]) -> Sequence[T]:
        """Own part of the things of a step: every `size`-th, so that the first process always has one."""
        return things[self.rank :: self.size]

    def wait(self) -> None:
        """Wait until every process is here.

        Raises
        ------
        UmscosodError
            One has ended.
        """
        if self.size > 1:
            with self._listening():
                dist.barrier(group=self.waiting)

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """Have the first process do the block before the others begin it."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def check_same(self, what: str, number: int) -> None:
        """Refuse to go on where a number, below 2^63, is not the same in every process.

        Raises
        ------
        UmscosodError
        """
        if self.size == 1:
            return
        bounds = torch.tensor([number, -number])
        with self._listening():
            dist.all_reduce(bounds, dist.ReduceOp.MAX, group=self.waiting)
        if bounds[0] != -bounds[1]:
            raise UmscosodError(
                f"the {self.size} processes do not have the same {what}; images, pseudo-labels and output folder must "
                "be the same files for all of them: check the folders they share"
            )

    def sum_gradients(self, parameters: Sequence[Tensor], losses: Tensor) -> Tensor:
        """Put into every gradient its sum over the processes; give that of `losses`.

        A parameter without a gradient in any process has none afterwards either, as in one process.

        Parameters
        ----------
        parameters : sequence of Tensor
        losses : Tensor, one dimension

        Raises
        ------
        UmscosodError
            A process has ended.
        """
        if self.size == 1:
            return losses
        held = torch.tensor([float(one.grad is not None) for one in parameters], device=losses.device)
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        parts = [*gradients, held, losses]
        together = torch.cat([part.reshape(-1) for part in parts])
        with self._listening():
            dist.all_reduce(together, group=self.summing)
        *sums, held, losses = torch.split(together, [part.numel() for part in parts])
        for one, gradient, count in zip(parameters, sums, held.tolist(), strict=True):
            one.grad = gradient.view_as(one) if count else None
        return losses

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # what torch raises where a connection is closed; its text is one for developers
            raise UmscosodError(
                f"process {self.rank} of {self.size} has lost the others; the one that ended first says why, --debug "
                "what torch met; the same command resumes from the last checkpoint"
            ) from error


ALONE = Processes()


@contextlib.contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the processes that were started for one training; without a launcher this process is alone.

    At its end the block waits for all of them, so that none leaves the first alone with its last work.

    Parameters
    ----------
    device : str
        As the setting; ``auto`` and ``cuda`` give each process of a machine a GPU of its own.

    Yields
    ------
    Processes

    Raises
    ------
    ConfigError
        The launcher's environment or the device does not fit several processes.
    """
    is_joined = dist.is_available() and dist.is_initialized()  # Ray Train does so
    size = dist.get_world_size() if is_joined else launched_as()[1]
    if size == 1:
        yield ALONE
        return
    own = _choose_device(device, size)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    if not is_joined:
        _start(own, size)
    # A group of its own: gloo waits on the CPU, where NCCL keeps a GPU busy and gives up after ten minutes.
    waiting = dist.new_group(backend="gloo", timeout=_PATIENCE)
    assert isinstance(waiting, dist.ProcessGroup), "every process is a member"
    summing = waiting if own.type == "cpu" else None
    processes = Processes(rank=dist.get_rank(), size=size, device=str(own), waiting=waiting, summing=summing)
    yield processes
    processes.wait()
    if not is_joined:  # after an error it is left: its end would wait for processes that may be gone
        dist.destroy_process_group()


def _choose_device(name: str, size: int) -> torch.device:
    device = resolve_device(name)
    if device.type == "cpu":
        return device
    if str(device) != "cuda":  # one GPU by its number, or another kind
        raise ConfigError(f"device {name!r} cannot be shared by {size} processes; use --device auto, cuda or cpu")
    return resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")


def _start(device: torch.device, size: int) -> None:
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but the processes cannot be joined ({one_line(str(error))}); start them with "
            "torchrun, or unset WORLD_SIZE to train in one process"
        ) from error
