"""CFMM against the definition written out in loops (spec A3, eq. 3)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from umscosod.config import CfmmConfig
from umscosod.network.cfmm import Cfmm, compute_importance, minmax_per_image, select_seeds


def _tokens(count: int = 2, patches: int = 4, dim: int = 4, seed: int = 3) -> Tensor:
    return torch.randn(count, patches, dim, generator=torch.Generator().manual_seed(seed))


def _module(dim: int = 4, **changes: object) -> Cfmm:
    torch.manual_seed(0)
    return Cfmm(dim, CfmmConfig(**changes))  # type: ignore[arg-type]


def test_importance_by_hand() -> None:
    query, key = _tokens(3), _tokens(3, seed=4)
    got = compute_importance(query, key, 2)
    for n in range(3):
        for p in range(4):
            best = [max(float(query[n, p] @ key[m, r]) for r in range(4)) for m in range(3)]
            assert float(got[n, p]) == pytest.approx(sum(best) / 3, abs=1e-5)


def test_seeds_are_the_argmax_of_minmaxed_importance_times_prior() -> None:
    scores = torch.tensor([[-4.0, -1.0, -2.0, -3.0], [2.0, 2.0, 1.0, 0.0]])
    prior = torch.tensor([[1.0, 0.1, 0.9, 1.0], [0.0, 0.5, 0.9, 1.0]])
    # Row 1: minmax (0, 1, 2/3, 1/3) * prior = (0, .1, .6, .33). Row 2: (1, 1, .5, 0) * prior = (0, .5, .45, 0).
    assert select_seeds(scores, prior).tolist() == [2, 1]
    assert select_seeds(scores, None).tolist() == [1, 0], "ties: the lowest index"


def test_constant_importance_leaves_the_seed_to_the_prior() -> None:
    assert select_seeds(torch.full((1, 3), 7.0), torch.tensor([[0.1, 0.3, 0.2]])).tolist() == [1]


@torch.no_grad()
def test_eq_3_by_hand() -> None:
    module = _module(seed_prior="none").train()
    tokens = _tokens()
    got = module(tokens, torch.ones(2, 4))
    weight, bias = module.residual.weight, module.residual.bias
    res = [[weight @ tokens[n, p] + bias + tokens[n, p] for p in range(4)] for n in range(2)]
    unit = [[v / v.norm() for v in row] for row in res]
    points = []
    for n in range(2):
        scores = [
            sum(max(float(res[n][p] @ res[m][r]) for r in range(4)) for m in range(2)) / 2 / math.sqrt(4)
            for p in range(4)
        ]
        points.append(unit[n][scores.index(max(scores))])
    response = []
    for n in range(2):
        mean = [sum(max(0.0, float(point @ unit[n][p])) for point in points) / 2 for p in range(4)]
        response.append([(value - min(mean)) / (max(mean) - min(mean) + 1e-12) for value in mean])
    common = sum(response[n][p] * res[n][p] for n in range(2) for p in range(4)) / 8  # type: ignore[operator]
    for n in range(2):
        for p in range(4):
            expected = common * res[n][p] + response[n][p] * res[n][p]
            torch.testing.assert_close(got[n, p], expected, atol=1e-5, rtol=1e-5)


def test_identity_start_is_a_plain_dot_product() -> None:
    tokens, prior = _tokens(3, 9, 8), torch.rand(3, 9, generator=torch.Generator().manual_seed(0))
    module = _module(8)
    assert torch.equal(module.query(tokens), tokens)
    residual = module.compute_residual(tokens)
    expected = select_seeds(compute_importance(residual, residual, 1) / math.sqrt(8), prior)
    assert torch.equal(module.compute_seeds(residual, prior), expected)


def test_kaiming_start_is_a_random_bilinear_form() -> None:
    module = _module(8, init="kaiming", seed_prior="none")
    assert not torch.allclose(module.query.weight, module.key.weight)
    assert not torch.allclose(module.query.weight, torch.eye(8))
    assert torch.isfinite(module(_tokens(3, 9, 8), torch.ones(3, 9))).all()


def test_affinity_layers_get_no_gradient_and_the_rest_does() -> None:
    module = _module(init="kaiming")
    module(_tokens(), torch.ones(2, 4)).sum().backward()
    assert module.residual.weight.grad is not None
    assert module.residual.weight.grad.abs().sum() > 0
    for layer in (module.query, module.key):
        assert not layer.weight.requires_grad
        assert layer.weight.grad is None


@pytest.mark.parametrize(("mode", "training", "rectified"), [
    ("always", True, True), ("always", False, True), ("eval", True, False), ("eval", False, True),
])  # fmt: skip
def test_rm_relu_modes(mode: str, training: bool, rectified: bool) -> None:
    module = _module(rm_relu=mode).train(training)
    tokens = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]])
    response = module.compute_response(tokens, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert response.tolist() == [[1.0, 0.0 if rectified else 0.5, 0.0]]


def test_key_points_have_unit_length() -> None:
    points = _module().compute_key_points(_tokens(3), torch.tensor([0, 3, 1]))
    torch.testing.assert_close(points.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(points[1], _tokens(3)[1, 3] / _tokens(3)[1, 3].norm())


def test_flat_map_has_no_exploding_gradient() -> None:
    flat = torch.full((1, 4), 0.5, requires_grad=True)
    value = minmax_per_image(flat + torch.tensor([[0.0, 1e-8, 0.0, 0.0]]))
    value.sum().backward()
    assert value.abs().max() < 1e-6
    assert flat.grad is not None
    assert flat.grad.abs().max() < 10


def test_a_single_image_and_a_single_token_work() -> None:
    module = _module()
    assert torch.isfinite(module(_tokens(1), torch.ones(1, 4))).all()
    assert torch.isfinite(module(_tokens(1, 1), torch.ones(1, 1))).all()


def test_off_passes_through_without_parameters() -> None:
    module = _module(enabled=False)
    tokens = _tokens()
    assert list(module.parameters()) == []
    assert module(tokens, torch.ones(2, 4)) is tokens


def test_cosines_of_the_response_are_float32_under_bfloat16_autocast() -> None:
    module = _module(64)
    tokens = _tokens(3, 9, 64).bfloat16()
    points = module.compute_key_points(tokens, torch.tensor([0, 3, 1]))
    expected = module.compute_response(tokens, points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = module.compute_response(tokens, module.compute_key_points(tokens, torch.tensor([0, 3, 1])))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
