"""Every key layout gives the tokens, last-block keys and attention of the library that wrote it: random weights.

transformers is the other library. The original codes of DINO and DINOv2: ``test_original_tokens.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.eva import checkpoint_filter_fn
from torch import nn

from umscosod.errors import WeightsError
from umscosod.features import weights as weights_module
from umscosod.features.layouts import convert_state_dict
from umscosod.features.specs import VIT_SPECS, VitSpec
from umscosod.features.weights import load_weights, recognise, resize_pos_embed

State = dict[str, torch.Tensor]
Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

DEPTH, DIM = 2, 48
SMALL = {"hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": 3, "attn_implementation": "eager"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A class of transformers, and timm's architecture for its files."""

    theirs: str
    timm_name: str
    patch_px: int
    native: int = 4  # patches
    other: int = 0  # patches of another size at which both resize positions alike; 0: none
    settings: tuple[tuple[str, Any], ...] = ()
    overrides: tuple[tuple[str, Any], ...] = ()
    biased: bool = True


DINOV3 = Case(theirs="DINOv3ViT", timm_name="vit_small_patch16_dinov3", patch_px=16, native=14, other=9, biased=False)
PLUS = (("use_gated_mlp", True), ("hidden_act", "silu"))
SIGLIP = Case(
    theirs="SiglipVision",
    timm_name="vit_base_patch16_siglip_224",
    patch_px=16,
    overrides=(("act_layer", "gelu_tanh"),),  # timm's own is the exact GELU
)
CASES = {
    "dino s/8": Case(theirs="ViT", timm_name="vit_small_patch8_224", patch_px=8),
    "dino s/16": Case(theirs="ViT", timm_name="vit_small_patch16_224", patch_px=16),
    "dinov2": Case(theirs="Dinov2", timm_name="vit_small_patch14_dinov2", patch_px=14),
    "dinov2 giant": Case(
        theirs="Dinov2",
        timm_name="vit_giant_patch14_dinov2",
        patch_px=14,
        settings=(("use_swiglu_ffn", True),),
    ),
    "dinov2 reg": Case(
        theirs="Dinov2WithRegisters", timm_name="vit_small_patch14_reg4_dinov2", patch_px=14, native=5, other=3
    ),
    "dinov3": DINOV3,
    "dinov3 plus": replace(DINOV3, timm_name="vit_small_plus_patch16_dinov3", settings=PLUS),
    "dinov3 bias": replace(DINOV3, timm_name="vit_small_patch16_dinov3_qkvb", biased=True),
    "siglip": SIGLIP,
    "siglip gap": replace(SIGLIP, timm_name="vit_base_patch16_siglip_gap_224"),
}


@pytest.fixture(scope="module", autouse=True)
def transformers() -> Any:
    """Imported late: it takes seconds, in each process that only collects this file."""
    import transformers

    return transformers


def make_theirs(transformers: Any, case: Case) -> nn.Module:
    registers = {"num_register_tokens": 4} if case.theirs in ("Dinov2WithRegisters", "DINOv3ViT") else {}
    widths = {} if case.theirs.startswith("Dinov2") else {"intermediate_size": 4 * DIM}
    config = getattr(transformers, f"{case.theirs}Config")(
        **SMALL,
        **widths,
        **registers,
        patch_size=case.patch_px,
        image_size=case.native * case.patch_px,
        layer_norm_eps=1e-5 if case.theirs == "DINOv3ViT" else 1e-6,
        **dict(case.settings),
    )
    model = getattr(transformers, f"{case.theirs}Model")(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            if not case.biased and name.endswith(("q_proj.bias", "v_proj.bias")):
                parameter.zero_()  # as in the published files
    return model.eval()


def make_ours(case: Case) -> Any:
    overrides = {"embed_dim": DIM, "depth": DEPTH, "num_heads": 3, **dict(case.overrides)}
    model = timm.create_model(case.timm_name, num_classes=0, img_size=case.native * case.patch_px, **overrides)
    model.patch_embed.strict_img_size = False
    return model.eval()


def tiny_spec(name: str, case: Case) -> VitSpec:
    registers = 4 if case.theirs in ("Dinov2WithRegisters", "DINOv3ViT") else 0
    prefix = 0 if case.theirs == "SiglipVision" else 1 + registers
    base = VIT_SPECS["dino_vits8"]
    return replace(base, name=name, timm_name=case.timm_name, patch_px=case.patch_px, dim=DIM, prefix_tokens=prefix)


def catch(module: nn.Module) -> list[torch.Tensor]:
    caught: list[torch.Tensor] = []
    module.register_forward_hook(lambda _module, _args, output: caught.append(output))
    return caught


def run_theirs(model: Any, pictures_N3HW: torch.Tensor) -> Outputs:
    last = [
        module
        for name, module in model.named_modules()
        if name.endswith((".k_proj", ".key")) and f".{DEPTH - 1}." in f".{name}"
    ]
    keys = catch(last[0])
    outputs = model(pictures_N3HW, output_attentions=True)
    return outputs.last_hidden_state, keys[-1], outputs.attentions[-1][:, :, 0]


def run_ours(model: Any, pictures_N3HW: torch.Tensor, side: int) -> Outputs:
    if model.pos_embed is not None:
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        model.pos_embed = nn.Parameter(resize_pos_embed(model.pos_embed, side, prefix=prefix, rule="antialias"))
    attention = model.blocks[-1].attn
    attention.fused_attn = False
    keys_NATd, attention_NATT = catch(attention.k_norm), catch(attention.attn_drop)
    tokens_NTD = model.forward_features(pictures_N3HW)
    return tokens_NTD, keys_NATd[-1].transpose(1, 2).flatten(2), attention_NATT[-1][:, :, 0]


def save(model: Any, kind: str, folder: Path) -> Path:
    if kind == "published":
        model.save_pretrained(folder)
        return folder / "model.safetensors"
    state = {f"module.encoder_of_mine._orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": {**state, "head.weight": torch.zeros(2, 2)}, "epoch": 3}, folder / "mine.pth")
    return folder / "mine.pth"


