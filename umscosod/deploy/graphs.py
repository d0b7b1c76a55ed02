"""Backbones and network as ONNX graphs: written by torch's exporter, run by ONNX Runtime, compared with torch.

Shapes: ``N`` pictures of a group, ``P`` and ``Q`` patches of the two streams, ``D E`` token widths, ``A`` heads, ``S``
side of a picture in pixels.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from umscosod.errors import ExportError, reason_of, shorten
from umscosod.features.vit import VitBackbone
from umscosod.network.model import UmsNetwork, to_device
from umscosod.types import ByteArray, FloatArray, GroupFeatures

OPSET = 20
AXIS = "N"
"""The one axis of any length: the pictures of a group."""
TOLERANCE = 1e-4
"""Largest difference from torch, in every number of every output; of numbers above 1, as a share of them."""
CHECKED = (1, 2, 5)
"""Numbers of pictures at which a graph is compared with torch; it is traced with `_TRACED`."""
_TRACED = 3
_CPU = torch.device("cpu")

BACKBONE_INPUTS = {"pixels": "pictures, resized and normalised as the stream's preprocessing says"}
BACKBONE_OUTPUTS = {
    "tokens": "final tokens of the patches, row by row",
    "keys": "keys of the last block; neither the network nor a mask needs them",
    "attention": "attention of CLS to the patches in the last block, by head",
}
NETWORK_INPUTS = {
    "first_tokens": "tokens of the first stream",
    "second_tokens": "tokens of the second stream",
    "saliency": "attention of the first stream, averaged over its heads and stretched to [0, 1], for each picture",
}
NETWORK_PICTURES = {"pictures": "RGB pictures at network size, row by row"}
NETWORK_OUTPUTS = {"maps": "soft co-saliency in [0, 1]"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """A part of the model that becomes a file.

    Attributes
    ----------
    name : str
        Of its file, without ending.
    module : nn.Module
    inputs, outputs : mapping of str to str
        What each holds, by its name in the graph.
    examples : tuple of Tensor
        Inputs of as many pictures as the largest of `CHECKED`.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    examples: tuple[Tensor, ...]

    def take(self, count: int) -> tuple[Tensor, ...]:
        """Give the inputs of the first pictures."""
        return tuple(values[:count] for values in self.examples)


