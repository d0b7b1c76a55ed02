"""What a comparison of two evaluations found.

One sign everywhere: a *gain* is how much better A is than B in some measure, ``A - B`` or, for MAE, ``B - A``. Above 0
A is better, whatever the measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from umscosod.errors import ConfigError
from umscosod.evaluation.report import Measure
from umscosod.evaluation.scores import Curves, Definition
from umscosod.words import count_of

Float64Array = npt.NDArray[np.float64]
Side = Literal["a", "b", "equal"]
TOLERANCE = 1e-6
"""Figures closer than this count as equal: the same masks, rounded differently."""
BINS = 31
"""Bars of a histogram of gains."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureRow:
    """One measure of both evaluations, over all images of each.

    Attributes
    ----------
    measure, label : str
    a, b : float
    gain : float
        How much better A is: ``a - b``, for MAE ``b - a``.
    """

    measure: Measure
    label: str
    a: float
    b: float
    gain: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRow:
    """One group in one measure; a side that did not evaluate it has 0 images and None.

    Attributes
    ----------
    group : str
    n_a, n_b : int
        Images.
    a, b, gain : float or None
    """

    group: str
    n_a: int
    n_b: int
    a: float | None
    b: float | None
    gain: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Evaluation A against evaluation B.

    Attributes
    ----------
    eval_a, eval_b : str
        Keys of the evaluations.
    measure : str
        Of the groups and the images.
    definition : {"cosod", "sod"}
        What the figures mean; both have the same.
    rows : tuple of MeasureRow
        All nine measures over the data set.
    groups : tuple of GroupRow
        By gain, the groups where A is best first; those only one side has come last.
    sample_ids : tuple of str
        The N images that both have scored.
    values_a_N, values_b_N, gains_N : ndarray, float64, (N,)
    curves_a, curves_b : Curves
        Means over the data set.
    tolerance : float
    notes : tuple of str
        Why the figures may not be comparable.
    """

    eval_a: str
    eval_b: str
    measure: Measure
    definition: Definition
    rows: tuple[MeasureRow, ...]
    groups: tuple[GroupRow, ...]
    sample_ids: tuple[str, ...]
    values_a_N: Float64Array
    values_b_N: Float64Array
    gains_N: Float64Array
    curves_a: Curves
    curves_b: Curves
    tolerance: float = TOLERANCE
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Images that both have scored."""
        return len(self.sample_ids)

    @property
    def n_a_better(self) -> int:
        """Images where A is better."""
        return int((self.gains_N > self.tolerance).sum())

    @property
    def n_b_better(self) -> int:
        """Images where B is better."""
        return int((self.gains_N < -self.tolerance).sum())

    @property
    def n_equal(self) -> int:
        """Images where they differ by no more than the tolerance."""
        return self.n - self.n_a_better - self.n_b_better

    @property
    def summary(self) -> str:
        """One sentence for people."""
        row = next(row for row in self.rows if row.measure == self.measure)
        return "; ".join(
            [
                f"{row.label} ({self.definition}): A {self.eval_a} {row.a:.3f}, B {self.eval_b} {row.b:.3f}; of "
                f"{count_of(self.n, 'image')} A is better in {self.n_a_better}, "
                f"B in {self.n_b_better}, {self.n_equal} are equal",
                *self.notes,
            ]
        )

    @property
    def is_success(self) -> bool:
        """Whether nothing speaks against the comparison."""
        return not self.notes

    def ids_where(self, better: Side) -> list[str]:
        """Images where one side is better, largest difference first (ties in the data set's order).

        Parameters
        ----------
        better : {"a", "b", "equal"}

        Raises
        ------
        ConfigError
            None of the three.
        """
        if better == "a":
            mask_N, order_N = self.gains_N > self.tolerance, -self.gains_N
        elif better == "b":
            mask_N, order_N = self.gains_N < -self.tolerance, self.gains_N
        elif better == "equal":
            mask_N, order_N = np.abs(self.gains_N) <= self.tolerance, np.zeros(self.n)
        else:
            raise ConfigError(f"better={better!r} must be one of a, b, equal")
        return [self.sample_ids[index] for index in np.argsort(order_N, kind="stable") if mask_N[index]]

    def ids_between(self, low: float, high: float) -> list[str]:
        """Images with ``low <= gain < high``, largest gain first."""
        inside_N = (self.gains_N >= low) & (self.gains_N < high)
        return [self.sample_ids[index] for index in np.argsort(-self.gains_N, kind="stable") if inside_N[index]]

    def histogram(self, bins: int = BINS) -> tuple[Float64Array, npt.NDArray[np.int64]]:
        """Count images by gain, in bins of one width around 0.

        Parameters
        ----------
        bins : int
            Odd, so that images without a difference have a bin of their own in the middle.

        Returns
        -------
        (ndarray, ndarray), float64 and int64, (bins + 1,) and (bins,)
            Edges and counts. Each bin holds ``ids_between(edges[i], edges[i + 1])``.
        """
        reach = float(np.abs(self.gains_N).max(initial=0.0)) or 1.0
        reach *= 1.0 + 1e-9  # the largest gain lies inside the last bin
        edges = np.linspace(-reach, reach, bins + 1)
        place_N = np.searchsorted(edges, self.gains_N, side="right") - 1
        return edges, np.bincount(place_N, minlength=bins).astype(np.int64)

    def table(self) -> list[dict[str, str]]:
        """All measures as rows of text: ``measure``, ``a``, ``b``, ``gain``."""
        return [
            {"measure": row.label, "a": f"{row.a:.4f}", "b": f"{row.b:.4f}", "gain": f"{row.gain:+.4f}"}
            for row in self.rows
        ]
