"""Decode predictions and ground truths as 8-bit grey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from umscosod.data.opening import open_picture, reading
from umscosod.errors import DataError
from umscosod.evaluation.suspicious import Suspicious
from umscosod.types import ByteArray

SIXTEEN_BIT_MAX = 65535


def open_grey(path: Path, suspicious: Suspicious | None = None) -> Image.Image:
    """One picture in Pillow's mode ``L``.

    Colour becomes luma, transparency is dropped (as both tools do); 16-bit grey is scaled to 8 bits.

    Parameters
    ----------
    path : Path
    suspicious : Suspicious, optional
        Remembers a picture that lost its content on the way.

    Raises
    ------
    DataError
        The file is missing, damaged, empty, or holds 32-bit values.
    """
    with reading("picture", path, "make the file again or remove the pair"), open_picture(path) as picture:
        if picture.mode == "F":
            raise DataError(f"{path}: 32-bit values cannot be scored; save the map as 8-bit grey (0 to 255)")
        grey = scale_16_bit(picture, path) if picture.mode.startswith("I") else picture.convert("L")
        if suspicious is not None:
            suspicious.look_at_file(picture, grey, path)
        return grey


def scale_16_bit(picture: Image.Image, path: Path) -> Image.Image:
    """16-bit grey to 8 bits, 65535 becoming 255, rounded to the nearest."""
    values = np.asarray(picture, dtype=np.int64)
    if values.min() < 0 or values.max() > SIXTEEN_BIT_MAX:
        raise DataError(f"{path}: values from {values.min()} to {values.max()} are not 16-bit grey; save as 8 bits")
    return Image.fromarray(((values * 255 + SIXTEEN_BIT_MAX // 2) // SIXTEEN_BIT_MAX).astype(np.uint8))


def read_pair(pred: Path, gt: Path, suspicious: Suspicious | None = None) -> tuple[ByteArray, ByteArray]:
    """Prediction and ground truth at the size of the ground truth.

    Returns
    -------
    (ndarray, ndarray), uint8, (H, W) each
        See `fit_to_truth`.

    Raises
    ------
    DataError
        See `open_grey`.
    """
    truth, prediction = open_grey(gt, suspicious), open_grey(pred, suspicious)
    if suspicious is not None:
        suspicious.look_at_sizes(prediction, truth, pred)
    return fit_to_truth(prediction, truth)


def fit_to_truth(prediction: Image.Image, truth: Image.Image) -> tuple[ByteArray, ByteArray]:
    """Both as arrays of the size of the ground truth.

    A prediction of another size is resized by Pillow's bilinear filter on 8 bits, which smooths when it shrinks.

    Parameters
    ----------
    prediction, truth : Image of mode ``L``

    Returns
    -------
    (ndarray, ndarray), uint8, (H, W) each
        Read-only views where nothing was resized.

    Examples
    --------
    >>> black, grey = Image.new("L", (2, 1), 0), Image.new("L", (4, 2), 100)
    >>> [array.shape for array in fit_to_truth(grey, black)]
    [(1, 2), (1, 2)]
    """
    if prediction.size != truth.size:
        prediction = prediction.resize(truth.size, Image.Resampling.BILINEAR)
    return np.asarray(prediction), np.asarray(truth)
