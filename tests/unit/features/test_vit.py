"""One pass of a ViT: what comes out equals an eager recomputation written from the definition."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch.nn.functional import gelu, interpolate, layer_norm

from tests.synthetic import tiny_collection
from umscosod.config import PipelineConfig
from umscosod.data.groups import groups_from_folder
from umscosod.device import choose_precision
from umscosod.errors import DataError
from umscosod.features import vit as vit_module
from umscosod.features.architectures import Vit
from umscosod.features.backbone import BackbonePair
from umscosod.features.cache import FeatureCache
from umscosod.features.collection import encode_collection
from umscosod.features.specs import VIT_SPECS, VitSpec
from umscosod.features.vit import LoadedVit, VitBackbone, cls_attention, load_vit
from umscosod.features.weights import resize_pos_embed
from umscosod.types import ByteArray, EncodedImage

CPU = torch.device("cpu")
NAMES = tuple(name for name in VIT_SPECS if name.startswith(("dino_", "dinov2_")))  # those `eager` defines
Make = Callable[[str], Vit]


@pytest.fixture
def load(make_tiny: Make, tiny_specs: dict[str, VitSpec]) -> Callable[[str], LoadedVit]:
    return lambda name: LoadedVit(spec=tiny_specs[name], module=make_tiny(name), weights_sha256="0" * 64)


def normalised(image: ByteArray, size_px: int) -> torch.Tensor:
    resized = np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR), np.float64)
    picture = (resized / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(picture.transpose(2, 0, 1)[None]).float()


def eager(w: dict[str, torch.Tensor], spec: VitSpec, picture: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The transformer from its definition, one picture: tokens (P, D), keys (P, D), attention (A, P), raw qkv."""
    patch, dim, heads = spec.patch_px, spec.dim, dict(spec.overrides)["num_heads"]
    side = picture.shape[-1] // patch
    patches = picture[0].reshape(3, side, patch, side, patch).permute(1, 3, 0, 2, 4).reshape(side * side, -1)
    x = patches @ w["patch_embed.proj.weight"].reshape(dim, -1).T + w["patch_embed.proj.bias"]
    pos = w["pos_embed"][0]
    slots = pos.shape[0] - 16
    grid = pos[slots:].reshape(1, 4, 4, dim).permute(0, 3, 1, 2)
    if side != 4 and "reg_token" in w:
        grid = interpolate(grid, (side, side), mode="bicubic", antialias=True)
    elif side != 4:
        grid = interpolate(grid, scale_factor=((side + 0.1) / 4,) * 2, mode="bicubic")
    x = x + grid[0].permute(1, 2, 0).reshape(-1, dim)
    cls = w["cls_token"][0] + (pos[:1] if slots else 0)
    x = torch.cat([cls, *([w["reg_token"][0]] if "reg_token" in w else []), x])
    for i in range(2):
        b = {name.removeprefix(f"blocks.{i}."): value for name, value in w.items() if name.startswith(f"blocks.{i}.")}
        h = layer_norm(x, (dim,), b["norm1.weight"], b["norm1.bias"], 1e-6)
        qkv = h @ b["attn.qkv.weight"].T + b["attn.qkv.bias"]
        q, k, v = (part.reshape(len(x), heads, -1).transpose(0, 1) for part in qkv.chunk(3, dim=1))
        attn = (q @ k.transpose(1, 2) / (dim / heads) ** 0.5).softmax(-1)
        h = (attn @ v).transpose(0, 1).reshape(len(x), dim) @ b["attn.proj.weight"].T + b["attn.proj.bias"]
        x = x + h * b.get("ls1.gamma", 1)
        h = layer_norm(x, (dim,), b["norm2.weight"], b["norm2.bias"], 1e-6)
        h = gelu(h @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"]) @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"]
        x = x + h * b.get("ls2.gamma", 1)
    tokens = layer_norm(x, (dim,), w["norm.weight"], w["norm.bias"], 1e-6)
    cut = spec.prefix_tokens
    return tokens[cut:], qkv[cut:, dim : 2 * dim], attn[:, 0, cut:], qkv


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("patches", [4, 6])
def test_encode_equals_the_definition(
    load: Callable[[str], LoadedVit], pictures: list[ByteArray], name: str, patches: int
) -> None:
    vit = load(name)
    size_px = patches * vit.spec.patch_px
    encoded = VitBackbone(vit, size_px=size_px, device=CPU).encode(pictures[:1])[0]
    tokens, keys, attn, _ = eager(vit.module.state_dict(), vit.spec, normalised(pictures[0], size_px))
    assert encoded.grid_hw == (patches, patches)
    assert {encoded.tokens_PD.dtype, encoded.keys_PK.dtype, encoded.attn_AP.dtype} == {np.dtype(np.float16)}
    np.testing.assert_allclose(encoded.tokens_PD, tokens, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(encoded.keys_PK, keys, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(encoded.attn_AP, attn, rtol=2e-3, atol=1e-5)
    assert attn.std() > 1e-3  # uniform attention would match too easily


@pytest.mark.parametrize("name", NAMES)
def test_attention_and_keys_before_rounding_are_within_1e_5(
    load: Callable[[str], LoadedVit], pictures: list[ByteArray], name: str
) -> None:
    vit = load(name)
    picture = normalised(pictures[0], vit.spec.native_px)
    recorded = vit_module._watch_query_key(vit.module.blocks[-1].attn).tensors
    with torch.inference_mode():
        vit.module.forward_features(picture)
        attn = cls_attention(recorded["q"], recorded["k"], vit.spec.prefix_tokens)[0]
    _, _, expected, qkv = eager(vit.module.state_dict(), vit.spec, picture)
    torch.testing.assert_close(attn, expected, atol=1e-5, rtol=0)
    keys = recorded["k"][0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(keys, qkv[:, vit.spec.dim : 2 * vit.spec.dim], atol=1e-4, rtol=1e-4)


def test_softmax_counts_prefix_tokens() -> None:
    q = torch.zeros(1, 1, 7, 2)
    attn = cls_attention(q, q, prefix_tokens=5)
    torch.testing.assert_close(attn, torch.full((1, 1, 2), 1 / 7))


def test_key_norm_is_part_of_the_keys(pictures: list[ByteArray]) -> None:
    """Architectures with a norm on q and k: what attention really uses is recorded."""
    torch.manual_seed(0)
    module = timm.create_model("test_vit", num_classes=0, img_size=32, qk_norm=True, depth=1).eval()
    recorded = vit_module._watch_query_key(module.blocks[-1].attn).tensors
    with torch.inference_mode():
        module.forward_features(normalised(pictures[0], 32))
    assert recorded["k"].std(-1).mean() == pytest.approx(1.0, abs=0.05)


def test_one_pass_and_no_hooks_in_the_module_that_is_shared(
    load: Callable[[str], LoadedVit], pictures: list[ByteArray]
) -> None:
    vit = load("dinov2_vits14_reg")
    passes: list[int] = []
    vit.module.patch_embed.register_forward_hook(lambda _m, _a, out: passes.append(len(out)))
    backbone = VitBackbone(vit, size_px=56, device=CPU)
    backbone.encode(pictures)
    assert sum(passes) == len(pictures)
    attention = vit.module.blocks[-1].attn
    assert not attention.q_norm._forward_hooks
    assert not attention.k_norm._forward_hooks
    assert backbone._caught.tensors == {}  # nothing of the last pass is held


def test_a_failed_pass_leaves_nothing_behind(
    load: Callable[[str], LoadedVit], pictures: list[ByteArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = VitBackbone(load("dino_vits8"), size_px=32, device=CPU)
    whole = backbone.encode(pictures[:1])[0]

    def fail(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(backbone.module.norm, "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            backbone.encode(pictures)
    assert backbone._caught.tensors == {}
    np.testing.assert_array_equal(backbone.encode(pictures[:1])[0].tokens_PD, whole.tokens_PD)


def test_passes_in_several_threads_do_not_mix(load: Callable[[str], LoadedVit], pictures: list[ByteArray]) -> None:
    vit = load("dinov2_vits14")
    pair = [VitBackbone(vit, size_px=size, device=CPU, precision="bfloat16") for size in (112, 56)]

    def encode(picture: ByteArray) -> list[EncodedImage]:
        return [backbone.encode([picture])[0] for backbone in pair]

    wanted = [encode(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as threads:
        for ours, theirs in zip(threads.map(encode, pictures * 20), wanted * 20, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one.tokens_PD, other.tokens_PD)
                np.testing.assert_array_equal(one.keys_PK, other.keys_PK)
                np.testing.assert_array_equal(one.attn_AP, other.attn_AP)


def test_bits_repeat_and_do_not_depend_on_neighbours(
    load: Callable[[str], LoadedVit], pictures: list[ByteArray]
) -> None:
    backbone = VitBackbone(load("dino_vitb8"), size_px=48, device=CPU, batch_size=8)
    together = backbone.encode(pictures)
    alone = [backbone.encode([picture])[0] for picture in pictures]
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_array_equal(first.tokens_PD, second.tokens_PD)
        np.testing.assert_array_equal(first.keys_PK, second.keys_PK)
        np.testing.assert_array_equal(first.attn_AP, second.attn_AP)
    assert backbone.encode([]) == []


def test_accelerator_batches_keep_the_order(
    load: Callable[[str], LoadedVit], pictures: list[ByteArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = VitBackbone(load("dino_vits8"), size_px=32, device=CPU)
    single = backbone.encode(pictures)
    monkeypatch.setattr(backbone, "batch_size", 2)
    for first, second in zip(single, backbone.encode(pictures), strict=True):
        np.testing.assert_allclose(first.tokens_PD, second.tokens_PD, atol=2e-3)


@pytest.mark.parametrize("name", ["dino_vitb8", "dinov2_vits14_reg"])
def test_an_images_bits_in_a_batch_do_not_depend_on_the_others(
    load: Callable[[str], LoadedVit], pictures: list[ByteArray], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    backbone = VitBackbone(load(name), size_px=56, device=CPU)
    monkeypatch.setattr(backbone, "batch_size", 4)  # as on an accelerator
    alone = [backbone.encode([picture])[0] for picture in pictures]
    for encoded in (backbone.encode(pictures), backbone.encode(pictures[::-1])[::-1], backbone.encode(pictures * 2)):
        for first, second in zip(alone, encoded, strict=False):
            np.testing.assert_array_equal(first.tokens_PD, second.tokens_PD)
            np.testing.assert_array_equal(first.keys_PK, second.keys_PK)
            np.testing.assert_array_equal(first.attn_AP, second.attn_AP)


def _least_cosine(first: EncodedImage, second: EncodedImage) -> float:
    one, other = (encoded.tokens_PD.astype(float) for encoded in (first, second))
    return float(((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min())


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_on_the_cpu_gives_tokens_of_the_same_direction_and_bits_that_repeat(
    load: Callable[[str], LoadedVit], pictures: list[ByteArray], name: str
) -> None:
    vit = load(name)
    fused = [block.attn.fused_attn for block in vit.module.blocks]
    exact, fast = (VitBackbone(vit, size_px=56, device=CPU, precision=word) for word in ("float32", "bfloat16"))
    assert fast.id == exact.id  # a network that learnt from the one may be used with the other
    for ours, once, again in zip(exact.encode(pictures), fast.encode(pictures), fast.encode(pictures), strict=True):
        assert not np.array_equal(ours.tokens_PD, once.tokens_PD)
        assert _least_cosine(ours, once) > 0.999
        np.testing.assert_allclose(once.attn_AP.astype(float), ours.attn_AP, rtol=0.05, atol=1e-3)
        np.testing.assert_array_equal(once.tokens_PD, again.tokens_PD)
        np.testing.assert_array_equal(once.keys_PK, again.keys_PK)
    assert [block.attn.fused_attn for block in vit.module.blocks] == fused


@pytest.mark.parametrize(
    ("threads", "tokens", "at_once"),
    [(1, 784, 1), (2, 784, 2), (12, 784, 6), (16, 784, 8), (11, 784, 5), (16, 6_000, 2), (16, 16_000, 1)],
)
def test_pictures_at_once_share_the_threads_and_are_few_where_tokens_are_many(
    monkeypatch: pytest.MonkeyPatch, threads: int, tokens: int, at_once: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert vit_module._count_at_once(tokens) == at_once


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bits_do_not_depend_on_how_many_pictures_are_encoded_at_once(
    load: Callable[[str], LoadedVit], tmp_path: Path, precision: str
) -> None:
    tiny_collection(tmp_path, groups=2, images=4, size=64)
    groups = list(groups_from_folder(tmp_path / "image"))
    before, stored = torch.get_num_threads(), []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            first, second = (
                VitBackbone(load("dinov2_vits14"), size_px=size, device=CPU, precision=precision) for size in (112, 56)
            )
            assert first.at_once == threads
            cache = FeatureCache(tmp_path / f"cache-{threads}")
            encode_collection(groups, BackbonePair(first=first, second=second), PipelineConfig(), cache)
            files = {path.name: load_file(path) for path in cache.root.rglob("*.safetensors")}
            stored.append(
                {(name, part): array.tobytes() for name, parts in files.items() for part, array in parts.items()}
            )
    finally:
        torch.set_num_threads(before)
    assert len({name for name, _ in stored[0]}) == 3 * 8
    assert stored[0] == stored[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", NAMES)
def test_cuda_agrees_with_the_cpu(
    make_tiny: Make, tiny_specs: dict[str, VitSpec], pictures: list[ByteArray], tmp_path: Path, name: str
) -> None:
    path, spec, cuda = tmp_path / "weights.safetensors", tiny_specs[name], torch.device("cuda")
    save_file(make_tiny(name).state_dict(), path)
    on_cpu = VitBackbone(load_vit(spec, path, CPU), size_px=56, device=CPU).encode(pictures)
    precision = choose_precision("auto", cuda)
    on_cuda = VitBackbone(load_vit(spec, path, cuda), size_px=56, device=cuda, batch_size=2, precision=precision)
    for first, second in zip(on_cpu, on_cuda.encode(pictures), strict=True):
        # bfloat16 keeps 8 bits of each product: directions agree, last digits do not
        assert _least_cosine(first, second) > 0.99
        np.testing.assert_allclose(first.attn_AP, second.attn_AP, atol=0.05)


def test_one_module_serves_two_sizes(load: Callable[[str], LoadedVit], pictures: list[ByteArray]) -> None:
    vit = load("dinov2_vits14")
    fine, coarse = (VitBackbone(vit, size_px=size, device=CPU) for size in (392, 224))
    assert (fine.grid_hw, coarse.grid_hw) == ((28, 28), (16, 16))
    assert fine.id != coarse.id
    assert (fine.name, fine.dim, fine.needs_whitening) == ("dinov2_vits14", 32, False)
    before = coarse.encode(pictures[:1])[0].tokens_PD
    fine.encode(pictures[:1])
    np.testing.assert_array_equal(before, coarse.encode(pictures[:1])[0].tokens_PD)
    assert vit.module.pos_embed.shape == (1, 1 + 16, 32)  # the stored one stays in its place


@pytest.mark.parametrize("name", ["dino_vits8", "dinov2_vits14_reg"])
def test_a_file_of_another_native_grid_is_resized_once_from_its_own_grid(
    make_tiny: Make, tiny_specs: dict[str, VitSpec], pictures: list[ByteArray], tmp_path: Path, name: str
) -> None:
    spec, path = tiny_specs[name], tmp_path / "weights.safetensors"
    module = make_tiny(name)
    slots = 0 if spec.prefix_tokens == 5 else 1
    generator = torch.Generator().manual_seed(1)
    stored = torch.randn(1, slots + 36, spec.dim, generator=generator)
    save_file({**module.state_dict(), "pos_embed": stored}, path)
    vit = load_vit(spec, path, CPU)
    assert torch.equal(vit.module.pos_embed, stored)
    small = VitBackbone(vit, size_px=5 * spec.patch_px, device=CPU).encode(pictures[:1])[0]
    resized = resize_pos_embed(stored, 5, prefix=slots, rule=spec.pos_embed)
    module.pos_embed = torch.nn.Parameter(resized)
    with torch.inference_mode():
        expected = module.forward_features(normalised(pictures[0], 5 * spec.patch_px))[0, spec.prefix_tokens :]
    np.testing.assert_allclose(small.tokens_PD, expected, rtol=2e-3, atol=2e-3)


def test_ids_tell_the_version_of_the_code_and_other_tokens(load: Callable[[str], LoadedVit]) -> None:
    vit = load("dino_vits8")
    plain, without_place = (VitBackbone(vit, size_px=32, device=CPU, debias=debias).id for debias in (False, True))
    assert plain == f"dino_vits8:{'0' * 64}:32px:last-tokens-keys-cls:code-v2"  # caches of earlier versions hold
    assert without_place == f"{plain}:debias-v1"


def test_size_is_rounded_to_the_patch(load: Callable[[str], LoadedVit]) -> None:
    assert VitBackbone(load("dinov2_vits14"), size_px=100, device=CPU).size_px == 98
    assert VitBackbone(load("dino_vits8"), size_px=100, device=CPU).size_px == 104


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_images_of_the_wrong_kind_are_refused(load: Callable[[str], LoadedVit], image: ByteArray) -> None:
    with pytest.raises(DataError, match="uint8 RGB"):
        VitBackbone(load("dino_vits8"), size_px=32, device=CPU).encode([image])


def test_loading_freezes_and_leaves_the_random_state(
    make_tiny: Make, tiny_specs: dict[str, VitSpec], tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(make_tiny("dino_vits8").state_dict(), path)
    before = torch.random.get_rng_state()
    vit = load_vit(tiny_specs["dino_vits8"], path, CPU)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not vit.module.training
    assert not any(parameter.requires_grad for parameter in vit.module.parameters())
    assert len(vit.weights_sha256) == 64


def test_table_imports_no_torch() -> None:
    code = "import sys, umscosod.features.specs, umscosod.estimate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
