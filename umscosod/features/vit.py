"""Stage 0 with a frozen vision transformer: tokens, last-block keys and CLS attention from one pass (spec A0, A1.1).

Shapes: ``N`` images of a batch, ``T`` all tokens, ``P = h * w`` patch tokens, ``D`` width, ``A`` heads, ``d = D / A``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.models import VisionTransformer
from torch import nn

from umscosod.device import autocast
from umscosod.errors import DataError
from umscosod.features.specs import IMAGENET_MEAN, IMAGENET_STD, VitSpec, vit_id
from umscosod.features.weights import load_weights, resize_pos_embed
from umscosod.types import ByteArray, EncodedImage, FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedVit:
    """A module with its weights, to be shared by backbones that differ in size only.

    Attributes
    ----------
    spec : VitSpec
    module : VisionTransformer
        Frozen, in eval mode, on its device. Its position embedding is the stored one, of any square grid.
    weights_sha256 : str
    lock : threading.Lock
        Held during a pass: a pass puts hooks and the position embedding of its own grid into the module.
    """

    spec: VitSpec
    module: VisionTransformer
    weights_sha256: str
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)


def build_vit(spec: VitSpec) -> VisionTransformer:
    """Make the architecture with random weights; the global random state is left as it was.

    It takes pictures of any size whose grid its position embedding has, and resizes none by itself.
    """
    overrides: dict[str, Any] = dict(spec.overrides)
    with torch.random.fork_rng(devices=[]):
        module = timm.create_model(
            spec.timm_name,
            pretrained=False,
            num_classes=0,
            img_size=spec.native_px,
            **overrides,
        )
    assert isinstance(module, VisionTransformer)
    module.patch_embed.strict_img_size = False
    return module


def load_vit(spec: VitSpec, weights: Path, device: torch.device) -> LoadedVit:
    """Build, load, freeze.

    Raises
    ------
    WeightsError
        The file cannot be read or does not fit.
    """
    module = build_vit(spec)
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

    Notes
    -----
    Pictures: PIL bilinear to the square, aspect not kept, ImageNet mean and deviation (spec A0). float32 on the CPU,
    bfloat16 autocast on CUDA where supported; equal ids mean equal bits on the CPU, comparable tokens elsewhere.
    The position embedding is resized to the grid as the authors of the architecture do, `VitSpec.pos_embed`.
    Every pass has the same number of images, a short one being filled up: kernels are chosen by shape, so that an
    image's tokens do not depend on how many came with it, or on which of them came from a cache.
    """

    needs_whitening = False
    is_centred = False
    has_attention = True

    def __init__(self, vit: LoadedVit, *, size_px: int, device: torch.device, batch_size: int = 8) -> None:
        spec = vit.spec
        self.spec = spec
        self.size_px = spec.round_px(size_px)
        self.name = spec.name
        self.weights_sha256 = vit.weights_sha256
        self.dim = spec.dim
        self.is_label_free = spec.is_label_free
        self.grid_hw = (self.size_px // spec.patch_px,) * 2
        self.id = vit_id(spec, vit.weights_sha256, size_px)
        self._vit = vit
        prefix = 0 if vit.module.no_embed_class else spec.prefix_tokens
        stored_1TD: torch.Tensor = vit.module.get_parameter("pos_embed")
        pos_1TD = resize_pos_embed(stored_1TD, self.grid_hw[0], prefix=prefix, rule=spec.pos_embed)
        self._pos_1TD = nn.Parameter(pos_1TD.to(device), requires_grad=False)
        self._device = device
        self.batch_size = 1 if device.type == "cpu" else batch_size

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
        prefix = self.spec.prefix_tokens
        with torch.inference_mode():
            tokens_NTD, q_NATd, k_NATd = self._forward(images)
            attn_NAP = cls_attention(q_NATd, k_NATd, prefix)
            keys_NPD = k_NATd.transpose(1, 2).flatten(2)[:, prefix:]
            found = (tokens_NTD[:, prefix:], keys_NPD, attn_NAP)
            tokens, keys, attn = (values.to("cpu", torch.float16).contiguous().numpy() for values in found)
        return [
            EncodedImage(tokens_PD=tokens[i], keys_PK=keys[i], attn_AP=attn[i], grid_hw=self.grid_hw)
            for i in range(len(images))
        ]

    def _forward(self, images: Sequence[ByteArray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the module: its final tokens (N, T, D), and queries and keys of the last block, (N, A, T, d)."""
        pictures_N3HW = np.zeros((self.batch_size, 3, self.size_px, self.size_px), np.float32)
        for index, image in enumerate(images):
            pictures_N3HW[index] = _to_picture(image, self.size_px)
        module = self._vit.module
        with (
            self._vit.lock,
            _position_embedding(module, self._pos_1TD),
            _record_last_query_key(module) as recorded,
            autocast(self._device),
        ):
            tokens_NTD: torch.Tensor = module.forward_features(torch.from_numpy(pictures_N3HW).to(self._device))
        tokens_NTD, q_NATd, k_NATd = (values[: len(images)] for values in (tokens_NTD, recorded["q"], recorded["k"]))
        return tokens_NTD, q_NATd.float(), k_NATd.float()


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


@contextlib.contextmanager
def _position_embedding(module: VisionTransformer, pos_1TD: nn.Parameter) -> Iterator[None]:
    """Let the module see the position embedding of the grid in use; the stored one is put back."""
    stored, module.pos_embed = module.pos_embed, pos_1TD
    try:
        yield
    finally:
        module.pos_embed = stored


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


def _to_picture(image: ByteArray, size_px: int) -> FloatArray:
    """Resize, normalise, channels first: float32, (3, size_px, size_px)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(f"an image to encode must be uint8 RGB of shape (H, W, 3), got {image.dtype} {image.shape}")
    resized = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
    picture_HW3 = np.asarray(resized, dtype=np.float32) / np.float32(255)
    mean, std = (np.array(values, dtype=np.float32) for values in (IMAGENET_MEAN, IMAGENET_STD))
    normalised_HW3 = (picture_HW3 - mean) / std
    return np.ascontiguousarray(normalised_HW3.transpose(2, 0, 1))