@pytest.mark.parametrize("kind", ["published", "checkpoint"])
@pytest.mark.parametrize("name", CASES)
def test_transformers_layouts_give_its_tokens_keys_and_attention(
    transformers: Any, tmp_path: Path, name: str, kind: str
) -> None:
    case = CASES[name]
    theirs, ours = make_theirs(transformers, case), make_ours(case)
    load_weights(ours, save(theirs, kind, tmp_path))
    for side in filter(None, (case.native, case.other)):
        pictures_N3HW = torch.randn(2, 3, *(2 * [side * case.patch_px]), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            pairs = zip(run_ours(ours, pictures_N3HW, side), run_theirs(theirs, pictures_N3HW), strict=True)
            for what, (mine, other) in zip(("tokens", "keys", "attention"), pairs, strict=True):
                assert float(other.std()) > 1e-3
                torch.testing.assert_close(
                    mine, other, atol=1e-4, rtol=0, msg=lambda text, what=what: f"{what}: {text}"
                )


def original_dinov3(*, gated: bool, biased: bool = True) -> State:
    """Names and shapes of the authors' files, written out from their code."""
    hidden = 4 * DIM
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM),
        "storage_tokens": (1, 4, DIM),
        "mask_token": (1, DIM),
        "rope_embed.periods": (4,),
        "patch_embed.proj.weight": (DIM, 3, 16, 16),
        "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
    }
    mlp = {"w1": (hidden, DIM), "w2": (hidden, DIM), "w3": (DIM, hidden)}
    mlp = mlp if gated else {"fc1": (hidden, DIM), "fc2": (DIM, hidden)}
    for i in range(DEPTH):
        linear = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)} | {f"mlp.{name}": mlp[name] for name in mlp}
        shapes |= {f"blocks.{i}.{name}.weight": shape for name, shape in linear.items()}
        shapes |= {f"blocks.{i}.{name}.bias": shape[:1] for name, shape in linear.items()}
        shapes |= {f"blocks.{i}.norm{n}.{kind}": (DIM,) for n in (1, 2) for kind in ("weight", "bias")}
        shapes |= {f"blocks.{i}.ls{n}.gamma": (DIM,) for n in (1, 2)}
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for i in range(DEPTH):
        name = f"blocks.{i}.attn.qkv.bias"
        state[f"{name}_mask"] = torch.ones(3 * DIM)
        state[f"{name}_mask"][DIM : 2 * DIM] = 0
        if not biased:
            state[name] = torch.zeros(3 * DIM)
    return state


