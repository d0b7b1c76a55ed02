"""Weights of the vision transformers: find the file, read it without running its code, convert names, fit strictly.

Recognised key names: timm's; DINO's (Caron et al., arXiv 2104.14294) alone or inside a training checkpoint with
``student`` and ``teacher``; DINOv2's (Oquab et al., arXiv 2304.07193) with or without registers (arXiv 2309.16588).
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import VisionTransformer

from umscosod.errors import WeightsError
from umscosod.features.cache import file_sha256
from umscosod.features.vit_specs import VIT_SPECS, VitSpec

logger = logging.getLogger(__name__)

StateDict = dict[str, torch.Tensor]

_PICKLED = (".pth", ".pt", ".bin")
# A training checkpoint keeps the network under one of these; DINO and DINOv2 are evaluated with the teacher.
_WRAPPERS = ("teacher", "student", "state_dict", "model")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


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

    for name in _HUB_FILES:
        found = try_to_load_from_cache(_hub_repository(spec), name)
        if isinstance(found, str):  # neither None nor the marker of a file known to be absent
            return Path(found)
    original = Path(torch.hub.get_dir()) / "checkpoints" / spec.original_file
    return original if original.is_file() else None


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
        path = Path(file).expanduser()
        if not path.is_file():
            raise WeightsError(f"no weights of {spec.name} at {path}; check {option}")
        return path
    if (found := find_weights(spec)) is not None:
        return found
    cure = f"pass {option} FILE ({spec.original_file}, or timm's {spec.timm_name}) or --config.features.allow-download"
    if not allow_download:
        raise WeightsError(f"no weights of {spec.name} on this machine; {cure}")
    from huggingface_hub import hf_hub_download

    repository = _hub_repository(spec)
    logger.info("fetching the weights of %s from the hub (%s)", spec.name, repository)
    try:
        return Path(hf_hub_download(repository, _HUB_FILES[0]))
    except Exception as error:  # offline, proxies, certificates, rate limits: the set of causes is open
        raise WeightsError(
            f"weights of {spec.name} could not be fetched from the hub ({repository}): {error}; "
            f"pass {option} FILE ({spec.original_file}, or timm's {spec.timm_name})"
        ) from error


def load_weights(model: VisionTransformer, path: Path) -> str:
    """Load a file into a model, strictly: every tensor of the model, no other tensor, in its shape.

    Parameters
    ----------
    model : VisionTransformer
        Without a classifier head. The position embedding is resampled to its grid.
    path : Path
        ``.safetensors``, ``.pth``, ``.pt`` or ``.bin``.

    Returns
    -------
    str
        SHA-256 of the file, in hexadecimal.

    Raises
    ------
    WeightsError
        The file cannot be read, or does not fit: the first mismatch is named.
    """
    state = convert_state_dict(read_state_dict(path), no_embed_class=model.no_embed_class)
    expected = model.state_dict()
    state = _resample_pos_embed(state, model)
    _check_fit(state, expected, path)
    model.load_state_dict(state, strict=True)
    sha256 = file_sha256(path)
    logger.info("weights %s (sha256 %s)", path, sha256)
    return sha256


def read_state_dict(path: Path) -> StateDict:
    """Read the tensors of a file by name, as stored, out of any training checkpoint around them.

    Pickles are read with ``weights_only=True``: code inside them never runs. The one class let through besides
    tensors is `argparse.Namespace`, a bare record in which DINO's training checkpoints keep their options.

    Raises
    ------
    WeightsError
        The file is absent, unreadable, of an unknown kind, or holds anything but named tensors.
    """
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", *_PICKLED):
        raise WeightsError(f"weights {path}: unknown ending {suffix!r}; expected .safetensors, {', '.join(_PICKLED)}")
    try:
        if suffix == ".safetensors":
            content: object = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise pickle, zip, json, OS and runtime errors alike
        raise WeightsError(
            f"weights {path} cannot be read ({type(error).__name__}: {error}); "
            "fetch the file again, or save it as a plain dictionary of tensors"
        ) from error
    return _named_tensors(_unwrap(content, path), path)


def convert_state_dict(raw: Mapping[str, torch.Tensor], *, no_embed_class: bool) -> StateDict:
    """Translate DINO's and DINOv2's names to timm's; timm's pass through unchanged.

    Parameters
    ----------
    raw : mapping of str to Tensor
    no_embed_class : bool
        timm's DINOv2 models with registers have no position embedding for CLS: the authors' ``pos_embed[:, 0]`` is
        added to ``cls_token``, which gives the same sum.

    Returns
    -------
    dict of str to Tensor
        In float32. ``module.`` (DistributedDataParallel), ``_orig_mod.`` (torch.compile) and ``backbone.`` are
        stripped; where there is a ``backbone.``, all else is a training head and dropped. ``mask_token`` served
        masked training only and is dropped; ``register_tokens`` becomes ``reg_token``.

    Examples
    --------
    >>> raw = {"module.backbone.cls_token": torch.ones(1, 1, 2), "module.head.weight": torch.ones(1)}
    >>> convert_state_dict(raw, no_embed_class=False)
    {'cls_token': tensor([[[1., 1.]]])}
    """
    state = {name: tensor.float() for name, tensor in raw.items()}
    for prefix in ("module.", "_orig_mod."):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    if any(name.startswith("backbone.") for name in state):
        heads = [name for name in state if not name.startswith("backbone.")]
        if heads:
            logger.info("weights: %d tensors outside the backbone are not needed (%s, ...)", len(heads), heads[0])
        state = {name.removeprefix("backbone."): state[name] for name in state if name not in heads}
    state.pop("mask_token", None)
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
    pos_1TD = state.get("pos_embed")
    if no_embed_class and "cls_token" in state and pos_1TD is not None and _has_cls_slot(pos_1TD):
        state["cls_token"] = state["cls_token"] + pos_1TD[:, :1]
        state["pos_embed"] = pos_1TD[:, 1:]
    return state


def recognise(path: Path) -> VitSpec | None:
    """Tell by its shapes which architecture a file belongs to; None: none of `VIT_SPECS`.

    Raises
    ------
    WeightsError
        The file cannot be read.
    """
    return _recognise(convert_state_dict(read_state_dict(path), no_embed_class=False))


def _recognise(state: StateDict) -> VitSpec | None:
    projection = state.get("patch_embed.proj.weight")
    if projection is None or projection.ndim != 4:
        return None
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    found = (projection.shape[0], projection.shape[2], 1 + registers)
    return next((s for s in VIT_SPECS.values() if found == (s.dim, s.patch_px, s.prefix_tokens)), None)


def _hub_repository(spec: VitSpec) -> str:
    return f"timm/{spec.timm_name}"


def _unwrap(content: object, path: Path) -> object:
    """Step into the network's own dictionary of a training checkpoint, however deep."""
    while isinstance(content, Mapping):
        wrapper = next((name for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if wrapper is None:
            break
        logger.info("weights %s: taking the entry %r", path, wrapper)
        content = content[wrapper]
    return content


def _named_tensors(content: object, path: Path) -> StateDict:
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            f"weights {path}: expected named tensors, got {type(content).__name__} {str(content)[:60]!r}"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(f"weights {path}: entry {name!r} is {type(value).__name__}, expected a tensor")
    return dict(content)


def _has_cls_slot(pos_1TD: torch.Tensor) -> bool:
    """Whether one entry comes before a square grid; T and T - 1 are never both squares for T > 1."""
    length = pos_1TD.shape[1] - 1 if pos_1TD.ndim == 3 else 0
    return length > 0 and math.isqrt(length) ** 2 == length


def _resample_pos_embed(state: StateDict, model: VisionTransformer) -> StateDict:
    """Bring the position embedding to the model's grid; anything but a square grid is left for the check to name."""
    pos_1TD = state.get("pos_embed")
    if pos_1TD is None or pos_1TD.ndim != 3:
        return state
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    side = math.isqrt(max(0, pos_1TD.shape[1] - prefix))
    grid: tuple[int, int] = model.patch_embed.grid_size
    if side == 0 or side * side != pos_1TD.shape[1] - prefix or (side, side) == grid:
        return state
    logger.info("weights: position embedding resampled from %dx%d to %dx%d", side, side, *grid)
    resampled = resample_abs_pos_embed(pos_1TD, new_size=list(grid), old_size=[side, side], num_prefix_tokens=prefix)
    return {**state, "pos_embed": resampled}


def _check_fit(state: StateDict, expected: Mapping[str, torch.Tensor], path: Path) -> None:
    found = _recognise(state)
    hint = f"; the file has the architecture of {found.name}" if found else ""
    for name, wanted in expected.items():
        if name not in state:
            raise WeightsError(f"weights {path}: {name} is missing, expected {tuple(wanted.shape)}{hint}")
        if state[name].shape != wanted.shape:
            raise WeightsError(
                f"weights {path}: {name} has the shape {tuple(state[name].shape)}, expected {tuple(wanted.shape)}{hint}"
            )
        if not bool(torch.isfinite(state[name]).all()):
            raise WeightsError(f"weights {path}: {name} holds values that are not finite; fetch the file again")
    for name, tensor in state.items():
        if name not in expected:
            raise WeightsError(
                f"weights {path}: {name} {tuple(tensor.shape)} is not expected: the architecture has none{hint}"
            )
