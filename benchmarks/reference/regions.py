"""The merging of patches as published: a table of all similarities, of which each step looks for the greatest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from umscosod.types import FloatArray

_QUANTA_PER_UNIT = 2.0**36  # so fine are similarities compared in the library: ties are the same


def merge_patches(
    keys_PK: FloatArray, grid_hw: tuple[int, int], thresholds: Sequence[float]
) -> list[npt.NDArray[np.int64]]:
    """As `umscosod.pseudo.regions.merge_patches`; similarities of regions that do not touch are minus infinity."""
    sums_PK = np.asarray(keys_PK, np.float64).copy()
    touches_PP = _touching(grid_hw)
    owner_P = np.arange(len(sums_PK))
    units_PK = _unit(sums_PK)
    table_PP = np.where(np.triu(touches_PP), _quantise(units_PK @ units_PK.T), -np.inf)
    partitions = []
    for threshold in thresholds:
        limit = np.rint(threshold * _QUANTA_PER_UNIT) - 1.0
        while True:
            first, second = np.unravel_index(table_PP.argmax(), table_PP.shape)  # of equal ones the first
            if table_PP[first, second] < limit:
                break
            owner_P[owner_P == second] = first
            sums_PK[first] += sums_PK[second]
            units_PK[first] = _unit(sums_PK[first])
            touches_PP[first] |= touches_PP[second]
            touches_PP[:, first] |= touches_PP[:, second]
            touches_PP[second], touches_PP[:, second] = False, False
            touches_PP[first, first] = False
            table_PP[second], table_PP[:, second] = -np.inf, -np.inf
            row_P = np.where(touches_PP[first], _quantise(units_PK @ units_PK[first]), -np.inf)
            table_PP[first, first:] = row_P[first:]
            table_PP[:first, first] = row_P[:first]
        partitions.append(np.unique(owner_P, return_inverse=True)[1].reshape(grid_hw))
    return partitions


def _touching(grid_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """4-neighbours of a grid, both ways: bool, (P, P)."""
    rows_P, columns_P = np.divmod(np.arange(grid_hw[0] * grid_hw[1]), grid_hw[1])
    apart_PP = np.abs(rows_P[:, None] - rows_P) + np.abs(columns_P[:, None] - columns_P)
    return np.asarray(apart_PP == 1)


def _unit(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def _quantise(cosines: FloatArray) -> FloatArray:
    return np.rint(cosines * _QUANTA_PER_UNIT)