@pytest.mark.parametrize("gated", [False, True])
def test_original_dinov3_converts_as_timm_converts_it(gated: bool) -> None:
    case = replace(DINOV3, timm_name=f"vit_small_{'plus_' if gated else ''}patch16_dinov3_qkvb")
    raw = original_dinov3(gated=gated)
    expected = checkpoint_filter_fn(raw, make_ours(case))
    found = convert_state_dict(
        {f"backbone.{name}": tensor for name, tensor in raw.items()} | {"dino_head.w": raw["norm.bias"]}
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_dinov3_without_bias_takes_a_file_whose_bias_is_zero_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "dinov3.pth"
    torch.save(original_dinov3(gated=False, biased=False), path)
    load_weights(make_ours(DINOV3), path)
    torch.save(original_dinov3(gated=False), path)
    with pytest.raises(WeightsError, match=r"blocks\.0\.attn\.q_bias \(48,\) is not expected"):
        load_weights(make_ours(DINOV3), path)
    raw = original_dinov3(gated=False)
    del raw["blocks.1.attn.qkv.bias_mask"]
    torch.save(raw, path)
    with pytest.raises(WeightsError, match=r"dinov3\.pth: blocks\.1\.attn has a bias of its keys that is not zero"):
        load_weights(make_ours(DINOV3), path)


def test_unknown_names_are_refused_with_the_names_expected(transformers: Any, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"visual.conv\n1.weight": torch.zeros(2), "b": torch.zeros(2)}, path)
    with pytest.raises(WeightsError) as caught:
        load_weights(make_ours(CASES["dinov2"]), path)
    for part in (str(path), "patch_embed.proj.weight", "embeddings.patch_embeddings.weight", "visual.conv?1.weight"):
        assert part in str(caught.value)
    assert recognise(path) is None

    state = make_theirs(transformers, CASES["dinov2"]).state_dict()
    torch.save({**state, "encoder.layer.0.attention.gate.weight": torch.zeros(2)}, path)
    message = (
        r"encoder\.layer\.0\.attention\.gate\.weight \(2,\) is not expected: .* transformers' ViTModel and Dinov2Model"
    )
    with pytest.raises(WeightsError, match=message):
        load_weights(make_ours(CASES["dinov2"]), path)


@pytest.mark.parametrize("wrong", [torch.zeros(DIM, DIM + 1), torch.zeros(()), None])
def test_queries_and_keys_of_unequal_shapes_are_named(
    transformers: Any, tmp_path: Path, wrong: torch.Tensor | None
) -> None:
    path = tmp_path / "damaged.pth"
    state = load_file(save(make_theirs(transformers, CASES["dinov2"]), "published", tmp_path))
    damaged = {**state, "encoder.layer.1.attention.attention.key.weight": wrong}
    torch.save({name: tensor for name, tensor in damaged.items() if tensor is not None}, path)
    with pytest.raises(WeightsError, match=r"damaged\.pth: blocks\.1\.attn\.q\.weight and its companions"):
        load_weights(make_ours(CASES["dinov2"]), path)


def test_the_teacher_is_taken_where_a_file_holds_both_networks() -> None:
    names = ("patch_embed.proj.weight", "blocks.0.11.mlp.w12.bias")  # blocks in chunks, as DINOv2 trains
    networks = ("student.backbone", "teacher.backbone")
    raw = {f"{network}.{name}": torch.full((1,), float(i)) for i, network in enumerate(networks) for name in names}
    converted = convert_state_dict(raw)
    assert converted == {"patch_embed.proj.weight": torch.ones(1), "blocks.11.mlp.fc1.bias": torch.ones(1)}
    with pytest.raises(WeightsError, match=r"more than one network in the file: a\.patch.* and b\.patch"):
        convert_state_dict({f"{network}.{names[0]}": torch.zeros(1) for network in ("a", "b")})


@pytest.mark.parametrize("name", [name for name, spec in VIT_SPECS.items() if timm.is_model(spec.timm_name)])
def test_every_architecture_is_told_from_its_names_and_shapes(name: str) -> None:
    """At full size, without a byte of weights."""
    state = weights_module.build_empty(VIT_SPECS[name]).state_dict()
    assert weights_module._recognise(convert_state_dict(state)) is VIT_SPECS[name]


def test_recognise_tells_patch_depth_registers_and_gated_mlp_in_every_layout(
    transformers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = {name: case for name, case in CASES.items() if name not in ("dinov2 giant", "siglip gap")}
    specs = {name: tiny_spec(name, case) for name, case in cases.items()}
    deeper = replace(CASES["dinov3"], overrides=(("depth", DEPTH + 1),))
    monkeypatch.setattr(weights_module, "VIT_SPECS", {"deeper": tiny_spec("deeper", deeper), **specs})
    monkeypatch.setattr(weights_module, "build_empty", lambda spec: make_ours(CASES.get(spec.name, deeper)))
    for name, case in cases.items():
        assert recognise(save(make_theirs(transformers, case), "published", tmp_path)) is specs[name]
    torch.save({"teacher": original_dinov3(gated=True, biased=False)}, tmp_path / "original.pth")
    assert recognise(tmp_path / "original.pth") is specs["dinov3 plus"]
