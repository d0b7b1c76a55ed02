"""The measures of the definition ``cosod`` the slow way: float32 tensors, one pass over the pixels per threshold.

Written from the definition, not from the histogram code, and sharing nothing with it: the thresholds come from
torch's own linspace. NaN is left as it comes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from umscosod.types import ByteArray, FloatArray


def to_unit(picture: ByteArray) -> Tensor:
    """Grey levels as float32 in [0, 1]."""
    return torch.from_numpy(picture.astype(np.float32)) / 255


def stretch(p: Tensor) -> Tensor:
    """Min-max a map."""
    return (p - p.min()) / (p.max() - p.min() + 1e-20)


def mae(pred: ByteArray, gt: ByteArray) -> float:
    """Mean absolute error."""
    return (to_unit(pred) - to_unit(gt)).abs().mean().item()


def f_curve(pred: ByteArray, gt: ByteArray) -> FloatArray:
    """F at each threshold."""
    p, y = stretch(to_unit(pred)), to_unit(gt)
    curve = []
    for t in torch.linspace(0, 1, 255):
        chosen = (p >= t).float()
        hits = (chosen * y).sum()
        precision = hits / (chosen.sum() + 1e-20)
        recall = hits / (y.sum() + 1e-20)
        f = 1.3 * precision * recall / (0.3 * precision + recall)
        curve.append(0.0 if f.isnan() else f.item())
    return np.array(curve)


def e_curve(pred: ByteArray, gt: ByteArray) -> FloatArray:
    """E at each threshold."""
    p, y = stretch(to_unit(pred)), to_unit(gt)
    curve = []
    for t in torch.linspace(0, 1, 255):
        chosen = (p >= t).float()
        a, b = chosen - chosen.mean(), y - y.mean()
        x = 2 * a * b / (a * a + b * b + 1e-20)
        curve.append((((x + 1) * (x + 1) / 4).sum() / (y.numel() - 1 + 1e-20)).item())
    return np.array(curve)


def object_score(values: Tensor) -> Tensor:
    """Object part of S over the values of one side."""
    m = values.mean()
    deviation = values.std() if len(values) > 1 else float("nan")  # what std() gives too, with a warning
    return 2 * m / (m * m + 1 + deviation + 1e-20)


def similarity(p: Tensor, y: Tensor) -> float:
    """Structural similarity of one quadrant."""
    mx, my, below = p.mean(), y.mean(), p.numel() - 1 + 1e-20
    sx, sy = ((p - mx) ** 2).sum() / below, ((y - my) ** 2).sum() / below
    sxy = ((p - mx) * (y - my)).sum() / below
    top, bottom = 4 * mx * my * sxy, (mx * mx + my * my) * (sx + sy)
    if top == 0:
        return 1.0 if bottom == 0 else 0.0
    return (top / (bottom + 1e-20)).item()


def s_measure(pred: ByteArray, gt: ByteArray) -> float:
    """S-measure: of object and of region, half each."""
    p = stretch(to_unit(pred))
    mean = to_unit(gt).mean().item()  # of the mask as it is: one that is empty or full only when cut gives NaN below
    if mean in (0, 1):
        return p.mean().item() if mean else 1 - p.mean().item()
    y = (to_unit(gt) >= 0.5).float()
    share = y.mean().item()
    of_object = share * object_score(p[y == 1]) + (1 - share) * object_score(1 - p[y == 0])
    height, width = y.shape
    rows, columns = torch.where(y == 1)
    if len(rows) == 0:
        rows, columns = torch.tensor([height / 2]), torch.tensor([width / 2])
    r, c = int(torch.round(rows.double().mean())), int(torch.round(columns.double().mean()))
    of_region = 0.0
    for part in (np.s_[:r, :c], np.s_[:r, c:], np.s_[r:, :c], np.s_[r:, c:]):
        of_region += p[part].numel() / (height * width) * similarity(p[part], y[part])
    score = 0.5 * float(of_object) + 0.5 * of_region
    return 0.0 if score < 0 else score  # NaN stays NaN
