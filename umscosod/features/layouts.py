"""Key layouts of weight files: a layout is told by the name of its patch projection, and turned into timm's names.

timm's own names; the authors' of DINO (Caron et al., arXiv 2104.14294), DINOv2 (Oquab et al., arXiv 2304.07193; with
registers arXiv 2309.16588) and DINOv3 (Siméoni et al., arXiv 2508.10104); those of transformers for the same three and
for SigLIP. Around the network's own names there may be others: ``module.`` (DistributedDataParallel), ``backbone.``,
``teacher.``, ``vit.``, ``vision_model.`` and the like.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from umscosod.errors import WeightsError, shorten

logger = logging.getLogger(__name__)

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Names that one class of transformers gives; the keys of both mappings lack ``.weight`` and ``.bias``.

    Attributes
    ----------
    name : str
        For messages.
    outer : mapping of str to str
        Names outside the blocks, and timm's; ``""``: not needed for tokens.
    inner : mapping of str to str
        Names within a block, and timm's. ``attn.q``, ``attn.k``, ``attn.v``, ``mlp.gate`` and ``mlp.up`` are joined
        to timm's afterwards.
    is_eva : bool
        Whether timm's class is Eva.
    """

    name: str
    outer: Mapping[str, str]
    inner: Mapping[str, str]
    is_eva: bool = False


