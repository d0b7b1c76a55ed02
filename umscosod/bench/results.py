"""What a bench hands back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from umscosod.evaluation import Evaluation
from umscosod.evaluation.report import Measure

SHOWN: tuple[Measure, ...] = ("mae", "s", "f_max", "e_max", "iou")
TITLES: Mapping[Measure, str] = {"mae": "MAE", "s": "S", "f_max": "maxF", "e_max": "maxE", "iou": "IoU"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One method on one data set.

    Attributes
    ----------
    dataset, method : str
    masks, maps : Evaluation or None
        Of the final masks and of the soft maps; None where it went wrong.
    predictions : dict of str to Path
        Mask file by image id.
    seconds : float or None
        Wall time of the whole job an image, features at hand; None where it was not measured in one go.
    error : str
        Why there is no score.
    """

    dataset: str
    method: str
    masks: Evaluation | None = None
    maps: Evaluation | None = None
    predictions: Mapping[str, Path] = field(default_factory=dict)
    seconds: float | None = None
    error: str = ""

    def figure(self, measure: Measure, *, of_maps: bool = False) -> float | None:
        """A measure of the data set; None where it went wrong."""
        evaluation = self.maps if of_maps else self.masks
        return None if evaluation is None else float(getattr(evaluation.dataset, measure))


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchReport:
    """Outcome of a bench.

    Attributes
    ----------
    out : Path
    methods : tuple of str
        Rows of the tables.
    cells : tuple of Cell
    encoding : dict of str to float
        Seconds that features take an image, by data set.
    pictures : dict
        By data set and image id: the image file and its ground truth, of those that are scored.
    notes : tuple of str
    facts : dict of str to str
        Definition, refinement and seed, for the head of the tables.
    backbones : tuple of str
        Ids of the two streams.
    """

    out: Path
    methods: tuple[str, ...]
    cells: tuple[Cell, ...]
    encoding: dict[str, float]
    pictures: Mapping[str, Mapping[str, tuple[Path, Path]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    backbones: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets in the order they were run."""
        return tuple(dict.fromkeys(cell.dataset for cell in self.cells))

    def cell(self, dataset: str, method: str) -> Cell:
        """The one of a data set and a method."""
        return next(cell for cell in self.cells if (cell.dataset, cell.method) == (dataset, method))

    def mean(self, method: str, measure: Measure, *, of_maps: bool = False) -> float | None:
        """Mean over data sets, each counting once; None if one of them has no score."""
        figures = [self.cell(dataset, method).figure(measure, of_maps=of_maps) for dataset in self.datasets]
        known = [figure for figure in figures if figure is not None]
        return math.fsum(known) / len(known) if known and len(known) == len(figures) else None

    @property
    def exit_code(self) -> int:
        """0 all well, 1 if anything failed, 3 if nothing was scored."""
        if not any(cell.masks for cell in self.cells):
            return 3
        return int(any(cell.error for cell in self.cells))
