"""What is known of each Vision Transformer, and where its weights lie; torch-free."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from umscosod.data.files import why_unreadable
from umscosod.errors import WeightsError, one_line, reason_of
from umscosod.features.cache import file_sha256

PosEmbedRule = Literal["offset", "antialias"]

logger = logging.getLogger(__name__)

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


# The authors' weights are under Apache-2.0, all of them.
_DINO = partial(VitSpec, patch_px=8, prefix_tokens=1, native_px=224)
_DINOV2 = partial(VitSpec, patch_px=14, native_px=518)
_SPECS = (
    _DINO(
        name="dino_vitb8",
        timm_name="vit_base_patch8_224.dino",
        dim=768,
        original_file="dino_vitbase8_pretrain.pth",
        partner="dinov2_vitb14_reg",
    ),
    _DINO(
        name="dino_vits8",
        timm_name="vit_small_patch8_224.dino",
        dim=384,
        original_file="dino_deitsmall8_pretrain.pth",
        partner="dinov2_vits14_reg",
    ),
    _DINOV2(
        name="dinov2_vitb14_reg",
        timm_name="vit_base_patch14_reg4_dinov2.lvd142m",
        dim=768,
        prefix_tokens=5,
        original_file="dinov2_vitb14_reg4_pretrain.pth",
        pos_embed="antialias",
    ),
    _DINOV2(
        name="dinov2_vits14",
        timm_name="vit_small_patch14_dinov2.lvd142m",
        dim=384,
        prefix_tokens=1,
        original_file="dinov2_vits14_pretrain.pth",
    ),
    _DINOV2(
        name="dinov2_vits14_reg",
        timm_name="vit_small_patch14_reg4_dinov2.lvd142m",
        dim=384,
        prefix_tokens=5,
        original_file="dinov2_vits14_reg4_pretrain.pth",
        pos_embed="antialias",
    ),
)
VIT_SPECS: Mapping[str, VitSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})


HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def find_weights(spec: VitSpec) -> Path | None:
    """Look for weights on this machine, without network.

    Parameters
    ----------
    spec : VitSpec

    Returns
    -------
    Path or None
        A file in the Hugging Face cache that timm fills, or the authors' file in torch.hub's folder; None: neither.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in HUB_FILES:
        found = try_to_load_from_cache(hub_repository(spec), name)
        if isinstance(found, str):  # neither None nor the marker of a file known to be absent
            return Path(found)
    if (torch := sys.modules.get("torch")) is not None:
        hub = Path(torch.hub.get_dir())
    else:  # the rule that torch documents
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        hub = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser() / "hub"
    original = hub / "checkpoints" / spec.original_file
    return original if original.is_file() else None


def hub_repository(spec: VitSpec) -> str:
    """Name of the repository on the Hugging Face hub that holds timm's weights."""
    return f"timm/{spec.timm_name}"


PICKLED = (".pth", ".pt", ".bin")
CURE = "fetch the file again, or save its tensors as .safetensors"


def check_weights_file(file: str) -> None:
    """Refuse what `umscosod.features.weights.read_state_dict` would refuse at once; no tensor is read.

    Raises
    ------
    WeightsError
        The file is missing, not a regular file, of an unknown kind, or its list of tensors is damaged.
    """
    path = expand_user(file)
    check_regular_file(path, cure="check the weight file")
    check_ending(path)
    if path.suffix.lower() == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"weights {path} cannot be read: {reason_of(error)}; {CURE}") from None


def check_ending(path: Path) -> None:
    """Refuse a kind of file that is not known; WeightsError."""
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", *PICKLED):
        raise WeightsError(f"weights {path}: unknown ending {suffix!r}; expected .safetensors, {', '.join(PICKLED)}")


def check_regular_file(path: Path, what: str = "no weights at", cure: str = "check the path") -> None:
    """Refuse what is missing or not a regular file, so that a FIFO or a device is never waited for.

    Raises
    ------
    WeightsError
        `what`, the path, the reason, `cure`.
    """
    if reason := why_unreadable(path):
        raise WeightsError(f"{what} {path} ({reason}); {cure}")


def expand_user(file: str) -> Path:
    """Replace a leading ``~``; WeightsError where there is no such user."""
    try:
        return Path(file).expanduser()
    except RuntimeError as error:
        raise WeightsError(f"weights {file}: {error}; write the whole path") from None


def obtain_weights(spec: VitSpec, file: str = "", *, allow_download: bool = False, option: str = "--weights") -> Path:
    """Settle which file the weights come from.

    Parameters
    ----------
    spec : VitSpec
    file : str
        The user's own file; ``""``: what `find_weights` finds, else the hub's.
    allow_download : bool
        Whether the network may be used. Never for a `file` given.
    option : str
        Name of the option that gives `file`, for the message.

    Returns
    -------
    Path

    Raises
    ------
    WeightsError
        There are none, or the download failed.
    """
    if file:
        path = expand_user(file)
        check_regular_file(path, f"no weights of {spec.name} at", f"check {option}")
        return path
    if (found := find_weights(spec)) is not None:
        return found
    cure = f"pass {option} FILE ({spec.original_file}, or timm's {spec.timm_name}) or --config.features.allow-download"
    if not allow_download:
        raise WeightsError(f"no weights of {spec.name} on this machine; {cure}")
    from huggingface_hub import hf_hub_download

    repository = hub_repository(spec)
    logger.info("fetching the weights of %s from the hub (%s)", spec.name, repository)
    try:
        # safetensors, whose shapes are checked and whose hash is part of every result
        downloaded = hf_hub_download(repository, HUB_FILES[0])  # nosec B615
    except Exception as error:  # offline, proxies, certificates, rate limits: the set of causes is open
        raise WeightsError(
            f"weights of {spec.name} could not be fetched from the hub ({repository}): {one_line(str(error))}; "
            f"pass {option} FILE ({spec.original_file}, or timm's {spec.timm_name})"
        ) from error
    return Path(downloaded)


def hash_weights(path: Path) -> str:
    """SHA-256 of a weight file, in hexadecimal; raises WeightsError where it cannot be read."""
    check_regular_file(path)
    try:
        return file_sha256(path)
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read ({error.strerror}); check its permissions") from error


# Part of every backbone id: raise it whenever tokens, keys or attention change for equal weights and pictures.
# 2: the position embedding is resized by the rule of each family's authors, not by timm's.
_CODE_VERSION = "2"


def vit_id(spec: VitSpec, weights_sha256: str, size_px: int) -> str:
    """Name what decides the tokens: architecture, weights, side of the picture, code."""
    return f"{spec.name}:{weights_sha256}:{spec.round_px(size_px)}px:last-tokens-keys-cls:code-v{_CODE_VERSION}"
