"""Weight files: read, recognised and turned into a ViT's parameters. Their names: `umscosod.features.layouts`."""

from __future__ import annotations

import argparse
import logging
import math
import pickle  # for the name of its error; nothing is unpickled but by torch, with weights_only  # nosec B403
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import interpolate

from umscosod.errors import WeightsError, reason_of, shorten
from umscosod.features.architectures import LATER, Vit, build_empty
from umscosod.features.layouts import StateDict, convert_state_dict
from umscosod.features.specs import VIT_SPECS, PosEmbedRule, VitSpec
from umscosod.features.store import CURE, check_ending, check_regular_file, hash_weights

logger = logging.getLogger(__name__)

_OFFSET = 0.1  # patches; the authors' guard against rounding, which became part of what their models see


def resize_pos_embed(pos_1TD: torch.Tensor, side: int, *, prefix: int, rule: PosEmbedRule) -> torch.Tensor:
    """Resize a square grid of position embeddings.

    Parameters
    ----------
    pos_1TD : Tensor, float32, (1, prefix + M * M, D)
        As stored; `prefix` entries come before the grid and are kept.
    side : int
        Patches down and across that are wanted.
    prefix : int
    rule : "offset" or "antialias"
        ``offset``: bicubic at the scale (side + 0.1) / M, so that samples do not lie where the ratio of the sizes
        would put them; original DINO, and DINOv2 without registers. ``antialias``: bicubic and antialiased to the
        wanted size; DINOv2 with registers.

    Returns
    -------
    Tensor, float32, (1, prefix + side * side, D)
        On the CPU, where equal inputs give equal bits. Of equal grids the values stay as they are.
    """
    pos_1TD = pos_1TD.detach().cpu()
    native = square_side(pos_1TD.shape[1] - prefix)
    if native == side:
        return pos_1TD
    grid_1DHW = pos_1TD[:, prefix:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
    if rule == "offset":
        scale = (side + _OFFSET) / native
        resized_1DHW = interpolate(grid_1DHW, scale_factor=(scale, scale), mode="bicubic")
    else:
        resized_1DHW = interpolate(grid_1DHW, size=(side, side), mode="bicubic", antialias=True)
    assert resized_1DHW.shape[-2:] == (side, side)
    return torch.cat([pos_1TD[:, :prefix], resized_1DHW.flatten(2).transpose(1, 2)], dim=1)


def square_side(length: int) -> int:
    """Side of the square grid that `length` positions fill; 0: they fill none.

    Examples
    --------
    >>> square_side(1369), square_side(1370), square_side(-1)
    (37, 0, 0)
    """
    side = math.isqrt(max(0, length))
    return side if side * side == length else 0


# A training checkpoint keeps the network under one of these; DINO and DINOv2 are evaluated with the teacher.
_WRAPPERS = ("teacher", "student", "state_dict", "model")
_MAX_WRAPPERS = 8  # a pickle may contain itself
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_state_dict(path: Path) -> StateDict:
    """Read the tensors of a file by name, as stored, out of any training checkpoint around them.

    Pickles are read with ``weights_only=True``: code inside them never runs. The one class let through besides
    tensors is `argparse.Namespace`, a bare record in which DINO's training checkpoints keep their options.

    Raises
    ------
    WeightsError
        The file is absent, not a regular file, unreadable, of an unknown kind, or holds anything but named, dense
        tensors with values of their own. One line.
    """
    check_ending(path)
    check_regular_file(path)
    try:
        content: object = load_file(path) if path.suffix.lower() == ".safetensors" else _load_pickle(path)
    except Exception as error:  # damaged files raise pickle, zip, json, OS and runtime errors alike
        raise WeightsError(f"weights {path} cannot be read: {_reason(error)}; {CURE}") from None
    return _named_tensors(_unwrap(content, path), path)


def dtype_name(tensor: torch.Tensor) -> str:
    """Name a tensor's type as its users write it, such as ``int8``."""
    return str(tensor.dtype).removeprefix("torch.")


def _load_pickle(path: Path) -> object:
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on how the file was made; what it holds is checked here
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    """Say in our own words why a file cannot be read; torch's text is long, and advises to run the code in a file."""
    if isinstance(error, SafetensorError) or (isinstance(error, OSError) and error.strerror):
        return reason_of(error)
    if isinstance(error, EOFError):
        return "it is empty or cut short"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, pickle.UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", str(error))):
        return f"it holds {found[1]}, which is no tensor and is never run"
    return f"it is damaged, cut short, or holds more than tensors ({type(error).__name__})"


def _unwrap(content: object, path: Path) -> object:
    """Step into the network's own dictionary of a training checkpoint."""
    for _ in range(_MAX_WRAPPERS):
        wrapper = None
        if isinstance(content, Mapping):
            wrapper = next((name for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if wrapper is None:
            return content
        assert isinstance(content, Mapping)
        logger.info("weights %s: taking the entry %r", path, wrapper)
        content = content[wrapper]
    raise WeightsError(f"weights {path}: dictionaries in dictionaries, more than {_MAX_WRAPPERS} deep; {CURE}")


def _named_tensors(content: object, path: Path) -> StateDict:
    if not isinstance(content, Mapping):
        raise WeightsError(f"weights {path}: expected named tensors, got {type(content).__name__}; {CURE}")
    if not content:
        raise WeightsError(f"weights {path}: expected named tensors, found none; {CURE}")
    for name, value in content.items():
        if not isinstance(name, str):
            raise WeightsError(f"weights {path}: entry {shorten(name)} has no text for a name; {CURE}")
        shown = shorten(name, quoted=False)
        if not isinstance(value, torch.Tensor):
            raise WeightsError(f"weights {path}: entry {shown} is {type(value).__name__}, expected a tensor; {CURE}")
        if odd := _oddness(value):
            raise WeightsError(f"weights {path}: {shown} {odd}; save it as a plain tensor")
    return dict(content)


def _oddness(tensor: torch.Tensor) -> str:
    """Say what keeps a tensor from being used; empty: nothing."""
    if tensor.is_meta:
        return "has a shape but no values"
    if tensor.is_nested or tensor.layout is not torch.strided:
        return "is a sparse or nested tensor"
    if tensor.is_quantized or tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype not in _FLOATS):
        return f"is of type {dtype_name(tensor)}"
    # a view may repeat one stored value a million million times
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"has the shape {tuple(tensor.shape)}, more values than the file holds"
    return ""


def load_weights(model: Vit, path: Path) -> str:
    """Load a file into a model, strictly: every tensor that tokens need, no other tensor, in its shape.

    Parameters
    ----------
    model : Vit
        It takes over the file's position embedding as it is, of whatever square grid. What comes after the tokens, a
        classifier or a pooling, is neither asked for nor taken.
    path : Path
        ``.safetensors``, ``.pth``, ``.pt`` or ``.bin``, in a layout that `umscosod.features.layouts` knows.

    Returns
    -------
    str
        SHA-256 of the file, in hexadecimal.

    Raises
    ------
    WeightsError
        The file cannot be read, its layout is unknown, or it does not fit: the first mismatch is named. Or it was
        changed meanwhile.
    """
    sha256 = hash_weights(path)
    raw = read_state_dict(path)
    try:
        converted = convert_state_dict(raw)
    except WeightsError as error:
        raise WeightsError(f"weights {path}: {error}") from None
    state = _fit(converted, model)
    _check_fit(state, model, converted, path)
    if model.pos_embed is not None:
        model.pos_embed = nn.Parameter(torch.empty_like(state["pos_embed"]))
    model.load_state_dict(state, strict=False)  # checked above; only what comes after the tokens may lack
    if hash_weights(path) != sha256:  # the hash names every feature made with these tensors
        raise WeightsError(f"weights {path}: the file was changed while it was read; run again")
    logger.info("weights %s (sha256 %s)", path, sha256)
    return sha256


def recognise(path: Path) -> VitSpec | None:
    """Tell by its names and shapes which architecture a file belongs to; None: none of `VIT_SPECS`.

    Equal architectures that were trained differently are not told apart: the first in the table is returned.

    Raises
    ------
    WeightsError
        The file cannot be read.
    """
    raw = read_state_dict(path)
    try:
        return _recognise(convert_state_dict(raw))
    except WeightsError as error:
        logger.info("weights %s: %s", path, error)
        return None


def _recognise(converted: StateDict) -> VitSpec | None:
    projection, reg_1RD = converted["patch_embed.proj.weight"], converted.get("reg_token")
    prefix = ("cls_token" in converted) + (reg_1RD.shape[1] if reg_1RD is not None and reg_1RD.ndim == 3 else 0)
    found = (*projection.shape[::2], prefix)
    for spec in VIT_SPECS.values():
        if found == (spec.dim, spec.patch_px, spec.prefix_tokens) and timm.is_model(spec.timm_name):
            model = build_empty(spec)
            if not _misfit(_fit(converted, model), model):
                return spec
    return None


def _fit(converted: StateDict, model: Vit) -> StateDict:
    """Write down differently what this model writes down differently; the sums stay the same."""
    state = {name: tensor for name, tensor in converted.items() if not name.startswith(LATER)}
    pos_1TD, cls_11D = state.get("pos_embed"), state.get("cls_token")
    if _embeds_patches_only(model) and cls_11D is not None and pos_1TD is not None and _has_cls_slot(pos_1TD, cls_11D):
        # timm's DINOv2 models with registers have no position embedding for CLS
        state["cls_token"] = cls_11D + pos_1TD[:, :1]
        state["pos_embed"] = pos_1TD[:, 1:]
    expected = model.state_dict()
    for name in [name for name in state if name.endswith((".attn.q_bias", ".attn.v_bias"))]:
        if name not in expected and not bool(state[name].any()):  # DINOv3: most of timm's Eva have no such bias
            del state[name]
    return state


def _has_cls_slot(pos_1TD: torch.Tensor, cls_11D: torch.Tensor) -> bool:
    """Whether an entry for CLS comes before a square grid; T and T - 1 are never both squares for T > 1."""
    if pos_1TD.ndim != 3 or not square_side(pos_1TD.shape[1] - 1):
        return False
    return (cls_11D.shape, cls_11D.dtype) == (pos_1TD[:, :1].shape, pos_1TD.dtype)


def _misfit(state: StateDict, model: Vit) -> str:
    """Name the first tensor that is missing, of another shape or too many; empty: none."""
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(LATER)}
    for name, wanted in expected.items():
        if name not in state:
            return f"{name} is missing, expected {tuple(wanted.shape)}"
        tensor = state[name]
        if tensor.shape != wanted.shape and not (name == "pos_embed" and _is_square_grid(tensor, model)):
            return f"{name} has the shape {tuple(tensor.shape)}, expected {tuple(wanted.shape)}"
    for name, tensor in state.items():
        if name not in expected:
            shown = shorten(name, quoted=False)
            return f"{shown} {tuple(tensor.shape)} is not expected: the architecture has none"
    return ""


def _check_fit(state: StateDict, model: Vit, converted: StateDict, path: Path) -> None:
    if misfit := _misfit(state, model):
        found = _recognise(converted)
        hint = f"; the file has the architecture of {found.name}" if found else ""
        raise WeightsError(f"weights {path}: {misfit}{hint}")
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise WeightsError(f"weights {path}: {name} is of type {dtype_name(tensor)}, expected floating point")
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"weights {path}: {name} holds values that are not finite; fetch the file again")


def _is_square_grid(pos_1TD: torch.Tensor, model: Vit) -> bool:
    """Whether a position embedding is one of this model for pictures of another size."""
    if pos_1TD.ndim != 3 or pos_1TD.shape[::2] != (1, model.embed_dim):
        return False
    return square_side(pos_1TD.shape[1] - (0 if _embeds_patches_only(model) else model.num_prefix_tokens)) > 0


def _embeds_patches_only(model: Vit) -> bool:
    return bool(getattr(model, "no_embed_class", False))