class _Pass(nn.Module):
    """A pass of a ViT at one picture size."""

    def __init__(self, backbone: VitBackbone) -> None:
        super().__init__()
        self.vit, self.backbone = backbone.module, backbone

    def forward(self, pixels_N3SS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.backbone.compute(pixels_N3SS)


class _Maps(nn.Module):
    """The network's finest map of a group, as `umscosod.network.model.predict_maps` gives it."""

    def __init__(self, network: UmsNetwork, features: GroupFeatures) -> None:
        super().__init__()
        self.network = network
        self.sizes_hw = features.first.grid_hw, features.second.grid_hw, features.size_hw

    def forward(
        self, first_NPD: Tensor, second_NQE: Tensor, saliency_NP: Tensor, pictures_NSS3: Tensor | None = None
    ) -> Tensor:
        logits: tuple[Tensor, ...] = self.network(first_NPD, second_NQE, saliency_NP, *self.sizes_hw, pictures_NSS3)
        return logits[-1].squeeze(1).sigmoid()


def backbone_graph(stream: str, backbone: VitBackbone, pictures: Sequence[ByteArray]) -> Graph:
    """Make the graph ``backbone-<stream>``: pixels (N, 3, S, S) to tokens, keys and attention."""
    pixels_N3SS = torch.from_numpy(np.stack([backbone.to_pixels(picture) for picture in pictures]))
    return Graph(
        name=f"backbone-{stream}",
        module=_Pass(backbone).eval(),
        inputs=BACKBONE_INPUTS,
        outputs=BACKBONE_OUTPUTS,
        examples=(pixels_N3SS,),
    )


def network_graph(network: UmsNetwork, features: GroupFeatures) -> Graph:
    """Make the graph ``network``: tokens of both streams, saliency and perhaps pictures to maps (N, S, S)."""
    return Graph(
        name="network",
        module=_Maps(network.eval(), features).eval(),
        inputs={**NETWORK_INPUTS, **(NETWORK_PICTURES if network.config.decoder.picture else {})},
        outputs=NETWORK_OUTPUTS,
        examples=network_inputs(network, features),
    )


def network_inputs(network: UmsNetwork, features: GroupFeatures) -> tuple[Tensor, ...]:
    """Give the inputs of the graph of a network, in their order."""
    arrays = (features.first.tokens_NPD, features.second.tokens_NPD, features.saliency_NP)
    tensors = tuple(to_device(array, _CPU) for array in arrays)
    if not network.config.decoder.picture:
        return tensors
    return (*tensors, torch.from_numpy(np.array(features.pictures_NHW3, order="C")))


def write_graph(graph: Graph, file: Path) -> None:
    """Trace a graph with a free number of pictures and write it.

    Raises
    ------
    ExportError
        The exporter cannot translate it.
    """
    examples = graph.take(_TRACED)
    count = torch.export.Dim(AXIS, min=1)
    try:
        with torch.no_grad(), _quiet_exporter():
            graph.module(*examples)  # what a module computes once is a constant of its graph
            program = torch.onnx.export(
                graph.module,
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=tuple({0: count} for _ in examples),
                custom_translation_table=_translations(),
                verbose=False,
            )
            assert program is not None
            program.save(file)
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(
            f"{graph.name} cannot be written as ONNX: {shorten(reason_of(error), 400, quoted=False)}; this torch "
            f"({torch.__version__}) or the architecture is not supported"
        ) from error


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What the exporter cannot translate itself: a stable sort, as which ONNX defines TopK (ties: lower index)."""
    from onnxscript import opset20 as op

    def sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        assert dim == -1
        return op.TopK(values, op.Shape(values, start=-1), axis=-1, largest=int(descending), sorted=1)

    return {torch.ops.aten.sort.stable: sort}


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Leave out what the exporter says of its own work: names it gives to axes, constants it does not fold."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def open_session(file: Path) -> Any:
    """Load a graph into ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, inputs: Sequence[Tensor]) -> list[FloatArray]:
    """Run a graph on its inputs, in their order."""
    names = [one.name for one in session.get_inputs()]
    found: list[FloatArray] = session.run(
        None, {name: values.numpy() for name, values in zip(names, inputs, strict=True)}
    )
    return found


def check_graph(graph: Graph, session: Any) -> float:
    """Compare a graph in ONNX Runtime with its module in torch, at every number of pictures of `CHECKED`.

    Returns
    -------
    float
        The largest difference; of numbers above 1, as a share of them: that is what float32 keeps.

    Raises
    ------
    ExportError
        It is above `TOLERANCE`, or no number.
    """
    largest = 0.0
    for count in CHECKED:
        inputs = graph.take(count)
        with torch.no_grad():
            given = graph.module(*inputs)
        expected = given if isinstance(given, tuple) else (given,)
        for name, wanted, found in zip(graph.outputs, expected, run_session(session, inputs), strict=True):
            exact = wanted.numpy()
            difference = float((np.abs(exact - found) / np.maximum(np.abs(exact), 1.0)).max())
            if not difference <= TOLERANCE:  # NaN is not
                raise ExportError(
                    f"{graph.name}.onnx: {name} of {count} pictures differ by {difference:.1e} between torch and ONNX "
                    f"Runtime, more than {TOLERANCE:g}; nothing was written; use the checkpoint in umscosod, and "
                    "report this"
                )
            largest = max(largest, difference)
    return largest


class OnnxBackbone(VitBackbone):
    """A ViT whose pass is a graph in ONNX Runtime; all else is that of the backbone it was written from.

    Parameters
    ----------
    backbone : VitBackbone
        On the CPU.
    file : Path
    """

    def __init__(self, backbone: VitBackbone, file: Path) -> None:
        vars(self).update(vars(backbone))
        self._session = open_session(file)

    def compute(self, pixels_N3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `VitBackbone.compute`."""
        tokens, keys, attention = run_session(self._session, (pixels_N3HW,))
        return torch.from_numpy(tokens), torch.from_numpy(keys), torch.from_numpy(attention)
