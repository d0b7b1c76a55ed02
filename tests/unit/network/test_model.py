"""The network composed: switches, widths, precision, seeds, and inference on groups."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from umscosod.config import AfmmConfig, CfmmConfig, DecoderConfig, FramConfig, NetworkConfig
from umscosod.errors import DataError
from umscosod.network import cfmm
from umscosod.network import model as model_module
from umscosod.network.model import UmsNetwork, build_network, common_width, predict_maps, resize_tokens
from umscosod.types import GroupFeatures

CPU = torch.device("cpu")


def _config(**changes: object) -> NetworkConfig:
    return NetworkConfig(**({"decoder": DecoderConfig(channels=4)} | changes))  # type: ignore[arg-type]


def _forward(model: UmsNetwork, features: GroupFeatures) -> tuple[Tensor, ...]:
    out: tuple[Tensor, ...] = model(
        torch.from_numpy(features.first.tokens_NPD).float(),
        torch.from_numpy(features.second.tokens_NPD).float(),
        torch.from_numpy(features.saliency_NP),
        features.first.grid_hw,
        features.second.grid_hw,
        features.pictures_NHW3.shape[1:3],
        torch.from_numpy(features.pictures_NHW3),
    )
    return out


@pytest.mark.parametrize("switches", list(itertools.product([True, False], repeat=3)))
def test_every_module_can_be_switched(make_features: Callable[..., GroupFeatures], switches: tuple[bool, ...]) -> None:
    afmm, cfmm, fram = switches
    config = _config(afmm=AfmmConfig(enabled=afmm), cfmm=CfmmConfig(enabled=cfmm), fram=FramConfig(enabled=fram))
    model, features = build_network(config, 8, 8, 0), make_features(3)
    out = _forward(model, features)
    assert [tuple(one.shape) for one in out] == [(3, 1, 12, 12)] * 3
    sum(one.sum() for one in out).backward()
    learned = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(model.get_parameter(name).grad is not None for name in learned)
    assert any(name.startswith("afmm") for name in learned) == afmm


def test_equal_widths_add_no_projection_and_the_papers_size_is_met() -> None:
    model = UmsNetwork(NetworkConfig(), 768, 768)
    assert list(model.project_first.parameters()) == list(model.project_second.parameters()) == []
    assert sum(p.numel() for p in model.afmm.parameters()) == pytest.approx(2.66e6, rel=2e-3)


@pytest.mark.parametrize(
    ("first", "second", "most", "width", "projected"),
    [
        (8, 8, 0, 8, (False, False)),
        (8, 6, 0, 8, (False, True)),
        (6, 10, 0, 12, (True, True)),
        (5, 5, 0, 8, (True, True)),
        (8, 8, 4, 4, (True, True)),
        (8, 16, 8, 8, (False, True)),
        (6, 6, 16, 8, (True, True)),
    ],
)
def test_projections_only_where_widths_differ(
    make_features: Callable[..., GroupFeatures],
    first: int,
    second: int,
    most: int,
    width: int,
    projected: tuple[bool, bool],
) -> None:
    model = UmsNetwork(_config(max_width=most), first, second)
    assert model.dim == common_width(first, second, most) == width
    out = _forward(model, make_features(2, dim_first=first, dim_second=second))
    assert out[-1].shape == (2, 1, 12, 12)
    got = tuple(len(list(module.parameters())) > 0 for module in (model.project_first, model.project_second))
    assert got == projected


def test_second_stream_is_resized_like_interpolate() -> None:
    tokens = torch.randn(2, 4, 3)
    image = tokens.transpose(1, 2).reshape(2, 3, 2, 2)
    expected = torch.nn.functional.interpolate(image, size=(3, 5), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize_tokens(tokens, (2, 2), (3, 5)), expected.flatten(2).transpose(1, 2))


def test_streams_of_another_shape_are_refused(make_features: Callable[..., GroupFeatures]) -> None:
    with pytest.raises(DataError, match=r"\(3, 4, 6\).*expects.*\(3, 4, 8\)"):
        _forward(UmsNetwork(_config(), 8, 8), make_features(3, dim_second=6))


def test_initial_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (build_network(_config(), 8, 6, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["afmm.mixer.0.weight"], other["afmm.mixer.0.weight"])


def test_finite_in_bfloat16(make_features: Callable[..., GroupFeatures]) -> None:
    model, features = build_network(_config(), 8, 8, 0), make_features(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = _forward(model, features)
        total: Tensor = sum((one.float().sum() for one in out), torch.zeros(()))
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cfmm": CfmmConfig(rm_relu="eval")},
        {"cfmm": CfmmConfig(init="kaiming", seed_prior="none")},
        {"cfmm": CfmmConfig(enabled=False), "decoder": DecoderConfig(channels=4, picture=True)},
        {"afmm": AfmmConfig(enabled=False), "fram": FramConfig(enabled=False)},
    ],
)
def test_predict_group_equals_forward(
    make_features: Callable[..., GroupFeatures],
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    changes: dict[str, object],
    block: int,
) -> None:
    for module in (model_module, cfmm):
        monkeypatch.setattr(module, "BLOCK_IMAGES", block)
    features = make_features(count, dim_second=6)
    model = build_network(_config(**changes), 8, 6, 3)
    with torch.no_grad():
        expected = _forward(model.eval(), features)[-1].sigmoid().squeeze(1).numpy()
    model.train()
    got = predict_maps(model, features, CPU)
    assert model.training, "the mode is left as it was"
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert 0 <= got.min() <= got.max() <= 1


def test_predict_group_leaves_read_only_features_alone(make_features: Callable[..., GroupFeatures]) -> None:
    features = make_features(2)
    for array in (features.first.tokens_NPD, features.saliency_NP, features.pictures_NHW3):
        array.setflags(write=False)
    model = build_network(_config(decoder=DecoderConfig(channels=4, picture=True)), 8, 8, 0)
    assert predict_maps(model, features, CPU).shape == (2, 12, 12)
