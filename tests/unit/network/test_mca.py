"""MCA gates against the description in spec A4.1, in loops."""

from __future__ import annotations

import statistics

import pytest
import torch

from umscosod.network.fram import Gate, Mca, channel_kernel_size


@pytest.mark.parametrize(("dim", "size"), [(1, 1), (2, 1), (32, 3), (64, 3), (384, 5), (512, 5), (768, 5)])
def test_channel_kernel_size(dim: int, size: int) -> None:
    assert channel_kernel_size(dim) == size


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_gate_by_hand(axis: int) -> None:
    torch.manual_seed(0)
    gate = Gate(axis, 3)
    grid = torch.randn(2, 3, 4, 5)
    got = gate(grid)
    share = torch.sigmoid(gate.mix).tolist()
    taps = gate.conv.weight.flatten().tolist()
    for n in range(2):
        pooled = []
        for index in range(grid.shape[axis]):
            values = grid[n].select(axis - 1, index).flatten().tolist()
            mean, deviation = statistics.fmean(values), statistics.stdev(values)
            pooled.append(0.5 * (mean + deviation) + share[0] * mean + share[1] * deviation)
        padded = [0.0, *pooled, 0.0]
        convolved = [sum(tap * padded[i + k] for k, tap in enumerate(taps)) for i in range(len(pooled))]
        torch.testing.assert_close(got[n].flatten(), torch.tensor(convolved).sigmoid(), atol=1e-5, rtol=1e-5)


def test_mca_is_the_mean_of_three_gated_copies() -> None:
    torch.manual_seed(0)
    module = Mca(8)
    grid = torch.randn(2, 3, 4, 8)
    expected = (module.rows(grid) * grid + module.columns(grid) * grid + module.channels(grid) * grid) / 3
    torch.testing.assert_close(module(grid), expected)
    assert 0 <= float(module.rows.mix.detach().min()) <= float(module.rows.mix.detach().max()) < 1


def test_one_token_and_constant_grids_stay_finite() -> None:
    module = Mca(4)
    for grid in (torch.ones(1, 1, 1, 4), torch.ones(1, 3, 3, 4)):
        grid.requires_grad_()
        out = module(grid)
        out.sum().backward()
        assert torch.isfinite(out).all()
        assert grid.grad is not None
        assert torch.isfinite(grid.grad).all()
