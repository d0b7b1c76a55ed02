"""The permutohedral lattice: against the exact Gaussian, its shares, its sums in a fixed order."""

from __future__ import annotations

import pytest
import torch

from umscosod.refine.lattice import Lattice, _elevate, _enclose, _plan_sums


def points(count: int, dims: int, spread: float = 3.0) -> torch.Tensor:
    return spread * torch.rand(count, dims, generator=torch.Generator().manual_seed(dims))


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_it_is_near_the_gaussian(dims: int) -> None:
    features_PD = points(600, dims)
    kernel_PP = torch.exp(-0.5 * torch.cdist(features_PD.double(), features_PD.double()).square())
    norm_P = kernel_PP.sum(dim=1).rsqrt()
    values_P = torch.rand(600, generator=torch.Generator().manual_seed(0))
    exact_P = norm_P * (kernel_PP @ (norm_P * values_P.double()))
    found_P = Lattice(features_PD).filter(values_P).double()
    assert (found_P - exact_P).abs().mean() < 0.03 * exact_P.mean()
    assert torch.corrcoef(torch.stack([found_P, exact_P]))[0, 1] > 0.95


def test_far_points_know_nothing_of_each_other() -> None:
    features_PD = torch.cat([points(20, 5), points(20, 5) + 100.0])
    values_P = torch.cat([torch.ones(20), torch.zeros(20)])
    found_P = Lattice(features_PD).filter(values_P)
    assert (found_P[:20] > 0.1).all()
    assert (found_P[20:] == 0.0).all()


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_a_point_is_the_mean_of_its_corners_by_their_shares(dims: int) -> None:
    elevated_PV = _elevate(points(500, dims, 40.0) - 20.0)
    rounded_PV, rank_PV, share_PV = _enclose(elevated_PV)
    assert (share_PV > -1e-4).all()
    torch.testing.assert_close(share_PV.sum(dim=1), torch.ones(500))
    assert (rank_PV.sort(dim=1).values == torch.arange(dims + 1)).all()
    assert (rounded_PV.sum(dim=1) == 0).all()
    corners = [rounded_PV + m - (dims + 1) * (rank_PV > dims - m) for m in range(dims + 1)]
    mean_PV = (torch.stack(corners, dim=2) * share_PV[:, None, :]).sum(dim=2)
    torch.testing.assert_close(mean_PV, elevated_PV, atol=1e-3, rtol=0.0)


def test_sums_of_runs_of_any_length() -> None:
    counts = torch.tensor([1, 16, 17, 3, 5000, 256, 257])
    terms = torch.rand(int(counts.sum()), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([run.sum() for run in terms.split(counts.tolist())])
    for table in _plan_sums(counts):
        terms = torch.cat([terms, terms.new_zeros(1)])[table].sum(dim=1)
    torch.testing.assert_close(terms, expected)
