"""What tokens share by place alone: found in pictures of noise, which have nothing else in common, and taken out.

Cf. arXiv 2603.28480. Noise, and not the mean of a collection: an image's tokens must not depend on the other images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from umscosod.types import ByteArray

_PICTURES = 8
_DIRECTIONS = 4  # raise the version in `umscosod.features.specs.vit_id` with these numbers


def place_directions(encode: Callable[[Sequence[ByteArray]], torch.Tensor], size_px: int) -> torch.Tensor:
    """Find the directions in which tokens differ by their place.

    Parameters
    ----------
    encode : callable
        Gives the tokens of uint8 RGB pictures, (N, P, D); called for one picture at a time.
    size_px : int
        Side of the pictures.

    Returns
    -------
    Tensor, float32, (D, R)
        Orthonormal: the leading principal directions of the mean token at each place of seeded noise pictures. They
        are found on the CPU in float64.
    """
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (size_px, size_px, 3), np.uint8) for _ in range(_PICTURES)]
    mean_PD = torch.cat([encode([picture]) for picture in pictures]).to("cpu", torch.float64).mean(0)
    directions_RD: torch.Tensor = torch.linalg.svd(mean_PD - mean_PD.mean(0), full_matrices=False).Vh
    return directions_RD[:_DIRECTIONS].T.float()


def remove_directions(tokens_NPD: torch.Tensor, directions_DR: torch.Tensor) -> torch.Tensor:
    """Project tokens onto what is orthogonal to the directions; float32, (N, P, D)."""
    tokens_NPD = tokens_NPD.float()
    return tokens_NPD - tokens_NPD @ directions_DR @ directions_DR.T
