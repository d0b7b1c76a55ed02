"""Stage 0 with a frozen vision transformer: tokens, last-block keys and CLS attention from one pass (spec A0, A1.1).

Shapes: ``N`` images of a batch, ``T`` all tokens, ``P = h * w`` patch tokens, ``D`` width, ``A`` heads, ``d = D / A``.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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
    lock : threading.Lock
        Held during a pass: a pass puts hooks and the position embedding of its own grid into the module.
    """

    spec: VitSpec
    module: Vit
    weights_sha256: str
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)


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
        self.module = vit.module
        self._lock = vit.lock
        self._pos_1TD: nn.Parameter | None = None
        if isinstance(vit.module, Beit):
            self.module = _resized(vit.module, self.size_px, spec.name)
        elif vit.module.pos_embed is not None:
            prefix = 0 if vit.module.no_embed_class else spec.prefix_tokens
            pos_1TD = resize_pos_embed(vit.module.pos_embed, self.grid_hw[0], prefix=prefix, rule=spec.pos_embed)
            self._pos_1TD = nn.Parameter(pos_1TD.to(device), requires_grad=False)
        self._device = device
        self._is_debiased = debias
        self.batch_size = 1 if device.type == "cpu" else batch_size
        self.precision = precision
        # torch's fused attention does not use the instructions; plain products do, and hold all scores of a block
        tokens = self.grid_hw[0] * self.grid_hw[1]
        self._is_eager = precision == BFLOAT16 and device.type == "cpu" and tokens <= _MOST_EAGER_TOKENS

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
        with (
            self._lock,
            _position_embedding(module, self._pos_1TD),
            _eager_attention(module) if self._is_eager else contextlib.nullcontext(),
            _record_last_block(module) as recorded,
            self._arithmetic(),
        ):
            tokens_NTD: torch.Tensor = module.forward_features(pixels_N3HW)
        kept = {name: values.float() for name, values in recorded.items()}
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


def _resized(module: Beit, size_px: int, name: str) -> Beit:
    """Copy a module whose relative positions are tables, for another picture size, by timm's rule."""
    if not hasattr(module, "set_input_size"):
        raise ConfigError(f"backbone {name}: timm >= 1.0.31 can fit it to {size_px} px; update timm")
    module = copy.deepcopy(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on how timm interpolates
        module.set_input_size((size_px, size_px))
    return module


@contextlib.contextmanager
def _position_embedding(module: Vit, pos_1TD: nn.Parameter | None) -> Iterator[None]:
    """Let the module see the position embedding of the grid in use; the stored one is put back."""
    if pos_1TD is None:
        yield
        return
    stored, module.pos_embed = module.pos_embed, pos_1TD
    try:
        yield
    finally:
        module.pos_embed = stored


@contextlib.contextmanager
def _eager_attention(module: Vit) -> Iterator[None]:
    """Have every block form its attention by plain products of matrices during a pass."""
    attentions: list[Any] = [getattr(block, "attn", None) for block in module.blocks]
    fused = [attention for attention in attentions if getattr(attention, "fused_attn", False)]
    for attention in fused:
        attention.fused_attn = False
    try:
        yield
    finally:
        for attention in fused:
            attention.fused_attn = True


def _record_last_block(module: Vit) -> contextlib.AbstractContextManager[dict[str, torch.Tensor]]:
    """Catch what the last block attends by: see the two below; nothing where its blocks are of another kind."""
    if not isinstance(module, VisionTransformer):
        return _record_last_attention(module)
    # by its name: the class has moved from one version of timm to another
    if type(getattr(module.blocks[-1], "attn", None)).__name__ == "Attention":
        return _record_last_query_key(module)
    return contextlib.nullcontext({})


@contextlib.contextmanager
def _record_last_attention(module: Vit) -> Iterator[dict[str, torch.Tensor]]:
    """Catch ``keys`` (N, T, K) and CLS's ``attn`` (N, A, T) of the last block, whatever turns or shifts its scores.

    That block forms its attention eagerly during the pass; its keys are those before any rotation.
    """
    attention: Any = module.get_submodule(f"blocks.{len(module.blocks) - 1}.attn")
    recorded: dict[str, torch.Tensor] = {}

    def keep_keys(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        recorded["keys"] = _keys_of(attention, args[0])

    def keep_attention(_module: nn.Module, _args: object, output: torch.Tensor) -> None:
        recorded["attn"] = output[:, :, 0]

    handles = [
        attention.register_forward_pre_hook(keep_keys),
        attention.attn_drop.register_forward_hook(keep_attention),
    ]
    is_fused, attention.fused_attn = attention.fused_attn, False
    try:
        yield recorded
    finally:
        attention.fused_attn = is_fused
        for handle in handles:
            handle.remove()


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


@contextlib.contextmanager
def _record_last_query_key(module: VisionTransformer) -> Iterator[dict[str, torch.Tensor]]:
    """Catch queries and keys of the last block, (N, A, T, d), during a pass.

    Fused attention forms no attention matrix and never calls its dropout, so there is nothing later to catch;
    `q_norm` and `k_norm` are called by every timm ViT, as identities where the architecture has no such norm.
    """
    recorded: dict[str, torch.Tensor] = {}

    def keep(name: str, norm: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _args: object, output: torch.Tensor) -> None:
            recorded[name] = output

        return norm.register_forward_hook(hook)

    attention = f"blocks.{len(module.blocks) - 1}.attn"
    handles = [keep(name, module.get_submodule(f"{attention}.{name}_norm")) for name in ("q", "k")]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _to_picture(image: ByteArray, size_px: int, spec: VitSpec) -> FloatArray:
    """Resize, normalise, channels first: float32, (3, size_px, size_px)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(f"an image to encode must be uint8 RGB of shape (H, W, 3), got {image.dtype} {image.shape}")
    resized = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
    picture_HW3 = np.asarray(resized, dtype=np.float32) / np.float32(255)
    mean, std = (np.array(values, dtype=np.float32) for values in (spec.mean, spec.std))
    normalised_HW3 = (picture_HW3 - mean) / std
    return np.ascontiguousarray(normalised_HW3.transpose(2, 0, 1))
