"""Random number generators as functions of (seed, purpose): no global state, so order of work never matters."""

from __future__ import annotations

import hashlib

import numpy as np

from umscosod.types import NAMES


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Mix a run's seed with the names of what it is for.

    Parameters
    ----------
    seed : int
        The run's seed.
    *purpose : str or int
        What the numbers are for, for example ``("train", "epoch", 3)``.

    Returns
    -------
    int
        In ``[0, 2**63)``, equal on every platform.

    Examples
    --------
    >>> derive_seed(1, "train", 0) == derive_seed(1, "train", 0)
    True
    >>> derive_seed(1, "train", 0) == derive_seed(1, "train", 1)
    False
    """
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", NAMES)).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Build a NumPy generator for one purpose of a run (see `derive_seed`)."""
    return np.random.default_rng(derive_seed(seed, *purpose))
