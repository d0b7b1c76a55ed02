"""What is known of each Vision Transformer; torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

PosEmbedRule = Literal["offset", "antialias"]

# ImageNet statistics of RGB in [0, 1], with which DINO and DINOv2 were trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class VitSpec:
    """One architecture together with the weights meant for it.

    Attributes
    ----------
    name : str
        What the user types.
    timm_name : str
        Architecture and tag in timm; also the repository ``timm/<timm_name>`` on its hub.
    patch_px : int
        Side of a patch.
    dim : int
        Token width D.
    prefix_tokens : int
        Tokens before the patches: CLS and registers.
    native_px : int
        Picture side of the authors' stored position embedding.
    pos_embed : "offset" or "antialias"
        The authors' rule for other picture sizes: `umscosod.features.weights.resize_pos_embed`.
    original_file : str
        Name of the authors' own weight file.
    is_label_free : bool
        Whether those weights were trained without annotations. Says nothing of a file that the user brings.
    size_mb : int
        Of timm's file, in MB (1e6 bytes): four bytes a parameter.
    licence : str
        Of those weights.
    partner : str
        Second stream that the paper, or its small sibling, pairs it with; ``""`` for none.
    overrides : tuple of (str, int)
        Further arguments of the timm architecture, such as ``("depth", 2)``.
    """

    name: str
    timm_name: str
    patch_px: int
    dim: int
    prefix_tokens: int
    native_px: int
    original_file: str
    size_mb: int = 0
    licence: str = "Apache-2.0"
    pos_embed: PosEmbedRule = "offset"
    is_label_free: bool = True
    partner: str = ""
    overrides: tuple[tuple[str, int], ...] = ()

    def round_px(self, size_px: int) -> int:
        """Nearest multiple of the patch, at least one patch; halves go up.

        Examples
        --------
        >>> [VIT_SPECS["dinov2_vits14"].round_px(size) for size in (224, 225, 231, 1)]
        [224, 224, 238, 14]
        """
        return max(1, (2 * size_px + self.patch_px) // (2 * self.patch_px)) * self.patch_px


_DINO = partial(VitSpec, patch_px=8, prefix_tokens=1, native_px=224)
_DINOV2 = partial(VitSpec, patch_px=14, native_px=518)
_SPECS = (
    _DINO(
        name="dino_vitb8",
        timm_name="vit_base_patch8_224.dino",
        dim=768,
        original_file="dino_vitbase8_pretrain.pth",
        size_mb=343,
        partner="dinov2_vitb14_reg",
    ),
    _DINO(
        name="dino_vits8",
        timm_name="vit_small_patch8_224.dino",
        dim=384,
        original_file="dino_deitsmall8_pretrain.pth",
        size_mb=87,
        partner="dinov2_vits14_reg",
    ),
    _DINOV2(
        name="dinov2_vitb14_reg",
        timm_name="vit_base_patch14_reg4_dinov2.lvd142m",
        dim=768,
        prefix_tokens=5,
        original_file="dinov2_vitb14_reg4_pretrain.pth",
        size_mb=346,
        pos_embed="antialias",
    ),
    _DINOV2(
        name="dinov2_vits14",
        timm_name="vit_small_patch14_dinov2.lvd142m",
        dim=384,
        prefix_tokens=1,
        original_file="dinov2_vits14_pretrain.pth",
        size_mb=88,
    ),
    _DINOV2(
        name="dinov2_vits14_reg",
        timm_name="vit_small_patch14_reg4_dinov2.lvd142m",
        dim=384,
        prefix_tokens=5,
        original_file="dinov2_vits14_reg4_pretrain.pth",
        size_mb=88,
        pos_embed="antialias",
    ),
)
VIT_SPECS: Mapping[str, VitSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})


# Part of every backbone id: raise it whenever tokens, keys or attention change for equal weights and pictures.
# 2: the position embedding is resized by the rule of each family's authors, not by timm's.
_CODE_VERSION = "2"


def vit_id(spec: VitSpec, weights_sha256: str, size_px: int) -> str:
    """Name what decides the tokens: architecture, weights, side of the picture, code."""
    return f"{spec.name}:{weights_sha256}:{spec.round_px(size_px)}px:last-tokens-keys-cls:code-v{_CODE_VERSION}"
