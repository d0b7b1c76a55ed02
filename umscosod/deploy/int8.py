"""Backbones with weights of eight bits, and what they cost: the maps of both, side by side."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umscosod.deploy.graphs import network_inputs, run_session
from umscosod.errors import DataError
from umscosod.pipeline.predictor import CoSalPredictor
from umscosod.types import BoolArray, ByteArray, FloatArray

MASK_LEVEL = 0.5
"""A pixel is of the mask where the map is above."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Loss:
    """How far maps are from those of the float graphs.

    Attributes
    ----------
    groups, images : int
        Compared.
    largest_difference, mean_difference : float
        Of the maps' pixels.
    mean_iou, least_iou : float
        Of the masks above `MASK_LEVEL`, over images; two empty masks count as equal.
    """

    groups: int
    images: int
    largest_difference: float
    mean_difference: float
    mean_iou: float
    least_iou: float


def write_int8(file: Path, target: Path) -> None:
    """Write a graph whose matrices of weights are int8, scaled by column; activations are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The embedding of patches, a convolution, stays float: it is a small part, and int8 convolutions are slow.
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises, on the root logger, to infer shapes first: torch's exporter has
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_dynamic(
                file, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
            )
    finally:
        root.setLevel(level)


def measure_loss(
    exact: CoSalPredictor, short: CoSalPredictor, session: Any, groups: Iterable[Sequence[ByteArray]]
) -> Int8Loss:
    """Predict groups twice, by float and by int8 backbones under one exported network.

    Parameters
    ----------
    exact, short : CoSalPredictor
        With backbones of `umscosod.deploy.graphs.OnnxBackbone`. They see one picture at a time: the scales of
        activations are made for all that is passed at once.
    session : InferenceSession
        Of the network.
    groups : iterable of sequence of ndarray, uint8, (H, W, 3)

    Raises
    ------
    DataError
        There are no pictures.
    """
    counts, largest, means, ious = 0, 0.0, [], []
    for pictures in groups:
        counts += 1
        wanted_NSS, found_NSS = (predict_exported(model, session, pictures) for model in (exact, short))
        difference_NSS = np.abs(wanted_NSS - found_NSS)
        largest = max(largest, float(difference_NSS.max()))
        means += difference_NSS.mean((1, 2)).tolist()
        ious += compute_ious(wanted_NSS > MASK_LEVEL, found_NSS > MASK_LEVEL)
    if not means:
        raise DataError("there is no picture to measure int8 on; name a folder with one sub-folder a group")
    return Int8Loss(
        groups=counts,
        images=len(means),
        largest_difference=largest,
        mean_difference=float(np.mean(means)),
        mean_iou=float(np.mean(ious)),
        least_iou=min(ious),
    )


def predict_exported(model: CoSalPredictor, session: Any, pictures: Sequence[ByteArray]) -> FloatArray:
    """Maps of a group by the exported network, float32 (N, S, S), from what the model's backbones give."""
    assert model.network is not None
    (maps_NSS,) = run_session(session, network_inputs(model.network, model.encode(pictures)))
    return maps_NSS


def compute_ious(first_NSS: BoolArray, second_NSS: BoolArray) -> list[float]:
    """IoU of the masks of each picture; 1 where both are empty.

    Examples
    --------
    >>> masks = np.array([[[True, False]], [[False, False]]])
    >>> compute_ious(masks, np.array([[[True, True]], [[False, False]]]))
    [0.5, 1.0]
    """
    both, either = (np.count_nonzero(masks, axis=(1, 2)) for masks in (first_NSS & second_NSS, first_NSS | second_NSS))
    return [float(shared / total) if total else 1.0 for shared, total in zip(both, either, strict=True)]
