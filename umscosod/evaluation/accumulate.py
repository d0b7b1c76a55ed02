"""Running sums: images come one by one, groups and the data set come out.

Maximum F and E of a group or a data set are maxima of the **mean curve** over its images, not means of maxima.
"""

from __future__ import annotations

import numpy as np

from umscosod.errors import DataError
from umscosod.evaluation.scores import Curves, ImageMeasures, Scores

CURVES = ("precision_T", "recall_T", "f_T", "e_T")
FIGURES = ("mae", "f_adaptive", "e_adaptive", "s", "iou")


class MeanOfImages:
    """Mean figures and mean curves over the images added so far; holds sums only.

    Examples
    --------
    >>> from umscosod.evaluation.measures import compute_measures
    >>> mask, nothing = np.eye(4, dtype=np.uint8) * 255, np.zeros((4, 4), np.uint8)
    >>> mean = MeanOfImages()
    >>> mean.add(compute_measures(mask, mask))
    >>> mean.add(compute_measures(nothing, mask))
    >>> mean.scores().n, mean.scores().mae, mean.scores().iou  # errors 0 and 4/16, IoU 1 and 0
    (2, 0.125, 0.5)
    """

    def __init__(self) -> None:
        self._count = 0
        self._undefined_s = 0
        self._sums = dict.fromkeys(FIGURES, 0.0)
        self._thresholds_T = np.zeros(0)
        self._curve_sums_CT = np.zeros((len(CURVES), 0))

    def add(self, measures: ImageMeasures) -> None:
        """Add one image, measured under the same definition as all before.

        Raises
        ------
        DataError
            The thresholds are not those of the images before.
        """
        curves = measures.curves
        if self._count == 0:
            self._thresholds_T = curves.thresholds_T
            self._curve_sums_CT = np.zeros((len(CURVES), len(curves.thresholds_T)))
        elif not np.array_equal(self._thresholds_T, curves.thresholds_T):
            raise DataError("measures of two definitions cannot be averaged: their thresholds differ")
        self._count += 1
        self._undefined_s += measures.is_s_undefined
        for figure in FIGURES:
            self._sums[figure] += getattr(measures, figure)
        self._curve_sums_CT += np.stack([getattr(curves, name) for name in CURVES])

    def curves(self) -> Curves:
        """Mean precision, recall, F and E at each threshold.

        Raises
        ------
        DataError
            No image was added.
        """
        if self._count == 0:
            raise DataError("no image was added, so there is no mean")
        means_CT = self._curve_sums_CT / self._count
        return Curves(thresholds_T=self._thresholds_T, **dict(zip(CURVES, means_CT, strict=True)))

    def scores(self) -> Scores:
        """Means over images, with maximum and mean of the mean F and E curves.

        Raises
        ------
        DataError
            No image was added.
        """
        curves = self.curves()
        means = {figure: total / self._count for figure, total in self._sums.items()}
        return Scores(
            n=self._count,
            f_max=float(curves.f_T.max()),
            f_mean=float(curves.f_T.mean()),
            e_max=float(curves.e_T.max()),
            e_mean=float(curves.e_T.mean()),
            undefined_s=self._undefined_s,
            **means,
        )


class MeanOfGroups:
    """One `MeanOfImages` for the data set and one for each group.

    Attributes
    ----------
    dataset : MeanOfImages
    groups : dict of str to MeanOfImages
        In the order in which groups were first seen.
    """

    def __init__(self) -> None:
        self.dataset = MeanOfImages()
        self.groups: dict[str, MeanOfImages] = {}

    def add(self, group: str, measures: ImageMeasures) -> None:
        """Add one image of a group."""
        self.dataset.add(measures)
        self.groups.setdefault(group, MeanOfImages()).add(measures)
