"""Weight files of any origin: read without running code in them, and nothing but plain named tensors is let through."""

from __future__ import annotations

import argparse
import logging
import pickle  # for the name of its error; nothing is unpickled but by torch, with weights_only  # nosec B403
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from umscosod.errors import WeightsError, reason_of, shorten
from umscosod.features.weights_check import CURE, check_ending
from umscosod.features.weights_check import check_regular_file as check_regular_file
from umscosod.features.weights_check import expand_user as expand_user

logger = logging.getLogger(__name__)

StateDict = dict[str, torch.Tensor]

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
