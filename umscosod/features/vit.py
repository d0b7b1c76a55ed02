"""Stage 0 with a frozen vision transformer: tokens, last-block keys and CLS attention from one pass (spec A0, A1.1).

Shapes: ``N`` images of a batch, ``T`` all tokens, ``P = h * w`` patch tokens, ``D`` width, ``A`` heads, ``d = D / A``.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.models import Beit, VisionTransformer
from torch import nn
from torch.nn.functional import linear, normalize

from umscosod.device import BFLOAT16, FLOAT32
from umscosod.errors import ConfigError, DataError
from umscosod.features.architectures import Vit, build_unset
from umscosod.features.debias import place_directions, remove_directions
from umscosod.features.specs import VitSpec, vit_id
from umscosod.features.weights import load_weights, resize_pos_embed
from umscosod.types import ByteArray, EncodedImage, FloatArray

_MOST_AT_ONCE = 8  # pictures
_MOST_TOKENS_AT_ONCE = 12_800  # of all pictures; the scores of as many and 16 heads, formed eagerly, take 0.7 GB
_MOST_EAGER_TOKENS = 1_600  # 40 x 40; the scores of 16 heads then take 0.1 GB


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedVit:
    """A module with its weights, to be shared by backbones that differ in size only.

    Attributes
    ----------
    spec : VitSpec
    module : Vit
        Frozen, in eval mode, on its device. Its position embedding is the stored one, of any square grid.
    weights_sha256 : str
    """

    spec: VitSpec
    module: Vit
    weights_sha256: str


def load_vit(spec: VitSpec, weights: Path, device: torch.device) -> LoadedVit:
    """Build, load, freeze.

    Raises
    ------
    WeightsError
        The file cannot be read or does not fit.
    """
    module = build_unset(spec)
    sha256 = load_weights(module, weights)
    module.eval().requires_grad_(False).to(device)
    return LoadedVit(spec=spec, module=module, weights_sha256=sha256)


class VitBackbone:
    """A `umscosod.features.backbone.Backbone` over a frozen ViT at one picture size.

    Parameters
    ----------
    vit : LoadedVit
    size_px : int
        Side of the square picture, rounded to a multiple of the patch.
    device : torch.device
        Where `vit` lies.
    batch_size : int
        Images per pass on an accelerator. On the CPU images go one by one: there a pass over several gives other bits
        than passes over each.
    debias : bool
        Take out of the tokens what they share by place alone, see `umscosod.features.debias`.
    precision : {"float32", "bfloat16"}
        Arithmetic of products of matrices; sums along the blocks, norms and results stay float32.

    Raises
    ------
    ConfigError
        The architecture takes no other size than its own.

    Notes
    -----
    Pictures: PIL bilinear to the square, aspect not kept, the model's own mean and deviation (spec A0). Equal ids and
    equal precisions mean equal bits on CPUs of one kind, comparable tokens elsewhere.
    The position embedding is resized to the grid as the authors of the architecture do, `VitSpec.pos_embed`; rotary
    positions are made for the grid. Keys are those of the last block before any rotation, so that they say what is
    there, not where. The attention is the last block's of CLS; a model without CLS token, or whose blocks form no
    plain attention, gives `border_contrast` instead, as one head.
    Every pass has the same number of images, a short one being filled up: kernels are chosen by shape, so that an
    image's tokens do not depend on how many came with it, or on which of them came from a cache.
    """

    needs_whitening = False
    is_centred = False
    has_attention = True

    def __init__(
        self,
        vit: LoadedVit,
        *,
        size_px: int,
        device: torch.device,
        batch_size: int = 8,
        debias: bool = False,
        precision: str = FLOAT32,
    ) -> None:
        spec = vit.spec
        self.spec = spec
        self.size_px = spec.round_px(size_px)
        self.name = spec.name
        self.weights_sha256 = vit.weights_sha256
        self.dim = spec.dim
        self.is_label_free = spec.is_label_free
        self.grid_hw = (self.size_px // spec.patch_px,) * 2
        self.id = vit_id(spec, vit.weights_sha256, size_px, debias=debias)
        self.module = _own_modules(vit.module)
        if isinstance(self.module, Beit):
            _fit(self.module, self.size_px, spec.name)
        elif self.module.pos_embed is not None:
            prefix = 0 if self.module.no_embed_class else spec.prefix_tokens
            pos_1TD = resize_pos_embed(self.module.pos_embed, self.grid_hw[0], prefix=prefix, rule=spec.pos_embed)
            self.module.pos_embed = nn.Parameter(pos_1TD.to(device), requires_grad=False)
        self._device = device
        self._is_debiased = debias
        is_on_cpu = device.type == "cpu"
        self.batch_size = 1 if is_on_cpu else batch_size
        self.at_once = _count_at_once(self.grid_hw[0] * self.grid_hw[1]) if is_on_cpu else 1
        self.precision = precision
        if precision == BFLOAT16 and is_on_cpu and self.grid_hw[0] * self.grid_hw[1] <= _MOST_EAGER_TOKENS:
            _attend_eagerly(self.module.blocks)
        self._caught = _watch_last_block(self.module)

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Encode RGB images; see `umscosod.features.backbone.Backbone.encode`.

        Raises
        ------
        DataError
            An image is not uint8 of shape (H, W, 3).
        """
        encoded: list[EncodedImage] = []
        for start in range(0, len(images), self.batch_size):
            encoded += self._encode_batch(images[start : start + self.batch_size])
        return encoded

    def _encode_batch(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        with torch.inference_mode():
            found = self.compute(self._to_batch(images))
            tokens, keys, attn = (values.to("cpu", torch.float16).contiguous().numpy() for values in found)
        return [
            EncodedImage(tokens_PD=tokens[i], keys_PK=keys[i], attn_AP=attn[i], grid_hw=self.grid_hw)
            for i in range(len(images))
        ]

    def _to_batch(self, images: Sequence[ByteArray]) -> torch.Tensor:
        pixels_N3HW = np.zeros((self.batch_size, 3, self.size_px, self.size_px), np.float32)
        for index, image in enumerate(images):
            pixels_N3HW[index] = self.to_pixels(image)
        return torch.from_numpy(pixels_N3HW).to(self._device)

    def to_pixels(self, image: ByteArray) -> FloatArray:
        """Resize and normalise an RGB image, uint8 (H, W, 3): float32, (3, size_px, size_px).

        Raises
        ------
        DataError
            It is not uint8 of shape (H, W, 3).
        """
        return _to_picture(image, self.size_px, self.spec)

    def compute(self, pixels_N3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the module on pictures that `to_pixels` made.

        Parameters
        ----------
        pixels_N3HW : Tensor, float32, (N, 3, size_px, size_px)
            On the backbone's device.

        Returns
        -------
        tuple of Tensor
            Final tokens (N, P, D), and the last block's keys (N, P, K) and attention (N, A, P).
        """
        tokens_NTD, keys_NPK, attn_NAP = self._pass(pixels_N3HW)
        tokens_NPD = tokens_NTD[:, self.spec.prefix_tokens :]
        if self._is_debiased:
            tokens_NPD = remove_directions(tokens_NPD, self._place_directions)
        return tokens_NPD, keys_NPK, attn_NAP

    @cached_property
    def _place_directions(self) -> torch.Tensor:
        prefix = self.spec.prefix_tokens
        found_DR = place_directions(lambda pictures: self._forward(pictures)[0][:, prefix:], self.size_px)
        return found_DR.to(self._device)

    def _forward(self, images: Sequence[ByteArray]) -> tuple[torch.Tensor, ...]:
        return tuple(values[: len(images)] for values in self._pass(self._to_batch(images)))

    def _arithmetic(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == BFLOAT16:
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _pass(self, pixels_N3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the module: its final tokens (N, T, D), and the last block's keys (N, P, K) and attention (N, A, P)."""
        module, prefix = self.module, self.spec.prefix_tokens
        try:
            with self._arithmetic():
                tokens_NTD: torch.Tensor = module.forward_features(pixels_N3HW)
            kept = {name: values.float() for name, values in self._caught.tensors.items()}
        finally:
            self._caught.tensors = {}
        if "q" in kept:
            keys_NPK = kept["k"].transpose(1, 2).flatten(2)[:, prefix:]
            attn_NAP = cls_attention(kept["q"], kept["k"], prefix)
        elif "attn" in kept:
            keys_NPK, attn_NAP = kept["keys"][:, prefix:], kept["attn"][..., prefix:]
        else:
            keys_NPK = tokens_NTD[:, prefix:]
        if module.cls_token is None or not kept:
            attn_NAP = border_contrast(tokens_NTD[:, prefix:].float(), self.grid_hw)
        return tokens_NTD, keys_NPK, attn_NAP


def border_contrast(tokens_NPD: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
    """Stand in for a CLS attention: how far a patch is from what lies at the border of its picture.

    Parameters
    ----------
    tokens_NPD : Tensor, float32, (N, P, D)
    grid_hw : (int, int)

    Returns
    -------
    Tensor, float32, (N, 1, P), in [0, 1]
        One minus the mean cosine to the border's tokens, clipped.

    Examples
    --------
    >>> tokens = torch.tensor([[1.0, 0.0]] * 9)
    >>> tokens[4] = torch.tensor([0.0, 1.0])
    >>> border_contrast(tokens[None], (3, 3)).round()
    tensor([[[0., 0., 0., 0., 1., 0., 0., 0., 0.]]])
    """
    rows, columns = grid_hw
    at_border = [
        row * columns + column
        for row in range(rows)
        for column in range(columns)
        if row in (0, rows - 1) or column in (0, columns - 1)
    ]
    unit_NPD = normalize(tokens_NPD, dim=-1)
    mean_NDx1 = unit_NPD[:, at_border].mean(1)[..., None]
    contrast_NP = 1.0 - (unit_NPD @ mean_NDx1)[..., 0]
    return contrast_NP.clamp(0.0, 1.0)[:, None]


def cls_attention(q_NATd: torch.Tensor, k_NATd: torch.Tensor, prefix_tokens: int) -> torch.Tensor:
    """Attention of CLS to the patches: the softmax runs over all tokens, then prefix columns are cut (spec A1.1).

    Parameters
    ----------
    q_NATd, k_NATd : Tensor, (N, A, T, d)
        Queries and keys of one block; token 0 is CLS.
    prefix_tokens : int
        CLS and registers.

    Returns
    -------
    Tensor, (N, A, P)
        >= 0; each row sums to at most 1.

    Examples
    --------
    Equal keys share the attention equally among CLS and three patches:

    >>> cls_attention(torch.ones(1, 1, 4, 2), torch.ones(1, 1, 4, 2), prefix_tokens=1)
    tensor([[[0.2500, 0.2500, 0.2500]]])
    """
    scores_NA1T = q_NATd[:, :, :1] @ k_NATd.transpose(-2, -1) * q_NATd.shape[-1] ** -0.5
    attn_NAP: torch.Tensor = scores_NA1T.softmax(dim=-1)[:, :, 0, prefix_tokens:]
    return attn_NAP


def _count_at_once(tokens: int) -> int:
    """How many pictures of so many tokens are encoded at once: each has an equal number of torch's threads."""
    threads = torch.get_num_threads()
    most = max(1, min(_MOST_AT_ONCE, _MOST_TOKENS_AT_ONCE // tokens))
    return threads // -(-threads // most)


def _own_modules(module: Vit) -> Vit:
    """Copy the modules of a network, not its tensors: what is set or hooked in them concerns one backbone only."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


def _fit(module: Beit, size_px: int, name: str) -> None:
    """Fit a module whose relative positions are tables to another picture size, by timm's rule."""
    if not hasattr(module, "set_input_size"):
        raise ConfigError(f"backbone {name}: timm >= 1.0.31 can fit it to {size_px} px; update timm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on how timm interpolates
        module.set_input_size((size_px, size_px))


def _attend_eagerly(blocks: nn.Sequential | nn.ModuleList) -> None:
    """Have blocks form their attention by plain products of matrices.

    Torch's fused attention of the CPU has no use for instructions for bfloat16; products have. They hold all scores.
    """
    for block in blocks:
        attention: Any = getattr(block, "attn", None)
        if hasattr(attention, "fused_attn"):
            attention.fused_attn = False


class _Caught(threading.local):
    """What the last block attended by in the pass of this thread, by name."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}


def _watch_last_block(module: Vit) -> _Caught:
    """Catch what the last block attends by, in each pass from now on.

    Of a plain attention ``q`` and ``k``; of any other ``keys`` and ``attn``; nothing where the block has neither.
    """
    attention: Any = getattr(module.blocks[-1], "attn", None)
    if not isinstance(module, VisionTransformer):
        return _watch_attention(attention)
    # by its name: the class has moved from one version of timm to another
    return _watch_query_key(attention) if type(attention).__name__ == "Attention" else _Caught()


def _watch_attention(attention: Any) -> _Caught:
    """Catch ``keys`` (N, T, K) and CLS's ``attn`` (N, A, T), whatever turns or shifts its scores.

    The block forms its attention eagerly from now on; its keys are those before any rotation.
    """
    caught = _Caught()

    def keep_keys(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        caught.tensors["keys"] = _keys_of(attention, args[0])

    def keep_attention(_module: nn.Module, _args: object, output: torch.Tensor) -> None:
        caught.tensors["attn"] = output[:, :, 0]

    attention.fused_attn = False
    attention.register_forward_pre_hook(keep_keys)
    attention.attn_drop.register_forward_hook(keep_attention)
    return caught


def _keys_of(attention: Any, x_NTD: torch.Tensor) -> torch.Tensor:
    """Project a block's input to its keys, (N, T, K), normed where it norms them."""
    if attention.qkv is None:
        keys_NTK: torch.Tensor = attention.k_proj(x_NTD)
    else:
        width = len(attention.qkv.weight) // 3
        bias_K = attention.qkv.bias
        bias_K = attention.k_bias if bias_K is None else bias_K[width : 2 * width]
        keys_NTK = linear(x_NTD, attention.qkv.weight[width : 2 * width], bias_K)
    if (norm := getattr(attention, "k_norm", None)) is not None:
        heads = getattr(attention, "num_kv_heads", attention.num_heads)
        keys_NTK = norm(keys_NTK.reshape(*keys_NTK.shape[:2], heads, -1)).flatten(2)
    return keys_NTK


def _watch_query_key(attention: Any) -> _Caught:
    """Catch ``q`` and ``k`` (N, A, T, d).

    Fused attention forms no attention matrix and never calls its dropout, so there is nothing later to catch;
    `q_norm` and `k_norm` are called by every timm ViT, as identities where the architecture has no such norm.
    """
    caught = _Caught()

    def keep(name: str, _module: nn.Module, _args: object, output: torch.Tensor) -> None:
        caught.tensors[name] = output

    attention.q_norm.register_forward_hook(partial(keep, "q"))
    attention.k_norm.register_forward_hook(partial(keep, "k"))
    return caught


def _to_picture(image: ByteArray, size_px: int, spec: VitSpec) -> FloatArray:
    """Resize, normalise, channels first: float32, (3, size_px, size_px)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(f"an image to encode must be uint8 RGB of shape (H, W, 3), got {image.dtype} {image.shape}")
    resized = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
    picture_HW3 = np.asarray(resized, dtype=np.float32) / np.float32(255)
    mean, std = (np.array(values, dtype=np.float32) for values in (spec.mean, spec.std))
    normalised_HW3 = (picture_HW3 - mean) / std
    return np.ascontiguousarray(normalised_HW3.transpose(2, 0, 1))
