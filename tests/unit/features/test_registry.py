"""Which two backbones a configuration means, and what is said when weights are missing."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from umscosod.config import FeaturesConfig
from umscosod.device import precision_of
from umscosod.errors import ConfigError, WeightsError
from umscosod.estimate import first_name, first_width
from umscosod.features import backbone as registry
from umscosod.features import specs, weights
from umscosod.features.architectures import Vit
from umscosod.features.backbone import (
    BackbonePair,
    backbone_names,
    build_backbones,
    check_backbones,
    identify_backbones,
    late_pair,
)
from umscosod.features.specs import VitSpec
from umscosod.features.vit import VitBackbone
from umscosod.types import ByteArray, EncodedImage

CPU = torch.device("cpu")
REAL_SPECS = specs.VIT_SPECS
Save = Callable[[str], str]


class FakeEmbedded:
    name = "embedded"
    weights_sha256 = ""
    dim = 36
    batch_size = 1
    needs_whitening, is_centred, has_attention, is_label_free = True, False, False, True

    def __init__(self, size_px: int, cell_px: int, config: object = None) -> None:
        self.sizes = (size_px, cell_px)
        self.id = f"embedded@{size_px}/{cell_px}"
        self.grid_hw = (size_px // cell_px,) * 2
        self.id = f"embedded@{size_px}/{cell_px}"

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def tiny_world(monkeypatch: pytest.MonkeyPatch, tiny_specs: dict[str, VitSpec], no_weights: Path) -> None:
    monkeypatch.setattr(registry, "VIT_SPECS", tiny_specs)
    monkeypatch.setattr(specs, "VIT_SPECS", tiny_specs)
    monkeypatch.setattr(registry, "PAPER_FIRST", tiny_specs["dino_vitb8"])
    monkeypatch.setattr(weights, "VIT_SPECS", tiny_specs)
    fake = ModuleType("umscosod.features.embedded")
    fake.EmbeddedBackbone = FakeEmbedded  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umscosod.features.embedded", fake)


@pytest.fixture
def save(tmp_path: Path, make_tiny: Callable[[str], Vit]) -> Save:
    def save(name: str) -> str:
        save_file(make_tiny(name).state_dict(), tmp_path / f"{name}.safetensors")
        return str(tmp_path / f"{name}.safetensors")

    return save


@pytest.fixture
def at_hand(tmp_path: Path, make_tiny: Callable[[str], Vit], tiny_specs: dict[str, VitSpec]) -> Save:
    """Put a backbone's weights where torch.hub leaves the authors' files."""

    def put(name: str) -> str:
        path = tmp_path / "torch" / "hub" / "checkpoints" / tiny_specs[name].original_file
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(make_tiny(name).state_dict(), path)
        return str(path)

    return put


def sizes(pair: BackbonePair) -> list[tuple[str, tuple[int, int]]]:
    return [(backbone.name, backbone.grid_hw) for backbone in (pair.first, pair.second)]


def embedded_sizes(pair: BackbonePair) -> list[tuple[int, int]]:
    assert isinstance(pair.first, FakeEmbedded)
    assert isinstance(pair.second, FakeEmbedded)
    return [pair.first.sizes, pair.second.sizes]


def test_auto_without_weights_says_what_it_uses_and_what_would_be_better(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        pair = build_backbones(FeaturesConfig(), CPU)
    assert embedded_sizes(pair) == [(224, 8), (224, 16)]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "'embedded'" in warning
    assert warning.endswith("run: umscosod weights get paper")
    assert len(warning.split()) < 25
    assert warning in pair.notes


PAPER = ("dino_vitb8", "dinov2_vitb14_reg")
SMALL = ("dino_vits8", "dinov2_vits14_reg")


@pytest.mark.parametrize(
    ("here", "second", "taken"),
    [
        ((*PAPER, *SMALL), "", PAPER),
        (("dino_vitb8", *SMALL), "", SMALL),  # a whole pair comes before half of a larger one
        (("dino_vitb8",), "", ("dino_vitb8", "dino_vitb8")),
        (("dino_vitb8", "dinov2_vitl14"), "dinov2_vitl14", ("dino_vitb8", "dinov2_vitl14")),
        (("dinov2_vits14", "dinov2_vitb14_reg"), "", ("dinov2_vitb14_reg", "dinov2_vitb14_reg")),
        (("dinov2_vitl14", "dino_vits16", "dinov2_vits14_reg"), "", ("dinov2_vits14_reg", "dinov2_vits14_reg")),
        (("dino_vits16",), "", ("dino_vits16", "dino_vits16")),
        (("siglip2_vitb16",), "", ("embedded", "embedded")),  # trained with texts: only by name
    ],
)
def test_auto_takes_what_is_here_the_best_first(
    at_hand: Save, here: tuple[str, ...], second: str, taken: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in here:
        at_hand(name)
    config = FeaturesConfig(second_backbone=second)
    with caplog.at_level(logging.INFO):
        pair = build_backbones(config, CPU)
    assert (pair.first.name, pair.second.name) == taken
    assert first_name(config) == pair.first.name
    assert first_width(config) == (0 if taken[0] == "embedded" else REAL_SPECS[taken[0]].dim)
    (said,) = [line for line in caplog.messages if line.startswith("backbones: ")]
    assert all(name in said for name in taken)
    assert ("WARNING" in caplog.text) == (taken[0] == "embedded")


def test_auto_takes_the_papers_pair(at_hand: Save) -> None:
    at_hand("dino_vitb8")
    at_hand("dinov2_vitb14_reg")
    pair = build_backbones(FeaturesConfig(), CPU)
    assert sizes(pair) == [("dino_vitb8", (28, 28)), ("dinov2_vitb14_reg", (16, 16))]
    assert pair.first.weights_sha256[:12] in pair.notes[-1]


@pytest.mark.parametrize(
    ("first", "partner"), [("dino_vitb16", "dinov2_vitb14_reg"), ("dino_vits16", "dinov2_vits14_reg")]
)
def test_patches_of_16_px_follow_the_same_rules(at_hand: Save, first: str, partner: str) -> None:
    at_hand(first)
    assert sizes(build_backbones(FeaturesConfig(backbone=first), CPU)) == [(first, (28, 28)), (first, (14, 14))]
    at_hand(partner)
    assert sizes(build_backbones(FeaturesConfig(backbone=first), CPU)) == [(first, (28, 28)), (partner, (16, 16))]


def test_a_licence_of_its_own_and_texts_of_people_are_said(
    save: Save, monkeypatch: pytest.MonkeyPatch, tiny_specs: dict[str, VitSpec]
) -> None:
    own = {"dino_vits16": replace(tiny_specs["dino_vits16"], licence="Own License", is_label_free=False)}
    monkeypatch.setattr(specs, "VIT_SPECS", tiny_specs | own)
    pair = build_backbones(FeaturesConfig(backbone="dino_vits16", weights=save("dino_vits16")), CPU)
    assert "dino_vits16: weights under the licence 'Own License'" in pair.notes
    assert any("texts of people" in note and "not annotation-free" in note for note in pair.notes)


def test_an_architecture_outside_the_table_is_not_called_label_free(tmp_path: Path) -> None:
    arguments = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    torch.save(timm.create_model("vit_tiny_patch16_224", **arguments).state_dict(), tmp_path / "w.pth")
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "architecture": "vit_tiny_patch16_224",
                "model_args": arguments,
                "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
            }
        )
    )
    config = FeaturesConfig(backbone=f"local-dir:{tmp_path}", weights=str(tmp_path / "w.pth"), debias=True)
    pair = build_backbones(config, CPU)
    assert [grid for _, grid in sizes(pair)] == [(28, 28), (14, 14)]
    assert not pair.first.is_label_free
    assert any("its training is not known: these results are not annotation-free" in note for note in pair.notes)
    assert identify_backbones(config, CPU) == tuple((one.name, one.id) for one in pair.both)
    assert all(one.id.endswith(":debias-v1") for one in pair.both)
    assert first_width(config) == 768  # not built for a guess
    with pytest.raises(ConfigError, match="no model 'nobody'"):
        check_backbones(FeaturesConfig(backbone="timm:nobody"), CPU)


def test_auto_recognises_a_given_file(save: Save) -> None:
    pair = build_backbones(FeaturesConfig(weights=save("dinov2_vits14")), CPU)
    assert sizes(pair) == [("dinov2_vits14", (28, 28)), ("dinov2_vits14", (16, 16))]
    assert "has the architecture of dinov2_vits14; its training is not known" in pair.notes[0]


def test_auto_with_both_files_is_the_pair(save: Save) -> None:
    config = FeaturesConfig(weights=save("dino_vitb8"), second_weights=save("dinov2_vitb14_reg"))
    assert [name for name, _ in sizes(build_backbones(config, CPU))] == ["dino_vitb8", "dinov2_vitb14_reg"]


def test_auto_with_a_foreign_or_absent_file_is_an_error(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth \(--weights\) fit none of dino_vitb8"):
        build_backbones(FeaturesConfig(weights=str(tmp_path / "x.pth")), CPU)
    with pytest.raises(WeightsError, match=r"no weights at .*y\.pth"):
        build_backbones(FeaturesConfig(weights=str(tmp_path / "y.pth")), CPU)


def test_one_patch14_vit_gives_two_granularities_of_one_module(save: Save) -> None:
    config = FeaturesConfig(backbone="dinov2_vits14_reg", weights=save("dinov2_vits14_reg"), batch_size=3)
    pair = build_backbones(config, CPU)
    assert isinstance(pair.first, VitBackbone)
    assert isinstance(pair.second, VitBackbone)
    assert (pair.first.size_px, pair.second.size_px) == (392, 224)
    first, second = (backbone.module.blocks[0].attn.qkv.weight for backbone in (pair.first, pair.second))
    assert first is second  # the tensors are shared
    assert pair.first.id != pair.second.id


def test_one_patch8_vit_gives_its_half_size_as_second(save: Save) -> None:
    pair = build_backbones(FeaturesConfig(backbone="dino_vits8", weights=save("dino_vits8")), CPU)
    assert sizes(pair) == [("dino_vits8", (28, 28)), ("dino_vits8", (14, 14))]
    assert "second stream: dino_vits8 again, coarser; its partner: umscosod weights get dinov2_vits14_reg" in pair.notes


def test_partner_at_hand_is_taken_as_second(save: Save, at_hand: Save) -> None:
    at_hand("dinov2_vits14_reg")
    pair = build_backbones(FeaturesConfig(backbone="dino_vits8", weights=save("dino_vits8")), CPU)
    assert sizes(pair) == [("dino_vits8", (28, 28)), ("dinov2_vits14_reg", (16, 16))]


def test_any_two_may_be_paired(save: Save) -> None:
    config = FeaturesConfig(backbone="dinov2_vits14", weights=save("dinov2_vits14"), second_backbone="dino_vits8")
    pair = build_backbones(replace(config, second_weights=save("dino_vits8")), CPU)
    assert sizes(pair) == [("dinov2_vits14", (28, 28)), ("dino_vits8", (28, 28))]
    pair = build_backbones(replace(config, second_backbone="embedded"), CPU)
    assert sizes(pair) == [("dinov2_vits14", (28, 28)), ("embedded", (14, 14))]


@pytest.mark.parametrize(("size_px", "grids"), [(56, (7, 4)), (60, (8, 4)), (280, (35, 20))])
def test_grids_follow_the_size(save: Save, size_px: int, grids: tuple[int, int]) -> None:
    pair = build_backbones(FeaturesConfig(weights=save("dinov2_vits14"), size_px=size_px), CPU)
    assert (pair.first.grid_hw[0], pair.second.grid_hw[0]) == grids


def test_named_backbone_without_weights_is_an_error() -> None:
    with pytest.raises(WeightsError, match=r"no weights of dino_vits8.*weights get dino_vits8.*--weights FILE"):
        build_backbones(FeaturesConfig(backbone="dino_vits8"), CPU)
    with pytest.raises(WeightsError, match=r"no weights of dinov2_vits14.*--config\.features\.second-weights FILE"):
        build_backbones(FeaturesConfig(backbone="embedded", second_backbone="dinov2_vits14"), CPU)


def test_file_that_nothing_uses_is_said(save: Save, caplog: pytest.LogCaptureFixture) -> None:
    pair = build_backbones(FeaturesConfig(backbone="embedded", weights=save("dino_vits8")), CPU)
    assert embedded_sizes(pair) == [(224, 8), (224, 16)]
    assert "is not used: embedded has no weights" in pair.notes[0]
    assert "is not used" in caplog.text


@pytest.mark.parametrize("option", ["backbone", "second_backbone"])
def test_unknown_names_get_a_suggestion_and_the_list(option: str) -> None:
    with pytest.raises(ConfigError, match="'dino_vit_b8', did you mean 'dino_vitb8'") as caught:
        build_backbones(FeaturesConfig(**{option: "dino_vit_b8"}), CPU)
    assert all(name in str(caught.value) for name in backbone_names())
    assert f"features.{option}" in str(caught.value)
    with pytest.raises(ConfigError, match=r"'resnet50'\. Known names"):
        build_backbones(FeaturesConfig(**{option: "resnet50"}), CPU)


def test_widths_and_grids_may_differ(save: Save) -> None:
    config = FeaturesConfig(backbone="dinov2_vitl14", weights=save("dinov2_vitl14"), size_px=56)
    config = replace(config, second_backbone="dino_vits16", second_weights=save("dino_vits16"))
    pair = build_backbones(config, CPU)
    image = np.zeros((30, 40, 3), np.uint8)
    assert [one.encode([image])[0].tokens_PD.shape for one in pair.both] == [(49, 64), (16, 32)]


def test_pair_encodes(save: Save) -> None:
    pair = build_backbones(FeaturesConfig(weights=save("dinov2_vits14"), size_px=56), CPU)
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert [backbone.encode([image])[0].tokens_PD.shape for backbone in (pair.first, pair.second)] == [
        (49, 32),
        (16, 32),
    ]


def test_a_missing_file_is_an_error_even_where_nothing_would_use_it(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pth")
    for option in ({"weights": missing}, {"second_weights": missing, "second_backbone": "embedded"}):
        config = FeaturesConfig(backbone="embedded", **option)
        for call in (build_backbones, check_backbones):
            with pytest.raises(WeightsError, match=r"missing\.pth"):
                call(config, CPU)


def test_the_check_before_the_work_refuses_the_same_and_says_nothing(
    save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for config in (FeaturesConfig(backbone="dino_vitb8"), FeaturesConfig(weights=str(tmp_path / "no.pth"))):
        with pytest.raises(WeightsError):
            check_backbones(config, CPU)
    with pytest.raises(ConfigError, match="unknown backbone"):
        check_backbones(FeaturesConfig(backbone="resnet"), CPU)
    caplog.clear()
    check_backbones(FeaturesConfig(), CPU)
    check_backbones(FeaturesConfig(backbone="embedded", weights=save("dino_vits8")), CPU)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("dino_vits8", ""),
        ("dinov2_vits14", ""),
        ("dinov2_vits14", "embedded"),
        ("dino_vits8", "dinov2_vits14"),
        ("embedded", ""),
        ("auto", ""),
    ],
)
@pytest.mark.parametrize("size_px", [56, 224])
def test_backbones_are_identified_without_being_built(
    save: Save, first: str, second: str, size_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FeaturesConfig(
        backbone=first,
        second_backbone=second,
        size_px=size_px,
        weights=save(first) if first.startswith("dino") else "",
        second_weights=save(second) if second.startswith("dino") else "",
    )
    pair = build_backbones(config, CPU)
    monkeypatch.delattr("umscosod.features.vit.load_vit")
    assert identify_backbones(config, CPU) == tuple((one.name, one.id) for one in (pair.first, pair.second))


def test_machines_of_another_arithmetic_are_refused(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FeaturesConfig(weights=save("dinov2_vits14"), size_px=56)
    picture = np.zeros((56, 56, 3), np.uint8)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    pair = build_backbones(config, CPU)
    assert [precision_of(one) for one in pair.both] == ["bfloat16"] * 2
    assert pair.notes[-1].endswith(", bfloat16")
    sent = late_pair(pair, config, "cpu", "cpu")
    assert sent.first.encode([picture])
    registry._build_once.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(ConfigError, match=r"computes in float32 here, in bfloat16 where .* features.precision=float32"):
        sent.first.encode([picture])
    assert late_pair(pair, config, "cpu", "cuda:0").first.encode([picture])  # another kind of device: close, not equal
    exact = replace(config, precision="float32")
    assert late_pair(build_backbones(exact, CPU), exact, "cpu", "cpu").first.encode([picture])
