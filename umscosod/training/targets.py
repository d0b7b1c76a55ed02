"""What a step learns from: the usable images of each group, their targets and weights, and a fingerprint of it all."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from umscosod.errors import DataError
from umscosod.pseudo.manifest import HUMAN_SOURCE
from umscosod.types import NAMES, ImageGroup, PseudoLabel

logger = logging.getLogger(__name__)


def image_weight(label: PseudoLabel | None, label_weights: str = "confidence") -> float:
    """Loss weight of an image: its label's confidence, or 1; 0 without a label.

    A machine-made empty mask weighs 0 too: its IoU loss is a constant, and nothing says that the image is empty. A
    person's empty mask counts (its cross-entropy still teaches).

    Parameters
    ----------
    label : PseudoLabel or None
    label_weights : {"confidence", "equal"}
        equal: every label counts alike, as in eq. 9 and 10, but for weak ones that ``pseudo.weak_weight`` 0 left out.
    """
    if label is None or (label.source != HUMAN_SOURCE and not label.mask_hw.any()):
        return 0.0
    if label_weights == "equal":
        return 0.0 if label.is_weak and label.confidence == 0.0 else 1.0
    return label.confidence


def list_usable(
    group: ImageGroup, labels: Mapping[str, PseudoLabel], label_weights: str = "confidence"
) -> tuple[int, ...]:
    """Indices of the images of a group that have a label of positive weight."""
    weights = (image_weight(labels.get(image.id), label_weights) for image in group.images)
    return tuple(index for index, weight in enumerate(weights) if weight > 0)


def select_groups(
    groups: Sequence[ImageGroup], labels: Mapping[str, PseudoLabel], label_weights: str = "confidence"
) -> dict[int, tuple[int, ...]]:
    """Map the index of each group one can train on to its usable images.

    Raises
    ------
    DataError
        No image of any group has a label of positive weight.
    """
    usable = {index: list_usable(group, labels, label_weights) for index, group in enumerate(groups)}
    kept = {index: images for index, images in usable.items() if images}
    if not kept:
        raise DataError(
            f"none of the {sum(len(group.images) for group in groups)} images in {len(groups)} groups has a "
            "pseudo-label to train on; look at the pseudo-labels: each needs the path of its image and .png"
        )
    dropped = len(groups) - len(kept)
    if dropped:
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


def compute_fingerprint(
    groups: Sequence[ImageGroup], labels: Mapping[str, PseudoLabel], start: nn.Module | None
) -> str:
    """Hash all that training depends on besides the configuration and the backbones.

    Parameters
    ----------
    groups : sequence of ImageGroup
        Order counts: it is part of the seed.
    labels : mapping of image id to PseudoLabel
        Masks and weights.
    start : Module or None
        Network whose weights training starts from.

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
    if start is not None:
        for name, tensor in start.state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
