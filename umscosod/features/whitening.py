"""Whitening of raw descriptors by the collection's own statistics: no annotation, one streaming pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from umscosod.errors import CheckpointError, shorten
from umscosod.types import FloatArray

_LARGEST = 1e18  # the product of two such numbers is still one of float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Whitening:
    """A symmetric (ZCA) whitening: channels keep their meaning from one collection to the next.

    Attributes
    ----------
    mean_D : ndarray, float64, (D,)
    matrix_DD : ndarray, float64, (D, D)
    """

    mean_D: FloatArray
    matrix_DD: FloatArray

    def apply(self, tokens_PD: FloatArray) -> FloatArray:
        """Centre and whiten tokens; any leading shape, float32 out."""
        centred_PD = tokens_PD.astype(np.float32) - self.mean_D.astype(np.float32)
        return np.asarray(centred_PD @ self.matrix_DD.astype(np.float32))

    def to_json(self) -> dict[str, object]:
        """Give plain lists, for a checkpoint's metadata."""
        return {"mean": self.mean_D.tolist(), "matrix": self.matrix_DD.tolist()}

    @classmethod
    def from_json(cls, data: Any) -> Whitening:
        """Read what `to_json` wrote, or refuse what else a file may hold.

        Raises
        ------
        CheckpointError
            The arrays are missing, hold what is no finite number, or their shapes disagree.
        """
        if not isinstance(data, dict):
            raise CheckpointError(f"whitening in the checkpoint is damaged: it holds {shorten(data)}; train again")
        try:
            mean_D, matrix_DD = (_as_numbers(data[name]) for name in ("mean", "matrix"))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(f"whitening in the checkpoint is damaged: {reason}; train again") from None
        if mean_D.ndim != 1 or matrix_DD.shape != (len(mean_D), len(mean_D)):
            raise CheckpointError(
                f"whitening in the checkpoint is damaged: mean {mean_D.shape}, matrix {matrix_DD.shape}; train again"
            )
        if not max(np.abs(mean_D).max(initial=0), np.abs(matrix_DD).max(initial=0)) <= _LARGEST:  # NaN is not
            raise CheckpointError("whitening in the checkpoint is damaged: it holds NaN or infinity; train again")
        if not ((np.diagonal(matrix_DD) > 0).all() and np.allclose(matrix_DD, matrix_DD.T)):
            raise CheckpointError("whitening in the checkpoint is damaged: its matrix is no whitening; train again")
        return cls(mean_D=mean_D, matrix_DD=matrix_DD)


def _as_numbers(values: object) -> FloatArray:
    """Turn nested lists of numbers into float64; numpy would read text and truth values as numbers too."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise ValueError("it holds what is no number")
    return array.astype(np.float64)


def fit_whitening(token_arrays: Iterable[FloatArray], shrinkage: float) -> Whitening:
    """Fit a whitening to a stream of token arrays.

    Parameters
    ----------
    token_arrays : iterable of ndarray, (P, D)
        One array per image; P may differ. At least one.
    shrinkage : float, > 0
        Added to every variance, in mean variances: channels that never vary must not explode.

    Returns
    -------
    Whitening

    Examples
    --------
    >>> import numpy as np
    >>> fitted = fit_whitening([np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, -1.0], [0.0, 1.0]])], shrinkage=1e-3)
    >>> fitted.mean_D.tolist()
    [0.0, 0.0]
    >>> np.round(fitted.matrix_DD, 2).tolist()  # variances 2 and 0.5
    [[0.71, 0.0], [0.0, 1.41]]
    """
    count = 0
    total: FloatArray = np.zeros(())
    squares: FloatArray = np.zeros(())
    for tokens in token_arrays:
        wide = tokens.astype(np.float64)
        count += len(wide)
        total = total + wide.sum(0)
        squares = squares + wide.T @ wide
    mean_D = total / count
    covariance_DD = squares / count - np.outer(mean_D, mean_D)
    values, vectors = np.linalg.eigh(covariance_DD)
    values = np.maximum(values, 0.0)
    floor = shrinkage * values.mean() if values.mean() > 0 else 1.0
    matrix_DD = (vectors / np.sqrt(values + floor)) @ vectors.T
    return Whitening(mean_D=mean_D, matrix_DD=matrix_DD)
