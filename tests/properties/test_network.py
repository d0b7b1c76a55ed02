"""What must hold for every group: order, duplicates and block size change nothing they should not."""

from __future__ import annotations

from unittest import mock

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from umscosod.config import CfmmConfig, DecoderConfig, NetworkConfig
from umscosod.network import cfmm
from umscosod.network.cfmm import Cfmm, compute_importance
from umscosod.network.fram import compute_log_amplification
from umscosod.network.model import UmsNetwork, build_network

GRID = (3, 3)
seeds = st.integers(0, 2**31)


def _group(seed: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, 9, 8, generator=generator),
        torch.randn(count, 4, 8, generator=generator),
        torch.rand(count, 9, generator=generator),
    )


def _predict(model: UmsNetwork, group: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(*group, GRID, (2, 2), (12, 12))[-1].sigmoid()
    return out


@settings(max_examples=20, deadline=None)
@given(seed=seeds, count=st.integers(1, 5), data=st.data())
def test_permuting_images_permutes_outputs(seed: int, count: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(count)))
    model = build_network(NetworkConfig(decoder=DecoderConfig(channels=4)), 8, 8, seed).eval()
    group = _group(seed, count)
    shuffled = tuple(part[order] for part in group)
    torch.testing.assert_close(
        _predict(model, shuffled),  # type: ignore[arg-type]
        _predict(model, group)[order],
        atol=1e-4,
        rtol=1e-4,
    )


@settings(max_examples=20, deadline=None)
@given(seed=seeds, count=st.integers(1, 4))
def test_duplicating_every_image_doubles_the_key_points_and_nothing_else(seed: int, count: int) -> None:
    model = build_network(NetworkConfig(decoder=DecoderConfig(channels=4)), 8, 8, seed).eval()
    group = _group(seed, count)
    doubled = tuple(torch.cat([part, part]) for part in group)
    once, twice = _predict(model, group), _predict(model, doubled)  # type: ignore[arg-type]
    torch.testing.assert_close(twice, torch.cat([once, once]), atol=1e-4, rtol=1e-4)
    tokens, saliency = group[0], group[2]
    points = model.cfmm.compute_key_points(tokens, model.cfmm.compute_seeds(tokens, saliency))
    tokens, saliency = doubled[0], doubled[2]
    both = model.cfmm.compute_key_points(tokens, model.cfmm.compute_seeds(tokens, saliency))
    torch.testing.assert_close(both, torch.cat([points, points]))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, count=st.integers(1, 7), block=st.integers(1, 8), symmetric=st.booleans())
def test_blocked_affinity_equals_the_dense_one(seed: int, count: int, block: int, symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(count, 5, 6, generator=generator)
    key = query if symmetric else torch.randn(count, 5, 6, generator=generator)
    dense = (query.flatten(0, 1) @ key.flatten(0, 1).T).view(count * 5, count, 5).amax(-1).mean(-1).view(count, 5)
    torch.testing.assert_close(compute_importance(query, key, block), dense, atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, block=st.integers(1, 6))
def test_block_size_never_changes_the_result(seed: int, block: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens, prior = torch.randn(5, 6, 8, generator=generator), torch.rand(5, 6, generator=generator)
    outputs = []
    for size in (block, 5):
        torch.manual_seed(0)
        with mock.patch.object(cfmm, "BLOCK_IMAGES", size):
            outputs.append(Cfmm(8, CfmmConfig(init="kaiming"))(tokens, prior))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=4))
def test_rank_amplification_matches_the_definition_with_ties(rows: list[list[int]]) -> None:
    expected = [
        [
            (1 + sum(o > v or (o == v and k < i) for k, o in enumerate(row))) ** 3 if v > 0 else 1
            for i, v in enumerate(row)
        ]
        for row in rows
    ]
    got = compute_log_amplification(torch.tensor(rows, dtype=torch.float32), 3.0).exp()
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32), atol=0, rtol=1e-5)
