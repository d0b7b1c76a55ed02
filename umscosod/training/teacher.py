"""The teacher: an exponential moving average of the network that is trained."""

from __future__ import annotations

import copy

import torch

from umscosod.network.model import UmsNetwork


class Teacher:
    """Follows a network; what training hands back and predicts with.

    A network learns what its labels have in common first and their faults later, one group a step; the average over
    steps holds the former and evens out the latter.

    Parameters
    ----------
    student : UmsNetwork
        Left unchanged.
    decay : float
        Share of the average that a step keeps, in [0, 1), from (1 + t) / (10 + t) upwards in step t = 1, 2, ...; 0
        makes the student its own teacher.

    References
    ----------
    Tarvainen and Valpola, "Mean teachers are better role models", NIPS 2017, arXiv 1703.01780.
    """

    def __init__(self, student: UmsNetwork, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(student) if decay > 0.0 else student

    @torch.no_grad()
    def follow(self, student: UmsNetwork, step: int) -> None:
        """Take step number `step`, from 1, of the student in."""
        if self.model is student:
            return
        keep = min(self.decay, (1 + step) / (10 + step))
        for average, weights in zip(self.model.parameters(), student.parameters(), strict=True):
            average.mul_(keep).add_(weights, alpha=1.0 - keep)
        for own, buffer in zip(self.model.buffers(), student.buffers(), strict=True):
            own.copy_(buffer)
