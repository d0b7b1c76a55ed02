"""What is known of each Vision Transformer; torch-free."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from umscosod.device import FLOAT32, precision_of

PosEmbedRule = Literal["offset", "antialias"]

# ImageNet statistics of RGB in [0, 1], with which DINO, DINOv2 and DINOv3 were trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
APACHE = "Apache-2.0"
UNKNOWN_LICENCE = "not stated"

TIMM, HF_HUB, LOCAL_DIR = PREFIXES = ("timm:", "hf-hub:", "local-dir:")
"""How the name of an architecture outside the table begins: timm's name, a hub repository, a folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VitSpec:
    """One architecture together with the weights meant for it.

    Attributes
    ----------
    name : str
        What the user types.
    timm_name : str
        Architecture in timm, with the tag of its weights where timm knows some.
    patch_px : int
        Side of a patch.
    dim : int
        Token width D.
    prefix_tokens : int
        Tokens before the patches: CLS, distillation and registers.
    native_px : int
        Picture side of the authors' stored position embedding, or at which they trained.
    pos_embed : "offset" or "antialias"
        The authors' rule for other picture sizes: `umscosod.features.weights.resize_pos_embed`. Of no effect where
        positions are rotations.
    original_file : str
        Name of the authors' own weight file; ``""``: none that is read here.
    is_label_free : bool
        Whether those weights were trained without annotations. Says nothing of a file that the user brings.
    size_mb : int
        Of timm's file, in MB (1e6 bytes): four bytes a parameter.
    licence : str
        Of those weights.
    partner : str
        Second stream that the paper, or its small sibling, pairs it with; ``""``: itself, coarser.
    overrides : tuple of (str, object)
        Further arguments of the timm architecture, such as ``("depth", 2)``.
    mean, std : tuple of float
        Of red, green and blue in [0, 1], by which pictures are normalised.
    needs_timm : str
        Oldest version of timm that has the architecture, where the oldest allowed one has not.
    """

    name: str
    timm_name: str
    patch_px: int
    dim: int
    prefix_tokens: int
    native_px: int
    original_file: str = ""
    size_mb: int = 0
    licence: str = APACHE
    pos_embed: PosEmbedRule = "antialias"
    is_label_free: bool = True
    partner: str = ""
    overrides: tuple[tuple[str, Any], ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    needs_timm: str = ""

    @property
    def folder(self) -> str:
        """Folder that holds the weights; ``""``: none."""
        return self.name.removeprefix(LOCAL_DIR) if self.name.startswith(LOCAL_DIR) else ""

    def round_px(self, size_px: int) -> int:
        """Nearest multiple of the patch, at least one patch; halves go up.

        Examples
        --------
        >>> [VIT_SPECS["dinov2_vits14"].round_px(size) for size in (224, 225, 231, 1)]
        [224, 224, 238, 14]
        """
        return max(1, (2 * size_px + self.patch_px) // (2 * self.patch_px)) * self.patch_px


def _dino(size: str, patch_px: int, dim: int, size_mb: int) -> VitSpec:
    """DINO, Caron et al., arXiv 2104.14294."""
    letter = size[0]
    return VitSpec(
        name=f"dino_vit{letter}{patch_px}",
        timm_name=f"vit_{size}_patch{patch_px}_224.dino",
        patch_px=patch_px,
        dim=dim,
        prefix_tokens=1,
        native_px=224,
        original_file=f"dino_{'deit' if letter == 's' else 'vit'}{size}{patch_px}_pretrain.pth",
        size_mb=size_mb,
        pos_embed="offset",
        partner=f"dinov2_vit{letter}14_reg",
    )


def _dinov2(size: str, dim: int, size_mb: int, registers: int) -> VitSpec:
    """DINOv2, Oquab et al., arXiv 2304.07193; registers: Darcet et al., arXiv 2309.16588."""
    name, reg = f"dinov2_vit{size[0]}14", f"reg{registers}_" if registers else ""
    return VitSpec(
        name=f"{name}_reg" if registers else name,
        timm_name=f"vit_{size}_patch14_{reg}dinov2.lvd142m",
        patch_px=14,
        dim=dim,
        prefix_tokens=1 + registers,
        native_px=518,
        original_file=f"{name}_{reg}pretrain.pth",
        size_mb=size_mb,
        pos_embed="antialias" if registers else "offset",
    )


def _dinov3(size: str, dim: int, size_mb: int, sha256: str) -> VitSpec:
    """DINOv3, Siméoni et al., arXiv 2508.10104; the file's name ends with the start of its SHA-256."""
    name = f"dinov3_vit{size[0]}16{'plus' if size.endswith('_plus') else ''}"
    return VitSpec(
        name=name,
        timm_name=f"vit_{size}_patch16_dinov3.lvd1689m",
        patch_px=16,
        dim=dim,
        prefix_tokens=5,
        native_px=256,
        original_file=f"{name}_pretrain_lvd1689m-{sha256}.pth",
        size_mb=size_mb,
        licence="DINOv3 License",
        needs_timm="1.0.20",
    )


# Trained on pictures with the texts that people wrote to them.
_TEXTS = partial(VitSpec, dim=768, is_label_free=False)

# In the order in which ``auto`` takes what lies on the machine, after the pairs.
_SPECS = (
    _dino("base", 8, 768, 343),
    _dino("small", 8, 384, 87),
    _dinov2("base", 768, 346, 4),
    _dinov2("base", 768, 346, 0),
    _dinov2("small", 384, 88, 4),
    _dinov2("small", 384, 88, 0),
    _dino("base", 16, 768, 343),
    _dino("small", 16, 384, 87),
    _dinov3("base", 768, 343, "73cec8be"),
    _dinov3("small_plus", 384, 115, "4057cbaa"),
    _dinov3("small", 384, 86, "08c60483"),
    _dinov2("large", 1024, 1217, 4),
    _dinov2("large", 1024, 1217, 0),
    _dinov3("large", 1024, 1212, "8aa4cbdd"),
    _TEXTS(  # Tschannen et al., arXiv 2502.14786
        name="siglip2_vitb16",
        timm_name="vit_base_patch16_siglip_224.v2_webli",
        patch_px=16,
        prefix_tokens=0,
        native_px=224,
        size_mb=372,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    _TEXTS(  # arXiv 2604.12012
        name="tipsv2_vitb14",
        timm_name="vit_base_patch14_reg1_tipsv2.webli",
        patch_px=14,
        prefix_tokens=2,
        native_px=448,
        size_mb=345,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        needs_timm="1.0.28",
    ),
)
VIT_SPECS: Mapping[str, VitSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
PAIRS = (("dino_vitb8", "dinov2_vitb14_reg"), ("dino_vits8", "dinov2_vits14_reg"))
"""First and second stream: the paper's pair and its small siblings."""


def is_vit_name(name: str) -> bool:
    """Whether a name is one of the table, or of an architecture that `vit_spec` reads elsewhere."""
    return name in VIT_SPECS or name.startswith(PREFIXES)


def vit_spec(name: str) -> VitSpec:
    """Give what is known of a Vision Transformer, by any of its names.

    Parameters
    ----------
    name : str
        A name of the table; ``timm:NAME``; ``hf-hub:OWNER/NAME``, whose ``config.json`` lies in the Hugging Face
        cache; or ``local-dir:DIR`` with a ``config.json`` inside. A timm name that the table has gives the table's
        entry. For any other the module is built without values and asked; its training is not known.

    Returns
    -------
    VitSpec

    Raises
    ------
    ConfigError
        There is no such model, or it gives no patch tokens.
    WeightsError
        There is no ``config.json``, or it cannot be read.

    Examples
    --------
    >>> vit_spec("timm:vit_small_patch16_224.dino").name
    'dino_vits16'
    """
    if name in VIT_SPECS:
        return VIT_SPECS[name]
    for spec in VIT_SPECS.values():
        if name in (f"{TIMM}{spec.timm_name}", f"{HF_HUB}timm/{spec.timm_name}"):
            return spec
    from umscosod.features.architectures import read_spec

    return read_spec(name)


# Part of every backbone id: raise it whenever tokens, keys or attention change for equal weights and pictures.
# 2: the position embedding is resized by the rule of each family's authors, not by timm's.
_CODE_VERSION = "2"


def vit_id(spec: VitSpec, weights_sha256: str, size_px: int, *, debias: bool = False) -> str:
    """Name what decides the tokens: architecture, weights, side of the picture, code."""
    parts = [spec.name, weights_sha256, f"{spec.round_px(size_px)}px", "last-tokens-keys-cls", f"code-v{_CODE_VERSION}"]
    if spec.name.startswith(PREFIXES):  # the name does not fix what its config.json, or another timm, says
        parts.append(f"spec-{hashlib.sha256(repr(spec).encode()).hexdigest()[:12]}")
    return ":".join([*parts, *(["debias-v1"] if debias else [])])


def exact_id(backbone: Any) -> str:
    """Id of a backbone and its arithmetic: equal ones mean equal bits on CPUs of one kind."""
    precision = precision_of(backbone)
    return str(backbone.id) if precision == FLOAT32 else f"{backbone.id}:{precision}"
