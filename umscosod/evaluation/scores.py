"""Holds the scores of a pair and of many: curves, sums, means.

Legend: ``T`` thresholds, ascending (255 of them in the definition ``cosod``, 256 in ``sod``).

Maximum F and E of a group or a data set are maxima of the **mean curve** over its images, not means of maxima.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from umscosod.errors import ConfigError, DataError

Float64Array = npt.NDArray[np.float64]
Definition = Literal["cosod", "sod"]
DEFINITIONS: tuple[Definition, ...] = get_args(Definition)


def check_definition(definition: str) -> Definition:
    """Return the name if it is one of the two definitions.

    Raises
    ------
    ConfigError
    """
    if definition not in DEFINITIONS:
        raise ConfigError(f"unknown definition {definition!r} of the measures; choose one of {', '.join(DEFINITIONS)}")
    return definition


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """Measures as functions of the threshold.

    Attributes
    ----------
    thresholds_T : ndarray, float64, (T,), ascending in [0, 1]
    precision_T, recall_T, f_T, e_T : ndarray, float64, (T,)
        Of one image, or the mean over images.
    """

    thresholds_T: Float64Array
    precision_T: Float64Array
    recall_T: Float64Array
    f_T: Float64Array
    e_T: Float64Array


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageMeasures:
    """All measurements of one pair; `Curves` hold F and E at each threshold.

    Attributes
    ----------
    mae, f_adaptive, e_adaptive, s, iou : float
    is_s_undefined : bool
        The tool behind the definition gives NaN for S; then `s` is computed with weight 0 for empty quadrants and
        deviation 0 for one pixel.
    curves : Curves
    """

    mae: float
    f_adaptive: float
    e_adaptive: float
    s: float
    iou: float
    is_s_undefined: bool
    curves: Curves


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The nine figures of an image, a group or a data set; max and mean are of its own or its mean curve."""

    mae: float
    f_max: float
    f_mean: float
    f_adaptive: float
    e_max: float
    e_mean: float
    e_adaptive: float
    s: float
    iou: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageScores(Figures):
    """One row of the table of images.

    Max and mean are of the image's own curve; their average over images is not the data set's score.

    Attributes
    ----------
    name : str
        Relative path of the ground truth without suffix, ``"cat/0007"``.
    group : str
    is_s_undefined : bool
        See `ImageMeasures`.
    """

    name: str
    group: str
    is_s_undefined: bool

    @classmethod
    def from_measures(cls, name: str, group: str, measures: ImageMeasures) -> ImageScores:
        """Reduce the curves of one image to their maximum and mean."""
        figures = {figure: getattr(measures, figure) for figure in FIGURES} | _reduce(measures.curves)
        return cls(name=name, group=group, is_s_undefined=measures.is_s_undefined, **figures)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores(Figures):
    """Scores of a group or a data set: means over its images; max and mean of F and E are of the mean curve.

    Attributes
    ----------
    n : int
        Number of images.
    undefined_s : int
        Number of images for which the tool behind the definition gives NaN for S (see `ImageMeasures`).
    """

    n: int
    undefined_s: int


def _reduce(curves: Curves) -> dict[str, float]:
    return {
        "f_max": float(curves.f_T.max()),
        "f_mean": float(curves.f_T.mean()),
        "e_max": float(curves.e_T.max()),
        "e_mean": float(curves.e_T.mean()),
    }


CURVES = ("precision_T", "recall_T", "f_T", "e_T")
FIGURES = ("mae", "f_adaptive", "e_adaptive", "s", "iou")


class MeanOfImages:
    """Mean scores and mean curves over the images added so far; holds sums only.

    Examples
    --------
    >>> from umscosod.evaluation.scoring import compute_measures
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
        """Add one image, measured under the same definition as all earlier ones.

        Raises
        ------
        DataError
            The thresholds differ from those of the earlier images.
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
        """Return mean precision, recall, F and E at each threshold.

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
        """Return means over images, with maximum and mean of the mean F and E curves.

        Raises
        ------
        DataError
            No image was added.
        """
        figures = _reduce(self.curves())
        figures |= {figure: total / self._count for figure, total in self._sums.items()}
        return Scores(n=self._count, undefined_s=self._undefined_s, **figures)


class MeanOfGroups:
    """One `MeanOfImages` for the data set and one for each group.

    Attributes
    ----------
    dataset : MeanOfImages
    groups : dict of str to MeanOfImages
        In order of first appearance.
    """

    def __init__(self) -> None:
        self.dataset = MeanOfImages()
        self.groups: dict[str, MeanOfImages] = {}

    def add(self, group: str, measures: ImageMeasures) -> None:
        """Add one image of a group."""
        self.dataset.add(measures)
        self.groups.setdefault(group, MeanOfImages()).add(measures)
