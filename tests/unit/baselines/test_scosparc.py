"""Cross-attention: the fast form against the plain one, losses by hand, training that finds what recurs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.baselines import scosparc
from umscosod.baselines.scosparc import (
    CrossAttention,
    correspondence_loss,
    saliency_loss,
    scosparc_maps,
    train_scosparc,
)
from umscosod.device import derive_seed
from umscosod.types import GroupFeatures

CPU = torch.device("cpu")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty steps, long ones."""
    for name, value in (("EPOCHS", 30), ("MIN_STEPS", 0), ("LEARNING_RATE", 1e-2)):
        monkeypatch.setattr(scosparc, name, value)


def group(count: int = 3, grid: int = 6) -> GroupFeatures:
    places = [(1, 1, 4, 4), (2, 1, 5, 4), (1, 2, 4, 5)][:count]
    noise = np.random.default_rng(0)
    tokens = [paint(grid, {place: 1}) + noise.normal(0, 0.1, (grid, grid, 6)) for place in places]
    return make_features(tokens, [box(grid, *place).astype(float) for place in places])


def test_the_sum_of_keys_equals_the_mean_over_all_pairs_of_patches() -> None:
    tokens = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))
    model = CrossAttention(4, seed=2)
    residual = tokens + model.residual(tokens)
    query, key = model.query(residual), model.key(residual)
    for index in range(3):
        others = torch.cat([key[j] for j in range(3) if j != index])
        affinity = (query[index] @ others.T / math.sqrt(4)).mean(1)
        share = (affinity - affinity.min()) / (affinity.max() - affinity.min())
        expected = 1 / (1 + torch.exp(-(share - 0.65) / 0.15))
        torch.testing.assert_close(model(tokens)[index], expected, rtol=1e-4, atol=1e-5)


def test_one_image_at_a_time_gives_the_maps_of_the_whole_group() -> None:
    features = group()
    model = CrossAttention(6, seed=2).eval()
    with torch.no_grad():
        whole = model(torch.from_numpy(features.first.tokens_NPD.astype(np.float32)))
    np.testing.assert_allclose(scosparc_maps(model, features, CPU).reshape(3, -1), whole.numpy(), atol=1e-5)


def test_losses_by_hand() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    same = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # both foregrounds (1, 0), both backgrounds (0, 1)
    crossed = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # foregrounds at a right angle
    assert correspondence_loss(same, tokens).item() == pytest.approx(1 / (1 + math.exp(1)))
    assert correspondence_loss(crossed, tokens).item() == pytest.approx(0.5)
    maps, saliency = torch.tensor([[1.0, 0.5], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert saliency_loss(maps, saliency).item() == pytest.approx(1 - 1.5 / 4)


@pytest.mark.usefixtures("quick")
def test_training_lowers_the_loss_and_is_repeatable() -> None:
    features = group()
    tokens = torch.from_numpy(features.first.tokens_NPD.astype(np.float32))
    saliency = torch.from_numpy(features.saliency_NP)

    def loss(model: CrossAttention) -> float:
        with torch.no_grad():
            maps = model(tokens)
            return float(correspondence_loss(maps, tokens) + 0.3 * saliency_loss(maps, saliency))

    trained = [train_scosparc([features], 5, CPU) for _ in range(2)]
    assert loss(trained[0]) < loss(CrossAttention(6, derive_seed(5, "scosparc", 0))) - 1e-3
    first, second = (scosparc_maps(model, features, CPU) for model in trained)
    assert first.tobytes() == second.tobytes()
    assert first.shape == (3, 6, 6)
    assert first.dtype == np.float32


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    CrossAttention(4, seed=9)
    assert torch.rand(1) == expected


def test_a_single_image_is_compared_with_itself_and_trains_nothing() -> None:
    features = group(count=1)
    model = train_scosparc([features], 5, CPU)
    start = CrossAttention(6, derive_seed(5, "scosparc", 0))
    torch.testing.assert_close(model.query.weight, start.query.weight)
    maps = scosparc_maps(model, features, CPU)
    assert np.isfinite(maps).all()
    assert np.ptp(maps) > 0.5


@pytest.mark.usefixtures("quick")
def test_equal_patches_give_zeros_and_finite_weights() -> None:
    features = make_features([np.full((3, 3, 4), 0.7)] * 2, [np.full((3, 3), 0.5)] * 2)
    model = train_scosparc([features], 0, CPU)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert not scosparc_maps(model, features, CPU).any()


def test_the_batch_and_the_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    for name, value in (("EPOCHS", 1), ("MIN_STEPS", 5), ("BATCH_IMAGES", 2), ("RESTARTS", 1)):
        monkeypatch.setattr(scosparc, name, value)
    alone = group(count=1)
    train_scosparc([group(), alone, group()], 0, CPU, lambda done, total, _: seen.append((done, total)))
    assert seen == [(step, 6) for step in range(1, 7)]  # 3 epochs of the two groups that have pairs


@pytest.mark.usefixtures("quick")
def test_of_several_starts_the_lowest_loss_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    features, tokens = group(), torch.from_numpy(group().first.tokens_NPD.astype(np.float32))
    saliency = torch.from_numpy(features.saliency_NP)

    def loss(restarts: int, seed: int) -> float:
        monkeypatch.setattr(scosparc, "RESTARTS", restarts)
        model = train_scosparc([features], seed, CPU)
        with torch.no_grad():
            maps = model(tokens)
            return float(correspondence_loss(maps, tokens) + 0.3 * saliency_loss(maps, saliency))

    one, four = ([loss(restarts, seed) for seed in range(3)] for restarts in (1, 4))
    assert all(more <= fewer + 1e-3 for fewer, more in zip(one, four, strict=True))  # chosen one step earlier
    assert min(four) < max(one) - 1e-3
    assert max(four) < max(one) - 1e-3
