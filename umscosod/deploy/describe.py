"""``model.json``: all that another program must know to run the exported files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import umscosod
from umscosod.deploy.graphs import AXIS, CHECKED, OPSET, TOLERANCE, Graph
from umscosod.deploy.int8 import MASK_LEVEL, Int8Loss
from umscosod.features.backbone import Backbone
from umscosod.features.cache import file_sha256
from umscosod.features.vit import VitBackbone

SCHEMA = 1
MODEL_FILE = "model.json"
_PACKAGES = ("torch", "timm", "onnx", "onnxruntime", "onnxscript")
_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}

_DECODE = "Decode every picture of the group to RGB, uint8 (height, width, 3), upright as its EXIF orientation says."
_ENCODE = (
    "For each stream: make its pixels as its preprocessing says, stack them, run its graph. Round tokens and attention "
    "to float16, and use them as float32: so the library keeps them."
)
_SALIENCY = (
    "saliency: mean of the first stream's attention over its heads (axis 1); then, for each picture, "
    "(value - least) / (largest - least), and 0 all over where these are equal."
)
_NETWORK = (
    "Run the graph network on all pictures of one group at once. Its maps are co-saliency in [0, 1] at network size; "
    "resize them bilinearly to the picture with corner pixels on corners."
)
_ORIGIN = "licence and is_label_free: of the weights published under the name; compare weights_sha256"
_BY_UMSCOSOD = (
    "features = umscosod.load_model(CHECKPOINT).encode(pictures); first_tokens: features.first.tokens_NPD, "
    "second_tokens: features.second.tokens_NPD, saliency: features.saliency_NP, pictures: features.pictures_NHW3; "
    "floats as float32"
)


def describe_stream(backbone: Backbone, graph: str | None) -> dict[str, Any]:
    """Say what a stream is and how its pixels are made, or that only this library can make its tokens."""
    known: dict[str, Any] = {
        "name": backbone.name,
        "id": backbone.id,
        "weights_sha256": backbone.weights_sha256,
        "is_label_free": backbone.is_label_free,
        "grid": list(backbone.grid_hw),
        "graph": graph,
    }
    if not isinstance(backbone, VitBackbone):
        return {
            **known,
            "licence": None,
            "origin": "of umscosod, or of the package that brings it",
            "preprocessing": None,
        }
    spec, size_px = backbone.spec, backbone.size_px
    preprocessing = {
        "colour": "RGB",
        "resize": {
            "height": size_px,
            "width": size_px,
            "keep_aspect": False,
            "filter": "bilinear",
            "antialias": True,
            "on": "uint8",
            "as": f"PIL.Image.resize(({size_px}, {size_px}), PIL.Image.Resampling.BILINEAR)",
        },
        "divide_by": 255,
        "then_subtract_mean": list(spec.mean),
        "then_divide_by_std": list(spec.std),
        "layout": [AXIS, "channel", "row", "column"],
    }
    return {**known, "licence": spec.licence, "origin": _ORIGIN, "preprocessing": preprocessing}


def describe_graph(graph: Graph, session: Any, file: Path, difference: float) -> dict[str, Any]:
    """List a graph's inputs and outputs as ONNX Runtime has them, and how it was checked."""
    return {
        "file": file.name,
        "inputs": _ports(session.get_inputs(), graph.inputs),
        "outputs": _ports(session.get_outputs(), graph.outputs),
        "checked": {"images": list(CHECKED), "tolerance": TOLERANCE, "largest_difference": difference},
    }


def _ports(found: Sequence[Any], meanings: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "dtype": _TYPES[one.type], "shape": list(one.shape), "meaning": meanings[one.name]}
        for one in found
    ]


def describe_steps(streams: Mapping[str, Mapping[str, Any]], picture_px: int | None) -> list[str]:
    """Say in words what to do from pictures to maps.

    Parameters
    ----------
    streams : mapping of str to mapping
        Of `describe_stream`.
    picture_px : int or None
        Side of the network's pictures, where it takes them.
    """
    if any(stream["graph"] is None for stream in streams.values()):
        return [_DECODE, f"In Python, with umscosod: {_BY_UMSCOSOD}.", _NETWORK]
    pictures = (
        f"pictures: every picture resized to {picture_px} x {picture_px} by the streams' filter, uint8 "
        f"({AXIS}, {picture_px}, {picture_px}, 3)."
    )
    inputs = "first_tokens, second_tokens: the tokens of the two streams."
    return [_DECODE, _ENCODE, inputs, _SALIENCY, *([pictures] if picture_px else []), _NETWORK]


def describe_int8(loss: Int8Loss, graphs: Mapping[str, str], pictures: str) -> dict[str, Any]:
    """State what int8 costs, and on what it was measured."""
    return {
        "graphs": dict(graphs),
        "use": "in place of the graphs of the same names, one picture a run, as they were measured",
        "method": "onnxruntime.quantization.quantize_dynamic: weights of MatMul int8 by column, activations uint8",
        "measured_on": {"pictures": pictures, "groups": loss.groups, "images": loss.images},
        "maps": {"largest_difference": loss.largest_difference, "mean_difference": loss.mean_difference},
        "masks": {"level": MASK_LEVEL, "mean_iou": loss.mean_iou, "least_iou": loss.least_iou},
    }


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash and size of every file, by name."""
    return {file.name: {"sha256": file_sha256(file), "bytes": file.stat().st_size} for file in sorted(folder.iterdir())}


def describe_makers() -> dict[str, Any]:
    """Versions of what wrote the files."""
    return {
        "schema": SCHEMA,
        "umscosod": umscosod.__version__,
        "versions": {name: version(name) for name in _PACKAGES},
        "format": "onnx",
        "opset": OPSET,
        "axes": {AXIS: "pictures of one group, 1 or more"},
    }
