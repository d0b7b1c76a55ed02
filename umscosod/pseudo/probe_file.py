"""A fitted probe as a file, so that it can label collections it was not fitted on.

A safetensors file: ``mean`` and ``weights``, float64, (F,), ``bias`` and ``spread``, float64, (1,). Its metadata has
one entry, as the order of several is not fixed and a job taken up again must end with the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from umscosod.data.files import open_atomic
from umscosod.errors import CheckpointError, shorten
from umscosod.pseudo.probe import LinearProbe

_NAMES = ("mean", "weights", "bias", "spread")
_BACKBONES = "backbone_ids"


def save_probe(file: Path, probe: LinearProbe, backbone_ids: tuple[str, str]) -> None:
    """Write a probe, whole or not at all.

    Parameters
    ----------
    file : Path
    probe : LinearProbe
    backbone_ids : (str, str)
        Of the two streams whose patches it was fitted on.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    arrays = {
        "mean": np.ascontiguousarray(probe.mean_F, np.float64),
        "weights": np.ascontiguousarray(probe.weights_F, np.float64),
        "bias": np.array([probe.bias]),
        "spread": np.array([probe.spread]),
    }
    with open_atomic(file) as stream:
        stream.write(save(arrays, {_BACKBONES: json.dumps(backbone_ids)}))


def load_probe(file: Path, backbone_ids: tuple[str, str]) -> LinearProbe | None:
    """Read what `save_probe` wrote.

    Parameters
    ----------
    file : Path
    backbone_ids : (str, str)
        Of the two streams it is to be used on.

    Returns
    -------
    LinearProbe or None
        None where there is no such file.

    Raises
    ------
    CheckpointError
        The file is damaged, or fitted on patches of other backbones.
    """
    if not file.exists():
        return None
    if not file.is_file():  # a FIFO would be waited for
        raise _damaged(file, "it is no regular file")
    try:
        with safe_open(file, framework="numpy") as content:
            mean_F, weights_F, bias, spread = (content.get_tensor(name) for name in _NAMES)
            fitted_on = json.loads((content.metadata() or {})[_BACKBONES])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # AttributeError: numpy lacks some of the types that a tensor may have, such as bfloat16
        raise _damaged(file, f"{type(error).__name__}: {shorten(str(error), quoted=False)}") from None
    if {one.dtype.kind for one in (mean_F, weights_F, bias, spread)} != {"f"}:
        raise _damaged(file, "it holds what is no number with a fraction")
    if mean_F.ndim != 1 or mean_F.shape != weights_F.shape or not bias.shape == spread.shape == (1,):
        shapes = ", ".join(str(one.shape) for one in (mean_F, weights_F, bias, spread))
        raise _damaged(file, f"its arrays have the shapes {shapes}")
    if not all(np.isfinite(one).all() for one in (mean_F, weights_F, bias, spread)) or spread[0] <= 0.0:
        raise _damaged(file, f"it holds NaN, infinity, or a spread of {spread[0]}")
    if fitted_on != list(backbone_ids):
        raise CheckpointError(
            f"{file} was fitted on patches of {shorten(fitted_on)}, not of {list(backbone_ids)}; use the backbones, "
            "weights and size of its training, or train again"
        )
    return LinearProbe(mean_F=mean_F, weights_F=weights_F, bias=float(bias[0]), spread=float(spread[0]))


def _damaged(file: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is damaged: {why}; train again, or remove the file to predict with the network alone"
    )
