"""PySODMetrics on one pair, with thresholds ascending."""

from __future__ import annotations

import warnings

import numpy as np
import py_sod_metrics


def measure(pred, gt):
    """All measures of one pair; S is NaN where the tool makes it so."""
    with warnings.catch_warnings():
        # the tool's own: a deprecation at each construction, and means of empty quadrants
        warnings.simplefilter("ignore")
        iou = py_sod_metrics.IOUHandler(with_dynamic=False, with_adaptive=False, with_binary=True)
        tools = {
            "mae": py_sod_metrics.MAE(),
            "f": py_sod_metrics.Fmeasure(),
            "e": py_sod_metrics.Emeasure(),
            "s": py_sod_metrics.Smeasure(),
            "iou": py_sod_metrics.FmeasureV2({"iou": iou}),
        }
        for tool in tools.values():
            tool.step(pred, gt)
        results = {name: tool.get_results() for name, tool in tools.items()}
    return {
        "mae": results["mae"]["mae"],
        "precision_T": results["f"]["pr"]["p"][::-1],
        "recall_T": results["f"]["pr"]["r"][::-1],
        "f_T": results["f"]["fm"]["curve"][::-1],
        "f_adaptive": results["f"]["fm"]["adp"],
        "e_T": results["e"]["em"]["curve"][::-1],
        "e_adaptive": results["e"]["em"]["adp"],
        "s": results["s"]["sm"],
        "iou": np.float64(results["iou"]["iou"]["binary"]),
    }
