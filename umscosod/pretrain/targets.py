"""What the network is taught: the product's own masks of photographs that have nothing in common.

Shape suffixes: ``N`` photographs, ``S`` side in pixels, ``T`` side of a target.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from umscosod.config.io import DEFAULT_PRESET, load_config
from umscosod.data.files import open_atomic
from umscosod.device import numpy_generator
from umscosod.features.backbone import EMBEDDED
from umscosod.pipeline.predictor import CoSalPredictor, load_model
from umscosod.progress import ProgressFn
from umscosod.types import ByteArray, FloatArray

TARGET_SIDE = 56  # cells along a side of a target
GROUP = 24  # photographs labelled together: the backgrounds of the others tell what is background
_PART = 10 * GROUP  # photographs whose targets are kept in one file
_LEAST_AREA, _MOST_AREA = 0.01, 0.7  # shares of the picture between which a mask is taken for an object
_NO_TRUST, _TRUST = 0.3, 0.8  # confidences at which a mask counts for nothing, and in full


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Masks to learn, and how far each is trusted.

    Attributes
    ----------
    masks_NTT : ndarray, uint8, (N, T, T)
        Share of a cell that the mask covers, times 255.
    weights_N : ndarray, float32, (N,), in [0, 1]
        0: no object was found, or none was looked for.
    """

    masks_NTT: ByteArray
    weights_N: FloatArray


def make_targets(pictures_NSS3: ByteArray, wanted: int, seed: int, folder: Path, progress: ProgressFn) -> Targets:
    """Label photographs as `umscosod.label_groups` does without training, with the weight-free features.

    Parameters
    ----------
    pictures_NSS3 : ndarray, uint8
    wanted : int
        Photographs that get a target, drawn at random.
    seed : int
    folder : Path
        Where finished parts are kept, so that a killed run loses little; its name must tell photographs and seed.
    progress : callable
        Called as the stage ``targets``.
    """
    count = len(pictures_NSS3)
    order = numpy_generator(seed, "pretrain", "targets").permutation(count)[:wanted]
    masks_NTT, weights_N = np.zeros((count, TARGET_SIDE, TARGET_SIDE), np.uint8), np.zeros(count, np.float32)
    config = load_config(DEFAULT_PRESET, overrides={"features.backbone": EMBEDDED, "seed": seed})
    with load_model(config=config) as model:
        for start in range(0, len(order), _PART):
            chosen = order[start : start + _PART]
            file = folder / f"{start:06d}-{len(chosen)}.npz"
            if not file.is_file():
                _write_part(file, model, pictures_NSS3[chosen])
            with np.load(file) as part:
                masks_NTT[chosen], weights_N[chosen] = part["masks"], part["weights"]
            progress(start + len(chosen), len(order), "targets")
    return Targets(masks_NTT=masks_NTT, weights_N=weights_N)


def _write_part(file: Path, model: CoSalPredictor, pictures_NSS3: ByteArray) -> None:
    labelled = [
        one
        for start in range(0, len(pictures_NSS3), GROUP)
        for one in model.predict_group(list(pictures_NSS3[start : start + GROUP]))
    ]
    masks = [
        cv2.resize(255 * one.mask_HW.astype(np.uint8), (TARGET_SIDE, TARGET_SIDE), interpolation=cv2.INTER_AREA)
        for one in labelled
    ]
    weights = [trust(float(one.mask_HW.mean()), one.confidence) for one in labelled]
    content = io.BytesIO()
    np.savez(content, masks=np.stack(masks), weights=np.array(weights, np.float32))
    with open_atomic(file) as stream:
        stream.write(content.getvalue())


def trust(area: float, confidence: float) -> float:
    """How far a mask is trusted, in [0, 1], by its share of the picture and its confidence.

    Examples
    --------
    >>> trust(0.2, 0.55), trust(0.2, 0.9), trust(0.9, 0.9)
    (0.5, 1.0, 0.0)
    """
    if not _LEAST_AREA <= area <= _MOST_AREA:
        return 0.0
    return min(1.0, max(0.0, round((confidence - _NO_TRUST) / (_TRUST - _NO_TRUST), 6)))
