"""The vision transformers on offer, by the name a user types. No torch here: help texts and checks read it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    dim, heads : int
        Token width D and attention heads A.
    prefix_tokens : int
        Tokens before the patches: CLS and registers.
    native_px : int
        Picture side of the authors' stored position embedding.
    pos_embed : "offset" or "antialias"
        The authors' rule for other picture sizes: `umscosod.features.position_embedding.resize_pos_embed`.
    original_file : str
        Name of the authors' own weight file.
    licence : str
        Of those weights.
    is_label_free : bool
        Whether those weights were trained without annotations. Says nothing of a file that the user brings.
    partner : str
        Second stream that the paper, or its small sibling, pairs it with; ``""`` for none.
    overrides : tuple of (str, int)
        Further arguments of the timm architecture, such as ``("depth", 2)``.
    """

    name: str
    timm_name: str
    patch_px: int
    dim: int
    heads: int
    prefix_tokens: int
    native_px: int
    original_file: str
    pos_embed: PosEmbedRule = "offset"
    licence: str = "Apache-2.0"
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


_SPECS = (
    VitSpec(
        name="dino_vitb8",
        timm_name="vit_base_patch8_224.dino",
        patch_px=8,
        dim=768,
        heads=12,
        prefix_tokens=1,
        native_px=224,
        original_file="dino_vitbase8_pretrain.pth",
        partner="dinov2_vitb14_reg",
    ),
    VitSpec(
        name="dino_vits8",
        timm_name="vit_small_patch8_224.dino",
        patch_px=8,
        dim=384,
        heads=6,
        prefix_tokens=1,
        native_px=224,
        original_file="dino_deitsmall8_pretrain.pth",
        partner="dinov2_vits14_reg",
    ),
    VitSpec(
        name="dinov2_vitb14_reg",
        timm_name="vit_base_patch14_reg4_dinov2.lvd142m",
        patch_px=14,
        dim=768,
        heads=12,
        prefix_tokens=5,
        native_px=518,
        original_file="dinov2_vitb14_reg4_pretrain.pth",
        pos_embed="antialias",
    ),
    VitSpec(
        name="dinov2_vits14",
        timm_name="vit_small_patch14_dinov2.lvd142m",
        patch_px=14,
        dim=384,
        heads=6,
        prefix_tokens=1,
        native_px=518,
        original_file="dinov2_vits14_pretrain.pth",
    ),
    VitSpec(
        name="dinov2_vits14_reg",
        timm_name="vit_small_patch14_reg4_dinov2.lvd142m",
        patch_px=14,
        dim=384,
        heads=6,
        prefix_tokens=5,
        native_px=518,
        original_file="dinov2_vits14_reg4_pretrain.pth",
        pos_embed="antialias",
    ),
)
VIT_SPECS: Mapping[str, VitSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
