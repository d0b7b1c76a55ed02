"""Which group and which of its images a training step sees: a pure function of (seed, step)."""

from __future__ import annotations

from typing import NamedTuple

from umscosod.seed import numpy_generator


class Step(NamedTuple):
    """Place of a step in a run.

    Attributes
    ----------
    epoch : int
        From 0.
    group : int
        Index of the group.
    """

    epoch: int
    group: int


def shuffle_groups(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """Order of the groups in an epoch: each once, another order every epoch.

    Parameters
    ----------
    seed, epoch : int
    count : int
        Number of groups.

    Examples
    --------
    >>> sorted(shuffle_groups(0, 0, 4)), shuffle_groups(0, 0, 4) == shuffle_groups(0, 0, 4)
    ([0, 1, 2, 3], True)
    """
    return tuple(int(index) for index in numpy_generator(seed, "train", "groups", epoch).permutation(count))


def locate_step(seed: int, step: int, count: int) -> Step:
    """Find the epoch and group of step number `step` (from 0) in a run over `count` groups.

    A run killed at any step resumes from its number alone, also in the middle of an epoch.

    Examples
    --------
    >>> [locate_step(0, step, 3).epoch for step in range(5)]
    [0, 0, 0, 1, 1]
    """
    epoch, place = divmod(step, count)
    return Step(epoch, shuffle_groups(seed, epoch, count)[place])


def draw_images(seed: int, at: Step, available: tuple[int, ...], batch_images: int) -> tuple[int, ...]:
    """Draw min(batch_images, len(available)) images of a group without replacement, in ascending order.

    Parameters
    ----------
    seed : int
    at : Step
    available : tuple of int
        Indices one may draw from.
    batch_images : int

    Examples
    --------
    >>> draw_images(0, Step(0, 0), (2, 5, 7), 24)
    (2, 5, 7)
    """
    if len(available) <= batch_images:
        return tuple(sorted(available))
    rng = numpy_generator(seed, "train", "images", at.epoch, at.group)
    chosen = rng.choice(len(available), size=batch_images, replace=False)
    return tuple(sorted(available[index] for index in chosen))


def toss_mirror(seed: int, at: Step) -> bool:
    """Whether a step sees its group mirrored: with chance one half, a function of (seed, step).

    Examples
    --------
    >>> [toss_mirror(0, Step(epoch, 0)) for epoch in range(6)]
    [True, False, False, False, False, False]
    """
    return bool(numpy_generator(seed, "train", "mirror", at.epoch, at.group).integers(2))