_NORMS = {"norm1": "norm1", "norm2": "norm2"}
_MLP = {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_GATED = {"mlp.gate_proj": "mlp.gate", "mlp.up_proj": "mlp.up", "mlp.down_proj": "mlp.fc2"}
_EMBEDDINGS = {
    "embeddings.cls_token": "cls_token",  # no password  # nosec B105
    "embeddings.mask_token": "",  # nor this  # nosec B105
    "embeddings.register_tokens": "reg_token",
}
_PROJECTED = {f"attention.{part}_proj": f"attn.{part}" for part in "qkv"} | {"attention.o_proj": "attn.proj"}

_ENCODER = _Layout(
    name="transformers' ViTModel and Dinov2Model",
    outer=_EMBEDDINGS
    | {
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "embeddings.position_embeddings": "pos_embed",
        "layernorm": "norm",
        "pooler.dense": "",
    },
    inner=_NORMS
    | _MLP
    | _GATED
    | _PROJECTED  # names in memory since transformers 5; its files keep those below
    | {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.attention.query": "attn.q",
        "attention.attention.key": "attn.k",
        "attention.attention.value": "attn.v",
        "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "mlp.weights_in": "mlp.fc1",
        "mlp.weights_out": "mlp.fc2",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
    },
)
_DINOV3 = _Layout(
    name="transformers' DINOv3ViTModel",
    outer=_EMBEDDINGS | {"embeddings.patch_embeddings": "patch_embed.proj", "norm": "norm"},
    inner=_NORMS | _GATED | _PROJECTED | {"layer_scale1.lambda1": "gamma_1", "layer_scale2.lambda1": "gamma_2"},
    is_eva=True,
)
_SIGLIP = _Layout(
    name="transformers' SiglipVisionModel",
    outer={
        "embeddings.patch_embedding": "patch_embed.proj",
        "embeddings.position_embedding.weight": "pos_embed",
        "embeddings.position_ids": "",
        "post_layernorm": "norm",
        # the pooling head comes after the tokens
        "head.probe": "",
        "head.attention.in_proj_weight": "",
        "head.attention.in_proj_bias": "",
        "head.attention.out_proj": "",
        "head.layernorm": "",
        "head.mlp.fc1": "",
        "head.mlp.fc2": "",
    },
    inner=_MLP
    | {f"self_attn.{part}_proj": f"attn.{part}" for part in "qkv"}
    | {"self_attn.out_proj": "attn.proj", "layer_norm1": "norm1", "layer_norm2": "norm2"},
)
_PATCH = "patch_embed.proj.weight"
# A layout is told by the name of its patch projection; None: the names are timm's or near to them.
_LAYOUTS: Mapping[str, _Layout | None] = {
    _PATCH: None,
    "embeddings.patch_embeddings.projection.weight": _ENCODER,
    "embeddings.patch_embeddings.weight": _DINOV3,
    "embeddings.patch_embedding.weight": _SIGLIP,
}
_BLOCK = re.compile(r"(?:encoder\.|model\.)?layers?\.(\d+)\.(.+?)(\.weight|\.bias)?")
_CHUNKED_BLOCK = re.compile(r"blocks\.\d+\.(\d+\.)")  # DINOv2 trains with blocks in chunks, counted through
_QKV = re.compile(r"(blocks\.\d+\.attn)\.([qkv])\.(weight|bias)")
_GATE = re.compile(r"(blocks\.\d+\.mlp)\.(gate|up)\.(weight|bias)")
_MEMBERS = ("teacher.", "student.")  # of one training; the teacher is the one its authors evaluate


def convert_state_dict(raw: Mapping[str, torch.Tensor]) -> StateDict:
    """Translate the names of a known layout to timm's; timm's pass through unchanged.

    Parameters
    ----------
    raw : mapping of str to Tensor

    Returns
    -------
    dict of str to Tensor
        Floating-point tensors in float32, others as they are. What does not belong to the network (training heads, a
        text model) and what serves no token (``mask_token``, pooling) is dropped. Rotary positions have no
        tensors: timm makes them.

    Raises
    ------
    WeightsError
        No layout is known by which to read it, or an entry does not belong to the layout. One line, without the file.

    Examples
    --------
    >>> raw = {"module.backbone.patch_embed.proj.weight": torch.ones(1, 1, 1, 1), "module.head.weight": torch.ones(1)}
    >>> convert_state_dict(raw)
    {'patch_embed.proj.weight': tensor([[[[1.]]]])}
    """
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in raw.items()}  # torch.compile's, at any depth
    prefix, anchor = _find_network(state)
    others = [name for name in state if not name.startswith(prefix)]
    if others:
        logger.info("weights: %d tensors outside %s are not needed (%s, ...)", len(others), prefix, shorten(others[0]))
    state = {
        name.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    layout = _LAYOUTS[anchor]
    if layout is not None:
        return _from_transformers(state, layout)
    if "storage_tokens" in state or "rope_embed.periods" in state:
        return _from_dinov3(state)
    return _from_dinov2(state)


def _find_network(state: StateDict) -> tuple[str, str]:
    """Find what comes before a network's own names, and the name of its patch projection."""
    found = [
        (name.removesuffix(anchor), anchor)
        for name in state
        for anchor in _LAYOUTS
        if name == anchor or name.endswith(f".{anchor}")
    ]
    for member in _MEMBERS:
        if len(found) > 1:
            found = [(prefix, anchor) for prefix, anchor in found if member in prefix] or found
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(shorten(prefix + anchor, quoted=False) for prefix, anchor in found[:2])
        raise WeightsError(f"more than one network in the file: {names}; save the tensors of one of them alone")
    first = shorten(next(iter(state), ""), quoted=False)
    raise WeightsError(
        f"unknown names: expected those of timm, DINO, DINOv2 or DINOv3 ({_PATCH}) or of transformers "
        f"({', '.join(anchor for anchor in _LAYOUTS if anchor != _PATCH)}); the first entry is {first}"
    )


def _from_dinov2(state: StateDict) -> StateDict:
    """Turn the names of DINO and DINOv2 into timm's."""
    renamed = {
        _CHUNKED_BLOCK.sub(r"blocks.\1", name)
        .replace(".mlp.w12.", ".mlp.fc1.")
        .replace(".mlp.w3.", ".mlp.fc2."): tensor
        for name, tensor in state.items()
        if name != "mask_token"
    }
    if "register_tokens" in renamed:
        renamed["reg_token"] = renamed.pop("register_tokens")
    return renamed


def _from_dinov3(state: StateDict) -> StateDict:
    """Turn the names of DINOv3 into those of timm's Eva."""
    parts = {".ls1.gamma": ".gamma_1", ".ls2.gamma": ".gamma_2", ".mlp.w1.": ".mlp.gate.", ".mlp.w2.": ".mlp.up."}
    parts |= {".mlp.w3.": ".mlp.fc2."}
    renamed: StateDict = {}
    for name, tensor in state.items():
        if name in ("mask_token", "rope_embed.periods") or name.startswith("local_cls_norm."):
            continue
        if name.endswith(".attn.qkv.bias_mask"):
            continue
        stem = name.removesuffix(".qkv.bias")
        if stem != name and tensor.ndim == 1 and len(tensor) % 3 == 0:
            mask = state.get(f"{name}_mask")  # of ones, and zeros at the keys
            masked = tensor if mask is None or mask.shape != tensor.shape else tensor * mask
            renamed |= {f"{stem}.{part}.bias": bias for part, bias in zip("qkv", masked.chunk(3), strict=True)}
            continue
        for theirs, ours in parts.items():
            name = name.replace(theirs, ours)
        renamed["reg_token" if name == "storage_tokens" else name] = tensor
    return _join(renamed, is_eva=True)


def _from_transformers(state: StateDict, layout: _Layout) -> StateDict:
    renamed: StateDict = {}
    for name, tensor in state.items():
        new = _rename(name, layout)
        if new is None:
            raise WeightsError(
                f"{shorten(name, quoted=False)} {tuple(tensor.shape)} is not expected: the other names are those of "
                f"{layout.name}, which has none such"
            )
        if new:
            renamed[new] = tensor
    if layout is _SIGLIP and "pos_embed" in renamed:
        renamed["pos_embed"] = renamed["pos_embed"][None]
    if not any(_GATE.fullmatch(name) and ".gate." in name for name in renamed):
        renamed = {name.replace(".mlp.up.", ".mlp.fc1."): tensor for name, tensor in renamed.items()}
    return _join(renamed, is_eva=layout.is_eva)


def _rename(name: str, layout: _Layout) -> str | None:
    """Give timm's name of an entry; empty: not needed; None: unknown."""
    if block := _BLOCK.fullmatch(name):
        index, part, kind = block.groups(default="")
        return f"blocks.{index}.{layout.inner[part]}{kind}" if part in layout.inner else None
    if name in layout.outer:
        return layout.outer[name]
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias") or stem not in layout.outer:
        return None
    return f"{layout.outer[stem]}.{kind}" if layout.outer[stem] else ""


def _join(state: StateDict, *, is_eva: bool) -> StateDict:
    """Join queries, keys and values to ``attn.qkv``, gate and value of a gated MLP to what timm has."""
    joined: StateDict = {}
    for name, tensor in state.items():
        if match := _QKV.fullmatch(name):
            stem, part, kind = match.groups()
            if is_eva and kind == "bias":
                if part != "k":
                    joined[f"{stem}.{part}_bias"] = tensor
                elif bool(tensor.any()):
                    raise WeightsError(f"{stem} has a bias of its keys that is not zero; the architecture has none")
            elif part == "q":
                joined[f"{stem}.qkv.{kind}"] = _stack(state, [f"{stem}.{part}.{kind}" for part in "qkv"])
        elif match := _GATE.fullmatch(name):
            stem, part, kind = match.groups()
            if is_eva:
                joined[f"{stem}.fc1_{'g' if part == 'gate' else 'x'}.{kind}"] = tensor
            elif part == "gate":
                joined[f"{stem}.fc1.{kind}"] = _stack(state, [f"{stem}.{part}.{kind}" for part in ("gate", "up")])
        else:
            joined[name] = tensor
    return joined


def _stack(state: StateDict, names: list[str]) -> torch.Tensor:
    """Put tensors one after the other along their first axis; WeightsError where one is missing or of another shape."""
    shapes = [tuple(state[name].shape) if name in state else None for name in names]
    if None in shapes or len(set(shapes)) > 1 or not shapes[0]:
        raise WeightsError(f"{names[0]} and its companions have the shapes {shapes}; expected equal ones")
    return torch.cat([state[name] for name in names])
