"""Gaussian filtering of points in time linear in their number: the permutohedral lattice, in torch.

Suffixes: ``P`` points, ``D`` features, ``V`` the D + 1 vertices of the simplex about a point, ``M`` vertices in use.
"""

from __future__ import annotations

import math

import torch

_CHUNK = 16  # terms of a sum that are added in one go
_HASH_SEED = 0


class Lattice:
    """The kernel D^-1/2 K D^-1/2, K a Gaussian of unit deviation over all pairs of points, D its row sums; near-exact.

    Parameters
    ----------
    features_PD : Tensor, float32, (P, D)
        Places of the points, in deviations of the Gaussian.

    Notes
    -----
    Points are splatted onto the vertices of the simplices that they lie in, vertices are blurred along D + 1
    directions, and points are read back. Sums are taken in a fixed order: equal bits in each run on one device.

    References
    ----------
    Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010.
    """

    def __init__(self, features_PD: torch.Tensor) -> None:
        dims = features_PD.shape[1]
        rounded_PV, rank_PV, self._share_PV = _enclose(_elevate(features_PD))
        factors_V, steps_V = _hash_parts(dims, features_PD.device)
        # of remainder m: the coordinate of rank k is m, or m - (D + 1) where k > D - m
        corners = [rounded_PV + m - (dims + 1) * (rank_PV > dims - m) for m in range(dims + 1)]
        codes_PV = torch.stack([(corner_PV * factors_V).sum(dim=1) for corner_PV in corners], dim=1)
        vertices_M, self._vertex_PV, counts_M = torch.unique(codes_PV, return_inverse=True, return_counts=True)
        self._neighbours = [
            (_find(vertices_M, vertices_M + step), _find(vertices_M, vertices_M - step)) for step in steps_V
        ]
        order = torch.argsort(self._vertex_PV.flatten(), stable=True)
        self._point_of, self._share_of = order // (dims + 1), self._share_PV.flatten()[order]
        self._sums = _plan_sums(counts_M)
        self._norm_P = self._filter(torch.ones_like(self._share_PV[:, 0])).rsqrt()

    def filter(self, values_P: torch.Tensor) -> torch.Tensor:
        """Weighted sums over all points, the point itself included, float32, (P,)."""
        return self._norm_P * self._filter(self._norm_P * values_P)

    def _filter(self, values_P: torch.Tensor) -> torch.Tensor:
        """Apply K, but for a constant factor."""
        zero = values_P.new_zeros(1)
        terms = self._share_of * values_P[self._point_of]
        for table in self._sums:
            terms = torch.cat([terms, zero])[table].sum(dim=1)
        for one_M, other_M in self._neighbours:
            padded = torch.cat([terms, zero])
            terms = terms + 0.5 * (padded[one_M] + padded[other_M])
        return (self._share_PV * terms[self._vertex_PV]).sum(dim=1)


def _elevate(features_PD: torch.Tensor) -> torch.Tensor:
    """Place points on the plane of D + 1 coordinates that sum to 0, at the scale at which the blur has deviation 1.

    Without a matrix product, which a caller's TF32 would round.
    """
    dims = features_PD.shape[1]
    basis_DV = torch.zeros(dims, dims + 1, dtype=torch.float64)
    for axis in range(dims):
        basis_DV[axis, : axis + 1] = 1.0
        basis_DV[axis, axis + 1] = -(axis + 1.0)
        basis_DV[axis] *= math.sqrt(2.0 / 3.0) * (dims + 1) / math.sqrt((axis + 1) * (axis + 2))
    basis_DV = basis_DV.to(features_PD)
    return torch.stack([(features_PD * basis_DV[:, at]).sum(dim=1) for at in range(dims + 1)], dim=1)


def _enclose(elevated_PV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Corner of remainder 0, ranks of the coordinates relative to it, and shares of the D + 1 corners."""
    size = elevated_PV.shape[1]
    corner_PV = torch.round(elevated_PV / size)
    rest_PV = elevated_PV - size * corner_PV
    order_PV = torch.argsort(rest_PV, dim=1, descending=True, stable=True)
    rank_PV = torch.argsort(order_PV, dim=1) + corner_PV.sum(dim=1, keepdim=True).long()
    shift_PV = (rank_PV < 0).long() - (rank_PV >= size).long()  # the rounded point is off the plane: bring it back
    rank_PV, corner_PV = rank_PV + size * shift_PV, corner_PV + shift_PV
    rest_PV = (elevated_PV / size - corner_PV).gather(1, torch.argsort(rank_PV, dim=1))
    falls_PV = (rest_PV[:, :-1] - rest_PV[:, 1:]).flip(1)
    share_PV = torch.cat([1.0 + rest_PV[:, -1:] - rest_PV[:, :1], falls_PV], dim=1)
    return (size * corner_PV).long(), rank_PV, share_PV


def _hash_parts(dims: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors whose scalar product with a vertex is its code, modulo 2^64, and the codes of a step each way."""
    generator = torch.Generator().manual_seed(_HASH_SEED)
    factors_V = torch.randint(-(2**62), 2**62, (dims + 1,), generator=generator).to(device)
    return factors_V, (dims + 1) * factors_V - factors_V.sum()


def _find(vertices_M: torch.Tensor, wanted_M: torch.Tensor) -> torch.Tensor:
    """Places of codes among sorted ones; one past the last for those that are not there."""
    at_M = torch.searchsorted(vertices_M, wanted_M).clamp_(max=len(vertices_M) - 1)
    return torch.where(vertices_M[at_M] == wanted_M, at_M, len(vertices_M))


def _plan_sums(counts: torch.Tensor) -> list[torch.Tensor]:
    """Tables of places, (rows, `_CHUNK`), by which runs of terms are added in turn; a place past the last is a 0."""
    tables: list[torch.Tensor] = []
    while not tables or int(counts.max()) > 1:
        rows = (counts + _CHUNK - 1) // _CHUNK
        run = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), rows)
        within = torch.arange(len(run), device=counts.device) - (rows.cumsum(0) - rows)[run]
        start = (counts.cumsum(0) - counts)[run] + _CHUNK * within
        left = counts[run] - _CHUNK * within
        offset = torch.arange(_CHUNK, device=counts.device)
        tables.append(torch.where(offset < left[:, None], start[:, None] + offset, int(counts.sum())))
        counts = rows
    return tables
