"""What a training step sees: which groups in which order, and their targets."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from umscosod.config import PipelineConfig
from umscosod.device import numpy_generator
from umscosod.errors import DataError
from umscosod.pseudo.store import HUMAN_SOURCE
from umscosod.types import NAMES, GroupFeatures, ImageGroup, PseudoLabel

logger = logging.getLogger(__name__)


class Visit(NamedTuple):
    """Place of a group in a run.

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


def count_steps(count: int, groups_per_step: int) -> int:
    """Steps of an epoch over `count` groups; the last takes what is left.

    Examples
    --------
    >>> count_steps(5, 1), count_steps(5, 2), count_steps(5, 8)
    (5, 3, 1)
    """
    return -(-count // groups_per_step)


def locate_step(seed: int, step: int, count: int, groups_per_step: int = 1) -> tuple[Visit, ...]:
    """Find what step number `step` (from 0) sees in a run over `count` groups: the next groups of the epoch's order.

    A run killed at any step resumes from its number alone, also in the middle of an epoch. No step reaches into the
    next epoch: each group is seen once an epoch, and the last step of one may be smaller.

    Examples
    --------
    >>> [locate_step(0, step, 3)[0].epoch for step in range(5)]
    [0, 0, 0, 1, 1]
    >>> [len(locate_step(0, step, 3, 2)) for step in range(4)]
    [2, 1, 2, 1]
    """
    epoch, place = divmod(step, count_steps(count, groups_per_step))
    start = place * groups_per_step
    order = shuffle_groups(seed, epoch, count)
    return tuple(Visit(epoch, group) for group in order[start : start + groups_per_step])


def draw_images(seed: int, at: Visit, available: tuple[int, ...], batch_images: int) -> tuple[int, ...]:
    """Draw min(batch_images, len(available)) images of a group without replacement, in ascending order.

    Parameters
    ----------
    seed : int
    at : Visit
    available : tuple of int
        Indices one may draw from.
    batch_images : int

    Examples
    --------
    >>> draw_images(0, Visit(0, 0), (2, 5, 7), 24)
    (2, 5, 7)
    """
    if len(available) <= batch_images:
        return tuple(sorted(available))
    rng = numpy_generator(seed, "train", "images", at.epoch, at.group)
    chosen = rng.choice(len(available), size=batch_images, replace=False)
    return tuple(sorted(available[index] for index in chosen))


def iter_seen(
    features: Sequence[GroupFeatures],
    groups: Sequence[ImageGroup],
    usable: Mapping[int, tuple[int, ...]],
    visits: Sequence[Visit],
    config: PipelineConfig,
) -> Iterator[GroupFeatures]:
    """Load what some visits see, one after the other.

    Parameters
    ----------
    features : sequence of GroupFeatures
    groups : sequence of ImageGroup
        Of the features.
    usable : mapping of int to tuple of int
        See `select_groups`; a visit counts its groups.
    visits : sequence of Visit
    config : PipelineConfig

    Yields
    ------
    GroupFeatures
        Of the images drawn.

    Raises
    ------
    DataError
        Features hold other images than the group.
    """
    order = tuple(usable)
    for visit in visits:
        index = order[visit.group]
        found = features[index]
        if found.group.images != groups[index].images:
            raise DataError(
                f"group {groups[index].name!r}: its features hold other images than the list of groups says"
            )
        yield found.take(draw_images(config.seed, visit, usable[index], config.train.batch_images))


def image_weight(label: PseudoLabel | None, label_weights: str = "confidence") -> float:
    """Loss weight of an image: its label's confidence, or 1; 0 without a label.

    A machine-made empty mask weighs 0 too: its IoU loss is a constant, and nothing says that the image is empty. A
    person's empty mask counts (its cross-entropy still teaches).

    Parameters
    ----------
    label : PseudoLabel or None
    label_weights : {"confidence", "equal"}
        equal: every label counts alike, as in eq. 9 and 10, but for those of no confidence.
    """
    if label is None or (label.source != HUMAN_SOURCE and not label.mask_hw.any()):
        return 0.0
    if label_weights == "equal":
        return 0.0 if label.is_weak and label.confidence == 0.0 else 1.0
    return label.confidence


def select_groups(
    groups: Sequence[ImageGroup], labels: Mapping[str, PseudoLabel], label_weights: str = "confidence"
) -> dict[int, tuple[int, ...]]:
    """Map the index of each group one can train on to its usable images.

    Raises
    ------
    DataError
        No image of any group has a label of positive weight.
    """
    kept: dict[int, tuple[int, ...]] = {}
    for index, group in enumerate(groups):
        weights = [image_weight(labels.get(image.id), label_weights) for image in group.images]
        if usable := tuple(at for at, weight in enumerate(weights) if weight > 0):
            kept[index] = usable
    if not kept:
        raise DataError(
            f"none of the {sum(len(group.images) for group in groups)} images in {len(groups)} groups has a "
            "pseudo-label to train on; look at the pseudo-labels: each needs the path of its image and .png"
        )
    if dropped := len(groups) - len(kept):
        logger.warning("%d of %d groups have no usable pseudo-label and are not trained on", dropped, len(groups))
    return kept


def build_targets(labels: Sequence[PseudoLabel], out_hw: tuple[int, int]) -> Tensor:
    """Stack masks, resized to the output by nearest neighbour; float32 in {0, 1}, ``(N, H, W)``."""
    resized = [
        functional.interpolate(
            torch.from_numpy(np.array(label.mask_hw, dtype=np.float32))[None, None], size=out_hw, mode="nearest-exact"
        )[0, 0]
        for label in labels
    ]
    return torch.stack(resized)


def compute_fingerprint(groups: Sequence[ImageGroup], labels: Mapping[str, PseudoLabel]) -> str:
    """Hash all that training depends on besides the configuration and the backbones.

    Parameters
    ----------
    groups : sequence of ImageGroup
        Order counts: it is part of the seed.
    labels : mapping of image id to PseudoLabel
        Masks and weights.

    Returns
    -------
    str
        64 hexadecimal digits (SHA-256).
    """
    digest = hashlib.sha256()
    for group in groups:
        digest.update(f"group\x1f{group.name}\x1e".encode("utf-8", NAMES))
        for image in group.images:
            label = labels.get(image.id)
            digest.update(f"image\x1f{image.id}\x1f{image_weight(label)!r}\x1e".encode("utf-8", NAMES))
            if label is not None:
                digest.update(f"{label.mask_hw.shape}".encode() + np.packbits(label.mask_hw).tobytes())
    return digest.hexdigest()
