"""What a bench hands back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umscosod.evaluation import Evaluation
from umscosod.evaluation.scoring import Measure, scores_to_json

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


_NONE = "-"


def format_report(report: BenchReport) -> str:
    """All tables: the mean over data sets, each data set, the soft maps, what went wrong.

    Returns
    -------
    str
        Markdown that ends in a newline. Figures have three digits, seconds two.
    """
    parts = ["# Bench", "\n".join(f"- {name}: {value}" for name, value in report.facts.items())]
    parts += [f"note: {note}" for note in report.notes]
    if len(report.datasets) > 1:
        parts += [f"## Mean of {len(report.datasets)} data sets, final masks", _mean_table(report)]
    for dataset in report.datasets:
        parts += [f"## {dataset}, final masks", _table(report, dataset)]
    parts += ["## Soft maps before refinement", _map_table(report)]
    errors = [f"- {cell.dataset}, {cell.method}: {cell.error}" for cell in report.cells if cell.error]
    if errors:
        parts += ["## Not scored", "\n".join(errors)]
    return "\n\n".join(parts) + "\n"


def report_to_json(report: BenchReport) -> dict[str, Any]:
    """Everything the tables show, with all measures and groups, as a dictionary that JSON can hold."""
    return {
        "facts": report.facts,
        "backbones": list(report.backbones),
        "notes": list(report.notes),
        "methods": list(report.methods),
        "datasets": list(report.datasets),
        "encoding_seconds_per_image": report.encoding,
        "cells": [
            {
                "dataset": cell.dataset,
                "method": cell.method,
                "error": cell.error,
                "seconds_per_image": cell.seconds,
                "masks": None if cell.masks is None else scores_to_json(cell.masks),
                "maps": None if cell.maps is None else scores_to_json(cell.maps),
            }
            for cell in report.cells
        ],
        "mean": {method: {measure: report.mean(method, measure) for measure in SHOWN} for method in report.methods},
    }


def _mean_table(report: BenchReport) -> str:
    def seconds(method: str, *, with_features: bool) -> float | None:
        parts = [_seconds(report, dataset, method, with_features=with_features) for dataset in report.datasets]
        known = [part for part in parts if part is not None]
        return sum(known) / len(known) if known and len(known) == len(parts) else None

    return _rows(report.methods, report.mean, seconds)


def _table(report: BenchReport, dataset: str) -> str:
    def figure(method: str, measure: Measure) -> float | None:
        return report.cell(dataset, method).figure(measure)

    def seconds(method: str, *, with_features: bool) -> float | None:
        return _seconds(report, dataset, method, with_features=with_features)

    return _rows(report.methods, figure, seconds)


def _seconds(report: BenchReport, dataset: str, method: str, *, with_features: bool) -> float | None:
    seconds = report.cell(dataset, method).seconds
    return None if seconds is None else seconds + (report.encoding[dataset] if with_features else 0.0)


def _map_table(report: BenchReport) -> str:
    """MAE, S and IoU of the maps, one column a data set."""
    head = ["method", *report.datasets] + (["mean"] if len(report.datasets) > 1 else [])
    lines = [head]
    for method in report.methods:
        columns: list[Callable[[Measure], float | None]] = [
            lambda measure, dataset=dataset, method=method: report.cell(dataset, method).figure(measure, of_maps=True)  # type: ignore[misc]
            for dataset in report.datasets
        ]
        if len(report.datasets) > 1:
            columns.append(lambda measure, method=method: report.mean(method, measure, of_maps=True))  # type: ignore[misc]
        lines.append(
            [method, *("/".join(show_figure(column(each)) for each in ("mae", "s", "iou")) for column in columns)]
        )
    return "MAE/S/IoU; IoU at 0.5.\n\n" + format_markdown(lines)


def _rows(
    methods: Sequence[str],
    figure: Callable[[str, Measure], float | None],
    seconds: Callable[..., float | None],
) -> str:
    head = ["method", *(TITLES[measure] for measure in SHOWN), "s/image", "with features"]
    lines = [head]
    for method in methods:
        timed = [show_figure(seconds(method, with_features=each), 2) for each in (False, True)]
        lines.append([method, *(show_figure(figure(method, measure)) for measure in SHOWN), *timed])
    return format_markdown(lines)


def show_figure(value: float | None, digits: int = 3) -> str:
    """Fixed number of digits; a dash for what is not known."""
    return _NONE if value is None else f"{value:.{digits}f}"


def format_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown, aligned for a terminal: the first row is the head, all columns but the first are figures."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])
