"""MAE, F, E, S and IoU of one prediction and one ground truth, from one joint histogram.

Two definitions, each equal to its tool: ``cosod`` (eval-co-sod; `umscosod.evaluation.cosod`) and ``sod``
(PySODMetrics; `umscosod.evaluation.sod`). They differ by up to 0.008 in MAE and 1e-3 elsewhere, so a figure means
nothing without the name of its definition. Adaptive F, adaptive E and IoU are PySODMetrics' under both.
"""

from __future__ import annotations

from umscosod.evaluation import cosod, sod
from umscosod.evaluation.histogram import check_pair, compute_centroid, compute_joint_histogram
from umscosod.evaluation.scores import Definition, ImageMeasures, check_definition
from umscosod.types import ByteArray


def compute_measures(pred_HW: ByteArray, gt_HW: ByteArray, definition: Definition = "cosod") -> ImageMeasures:
    """Measure one prediction against its ground truth.

    Parameters
    ----------
    pred_HW : ndarray, uint8, (H, W)
        Soft map or 0/255 mask.
    gt_HW : ndarray, uint8, (H, W)
        Mask; see the definition on what values between 0 and 255 mean.
    definition : {"cosod", "sod"}

    Returns
    -------
    ImageMeasures
        All in [0, 1], bar E, which reaches N / (N - 1) for N pixels. Never NaN. An image of a single pixel divides
        E by the definition's epsilon and is meaningless, as in both tools.

    Raises
    ------
    DataError
        Not two 8-bit grey pictures of one size.
    ConfigError
        Unknown definition.

    Examples
    --------
    >>> import numpy as np
    >>> gt = np.array([[255, 255, 0, 0]] * 4, np.uint8)
    >>> result = compute_measures(np.array([[255, 0, 0, 0]] * 4, np.uint8), gt)
    >>> result.mae, result.iou  # 4 of 16 pixels wrong; 4 of 8 object pixels found
    (0.25, 0.5)
    >>> round(float(result.curves.f_T.max()), 6)  # P = 1, R = 1/2: 0.65 / 0.8
    0.8125
    """
    check_definition(definition)
    check_pair(pred_HW, gt_HW)
    if definition == "cosod":
        split_rc = compute_centroid(cosod.is_object(gt_HW), single_precision=True)
    else:
        row, column = compute_centroid(sod.is_object(gt_HW), single_precision=False)
        split_rc = (row + 1, column + 1)
    joint = compute_joint_histogram(pred_HW, gt_HW, split_rc)
    binary = sod.BinaryCounts.from_histogram(joint)
    f_adaptive, e_adaptive = sod.compute_adaptive(binary, pred_HW)
    if definition == "cosod":
        mae, curves = cosod.compute_mae(joint), cosod.compute_curves(joint)
        s, is_s_undefined = cosod.compute_s(joint)
    else:
        mae, curves = sod.compute_mae(binary), sod.compute_curves(binary)
        s, is_s_undefined = sod.compute_s(joint, binary.p_V)
    return ImageMeasures(
        mae=mae,
        f_adaptive=f_adaptive,
        e_adaptive=e_adaptive,
        s=s,
        iou=sod.compute_iou(binary),
        is_s_undefined=is_s_undefined,
        curves=curves,
    )
