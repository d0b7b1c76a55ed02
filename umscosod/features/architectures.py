"""Architectures of timm: built as a `VitSpec` says, and asked for what it says where the table has no entry."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models import Beit, Eva, VisionTransformer, model_entrypoint

from umscosod.data.files import read_json
from umscosod.errors import ConfigError, DataError, WeightsError, one_line
from umscosod.features.specs import HF_HUB, LOCAL_DIR, TIMM, UNKNOWN_LICENCE, VitSpec
from umscosod.features.store import expand_user

Vit = VisionTransformer | Eva | Beit
"""Flat transformers, which keep one grid of tokens from the first block to the last."""

LATER = ("attn_pool.", "head.", "head_dist.")
"""Timm's modules that come after the tokens; their values do not matter."""

_MODULES = ("vision_transformer", "deit", "eva", "beit")  # of timm, that define them
_OURS = ("img_size", "num_classes", "in_chans", "dynamic_img_size")  # arguments that are not taken from a config.json
_MOST_BYTES = 1 << 20  # of a config.json


def build_vit(spec: VitSpec) -> Vit:
    """Make the architecture with random weights; the global random state is left as it was.

    It takes pictures of any size whose grid its position embedding has, and resizes none by itself; a ``Beit`` takes
    one size, which its ``set_input_size`` changes.

    Raises
    ------
    ConfigError
        The installed timm does not have it, or it is no flat transformer.
    """
    architecture = spec.timm_name.partition(".")[0]  # a tag is of weights, which an older timm may not know
    if not timm.is_model(architecture):
        needed = f" (timm >= {spec.needs_timm} has)" if spec.needs_timm else ""
        raise ConfigError(f"backbone {spec.name}: timm {timm.__version__} has no {architecture}{needed}; update timm")
    family = model_entrypoint(architecture).__module__.rpartition(".")[2]
    arguments: dict[str, Any] = {**dict(spec.overrides), "img_size": spec.native_px, "num_classes": 0}
    if family == "eva":
        arguments["dynamic_img_size"] = True  # positions are rotations, made for the grid in use
    module: object = None
    if family in _MODULES:
        try:
            with torch.random.fork_rng(devices=[]):
                module = timm.create_model(architecture, pretrained=False, **arguments)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"backbone {spec.name}: timm cannot build it: {one_line(str(error))}") from error
    if not isinstance(module, Vit) or type(module.patch_embed) is not PatchEmbed:
        raise ConfigError(
            f"backbone {spec.name}: it is no plain Vision Transformer with one grid of patch tokens; take another"
        )
    module.patch_embed.strict_img_size = isinstance(module, Beit)
    return module


def build_empty(spec: VitSpec) -> Vit:
    """`build_vit` without values, in no time; with values where timm is older than 1.0.20, which needs them."""
    try:
        with torch.device("meta"):
            return build_vit(spec)
    except RuntimeError:
        return build_vit(spec)


def build_unset(spec: VitSpec) -> Vit:
    """`build_vit` for a file that sets every value; with random values where it may leave some to the architecture."""
    module = build_empty(spec)
    has_others = any(name.startswith(LATER) for name, _ in module.named_parameters())
    if next(module.buffers(), None) is None and not has_others:
        return module.to_empty(device="cpu")
    return build_vit(spec)


def read_spec(name: str) -> VitSpec:
    """Ask an architecture for what the table would say; see `umscosod.features.specs.vit_spec`.

    Its weights count as trained with labels: nobody says that they were not.

    Parameters
    ----------
    name : str
        ``timm:NAME``, ``hf-hub:OWNER/NAME`` or ``local-dir:DIR``.

    Returns
    -------
    VitSpec

    Raises
    ------
    ConfigError
        timm has no such model, or it is no flat transformer on square RGB pictures.
    WeightsError
        There is no ``config.json`` of it on this machine, or it cannot be read.
    """
    architecture, arguments, known = _known_to_timm(name) if name.startswith(TIMM) else _read_config(name)
    try:
        channels, native_px, width = (int(one) for one in known.get("input_size") or (3, 224, 224))
        mean, std = (tuple(map(float, known[key])) for key in ("mean", "std"))
        is_usable = channels == len(mean) == len(std) == 3 and native_px == width > 0 and min(std) > 0
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"backbone {name}: its input size, mean or deviation is missing or no number") from error
    if not is_usable:
        raise ConfigError(f"backbone {name}: it is not for square RGB pictures; take another")
    overrides = {key: tuple(one) if isinstance(one, list) else one for key, one in arguments.items()}
    spec = VitSpec(
        name=name,
        timm_name=architecture,
        patch_px=1,
        dim=1,
        prefix_tokens=0,
        native_px=native_px,
        licence=str(known.get("license") or UNKNOWN_LICENCE),
        is_label_free=False,
        overrides=tuple(sorted((key, one) for key, one in overrides.items() if key not in _OURS)),
        mean=mean,
        std=std,
    )
    module = build_empty(spec)
    height_px, width_px = module.patch_embed.patch_size
    if height_px != width_px:
        raise ConfigError(f"backbone {name}: its patches are {height_px} x {width_px} pixels, not square; take another")
    return replace(
        spec,
        patch_px=height_px,
        dim=module.embed_dim,
        prefix_tokens=module.num_prefix_tokens,
        size_mb=round(4e-6 * sum(parameter.numel() for parameter in module.parameters())),
    )


def _known_to_timm(name: str) -> tuple[str, dict[str, Any], Mapping[str, Any]]:
    """Name with its tag, no arguments, and the pretrained configuration of a timm model."""
    wanted = name.removeprefix(TIMM)
    try:
        found = timm.get_pretrained_cfg(wanted, allow_unregistered=False) if timm.is_model(wanted) else None
    except RuntimeError:
        found = None  # it has the architecture, not the tag
    if found is None:
        near = difflib.get_close_matches(wanted, timm.list_models() + timm.list_pretrained(), n=1)
        suggestion = f", did you mean {TIMM}{near[0]}?" if near else ""
        raise ConfigError(f"features.backbone: timm {timm.__version__} has no model {wanted!r}{suggestion}")
    architecture = wanted.partition(".")[0]
    return f"{architecture}.{found.tag}" if found.tag else architecture, {}, found.to_dict()


def _read_config(name: str) -> tuple[str, dict[str, Any], Mapping[str, Any]]:
    """Architecture, its arguments and pretrained configuration, from a ``config.json`` as timm writes it."""
    file = _find_config(name)
    try:
        content = read_json(file, _MOST_BYTES)
    except DataError as error:
        raise WeightsError(f"backbone {name}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("architecture"), str):
        raise WeightsError(f"backbone {name}: {file} names no 'architecture' of timm; pass the weights with --weights")
    known, arguments = content.get("pretrained_cfg", content), content.get("model_args") or {}
    if not isinstance(known, dict) or not isinstance(arguments, dict):
        raise WeightsError(f"backbone {name}: {file} is damaged: 'pretrained_cfg' or 'model_args' is no object")
    return content["architecture"], arguments, known


def _find_config(name: str) -> Path:
    if name.startswith(LOCAL_DIR):
        return expand_user(name.removeprefix(LOCAL_DIR)) / "config.json"
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name.removeprefix(HF_HUB), "config.json")
    except ValueError as error:
        raise ConfigError(f"backbone {name}: {one_line(str(error))}") from error
    if not isinstance(found, str):
        raise WeightsError(f"no config.json of {name} on this machine; run: umscosod weights get {name}")
    return Path(found)
