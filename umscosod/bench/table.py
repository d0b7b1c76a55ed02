"""Tables of a bench: text for the terminal, JSON, and a page with the pictures on which methods disagree."""

from __future__ import annotations

import itertools
import json
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from umscosod.data.files import open_atomic
from umscosod.data.foreign import MaskReader
from umscosod.data.mask_rules import MaskRule
from umscosod.data.resize import resize_mask
from umscosod.errors import DataError
from umscosod.evaluation import Evaluation
from umscosod.evaluation.scoring import Measure, make_finite, scores_to_json
from umscosod.export.contact_sheet import begin_page
from umscosod.export.folder import clean_markup
from umscosod.export.png import compute_grey_thumbnail, compute_thumbnail, paint_mask, write_jpeg
from umscosod.types import BoolArray

logger = logging.getLogger(__name__)

SHOWN: tuple[Measure, ...] = ("mae", "s", "f_max", "e_max", "iou")
TITLES: Mapping[Measure, str] = {"mae": "MAE", "s": "S", "f_max": "maxF", "e_max": "maxE", "iou": "IoU"}
OF_MAPS: tuple[Measure, ...] = ("mae", "s", "iou")


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
    truth_rules : dict of str to MaskRule
        How the ground truths of each data set are read.
    """

    out: Path
    methods: tuple[str, ...]
    cells: tuple[Cell, ...]
    encoding: dict[str, float]
    pictures: Mapping[str, Mapping[str, tuple[Path, Path]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    backbones: tuple[str, ...] = ()
    truth_rules: Mapping[str, MaskRule] = field(default_factory=dict)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets in the order they were run."""
        return tuple(dict.fromkeys(cell.dataset for cell in self.cells))

    def cell(self, dataset: str, method: str) -> Cell:
        """The one of a data set and a method."""
        return next(cell for cell in self.cells if (cell.dataset, cell.method) == (dataset, method))

    def figure(
        self, method: str, measure: Measure, dataset: str | None = None, *, of_maps: bool = False
    ) -> float | None:
        """A measure of a data set, or the mean over all, each counting once; None if one of them has no score."""
        if dataset is not None:
            return self.cell(dataset, method).figure(measure, of_maps=of_maps)
        return _mean_of([self.figure(method, measure, each, of_maps=of_maps) for each in self.datasets])

    def seconds(self, method: str, dataset: str | None = None, *, with_features: bool) -> float | None:
        """Seconds an image on a data set, or the mean over all; None if one of them was not measured."""
        if dataset is None:
            return _mean_of([self.seconds(method, each, with_features=with_features) for each in self.datasets])
        seconds = self.cell(dataset, method).seconds
        return None if seconds is None else seconds + (self.encoding[dataset] if with_features else 0.0)

    @property
    def exit_code(self) -> int:
        """0 all well, 1 if anything failed, 3 if nothing was scored."""
        if not any(cell.masks for cell in self.cells):
            return 3
        return int(any(cell.error for cell in self.cells))


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def format_report(report: BenchReport) -> str:
    """All tables: the mean over data sets, each data set, the soft maps, what went wrong.

    Returns
    -------
    str
        Markdown that ends in a newline. Figures have three digits, seconds two.
    """

    def table(dataset: str | None) -> str:
        lines = [["method", *(TITLES[measure] for measure in SHOWN), "s/image", "with features"]]
        for method in report.methods:
            figures = (show_figure(report.figure(method, measure, dataset)) for measure in SHOWN)
            timed = (report.seconds(method, dataset, with_features=each) for each in (False, True))
            lines.append([method, *figures, *(show_figure(seconds, 2) for seconds in timed)])
        return format_markdown(lines)

    maps = {method: partial(report.figure, method, of_maps=True) for method in report.methods}
    sections = format_sections(report, "##", table, f"MAE/S/IoU; IoU at 0.5.\n\n{format_maps(report, 'method', maps)}")
    return format_document(
        "Bench", "\n".join(f"- {name}: {value}" for name, value in report.facts.items()), report, sections
    )


def format_document(title: str, head: str, report: BenchReport, sections: Sequence[str]) -> str:
    """Put sections between title and notes above, and what was not scored below."""
    parts = [f"# {title}", head, *(f"note: {note}" for note in report.notes), *sections]
    errors = [f"- {cell.dataset}, {cell.method}: {cell.error}" for cell in report.cells if cell.error]
    if errors:
        parts += ["## Not scored", "\n".join(errors)]
    return "\n\n".join(parts) + "\n"


def format_sections(report: BenchReport, level: str, table: Callable[[str | None], str], maps: str) -> list[str]:
    """Headings and tables: the mean over data sets (`table` of None), each data set, the soft maps."""
    several = len(report.datasets) > 1
    parts = [f"{level} Mean of {len(report.datasets)} data sets, final masks", table(None)] if several else []
    for dataset in report.datasets:
        parts += [f"{level} {dataset}, final masks", table(dataset)]
    return [*parts, f"{level} Soft maps before refinement", maps]


def format_maps(report: BenchReport, head: str, rows: Mapping[str, Callable[..., float | None]]) -> str:
    """Table of MAE, S and IoU, one column a data set and one for their mean.

    Parameters
    ----------
    report : BenchReport
    head : str
    rows : mapping of str to callable
        By title: gives the figure of a measure and a data set, None for the mean.
    """
    columns: list[str | None] = [*report.datasets, *([None] if len(report.datasets) > 1 else [])]
    lines = [[head, *(dataset or "mean" for dataset in columns)]]
    for title, figure in rows.items():
        cells = ("/".join(show_figure(figure(measure, dataset)) for measure in OF_MAPS) for dataset in columns)
        lines.append([title, *cells])
    return format_markdown(lines)


def save_tables(out: Path, name: str, content: Mapping[str, Any], text: str) -> None:
    """Write ``OUT/NAME.json`` and ``OUT/NAME.md``."""
    stored = json.dumps(make_finite(content), indent=1, ensure_ascii=False, allow_nan=False)
    for suffix, data in (("json", stored), ("md", text)):
        with open_atomic(out / f"{name}.{suffix}") as stream:
            stream.write(data.encode("utf-8", "replace"))


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
        "mean": {method: {measure: report.figure(method, measure) for measure in SHOWN} for method in report.methods},
    }


def show_figure(value: float | None, digits: int = 3) -> str:
    """Fixed number of digits; a dash for what is not known."""
    return "-" if value is None else f"{value:.{digits}f}"


def format_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown, aligned for a terminal: the first row is the head, all columns but the first are figures."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])


def to_html(markdown: str) -> str:
    r"""Turn headings, lists, tables and paragraphs, as `umscosod.bench.table` writes them, into HTML.

    Parameters
    ----------
    markdown : str
        Blocks with an empty line between them; no markup inside a line.

    Returns
    -------
    str
        Escaped. The first row of a table is its head, the second its rule, and a row's first cell names it.

    Examples
    --------
    >>> to_html("## One & two\n\n- a\n- b")
    '<h2>One &amp; two</h2>\n<ul><li>a</li><li>b</li></ul>'
    >>> to_html("| method | S |\n| ------ | -: |\n| ours | 0.9 |")
    '<table><tr><th>method</th><th>S</th></tr><tr><th>ours</th><td>0.9</td></tr></table>'
    """
    return "\n".join(_block(block.splitlines()) for block in markdown.strip().split("\n\n"))


def _block(lines: list[str]) -> str:
    if lines[0].startswith("#"):
        marks, _, title = lines[0].partition(" ")
        return f"<h{len(marks)}>{escape(title)}</h{len(marks)}>"
    if lines[0].startswith("|"):
        return f"<table>{_row(lines[0], 'th')}{''.join(_row(line, 'td') for line in lines[2:])}</table>"
    if lines[0].startswith("- "):
        return f"<ul>{''.join(f'<li>{escape(line[2:])}</li>' for line in lines)}</ul>"
    return f"<p>{escape(' '.join(lines))}</p>"


def _row(line: str, tag: str) -> str:
    name, *figures = (escape(cell.strip()) for cell in line.strip("|").split("|"))
    return f"<tr><th>{name}</th>{''.join(f'<{tag}>{figure}</{tag}>' for figure in figures)}</tr>"


_LEVEL = 128
_COMPARED_HW = (64, 64)  # masks are compared at this size: fine enough to rank pictures
_THUMB_PX = 240


def write_page(report: BenchReport, shown: int) -> Path:
    """Write ``OUT/index.html`` and its small pictures under ``OUT/thumbs``.

    Parameters
    ----------
    report : BenchReport
    shown : int
        Pictures of each data set, those with the largest disagreement.

    Returns
    -------
    Path
        The page: no scripts, nothing from outside its folder.
    """
    sections = []
    for index, dataset in enumerate(report.datasets):
        articles = [
            _article(report, dataset, image_id, disagreement, f"{index}-{number}")
            for number, (disagreement, image_id) in enumerate(_rank(report, dataset)[:shown])
        ]
        if articles:
            rows = "\n".join(articles)
            sections.append(f'<section><h2>{escape(dataset)}</h2>\n<div class="rows">\n{rows}\n</div></section>')
    style = (
        ".rows { grid-template-columns: 1fr; }\n"
        ".tiles { grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); }\n"
        "table { border-collapse: collapse; } th, td { padding: 2px 10px; text-align: right; }\n"
        "th:first-child { text-align: left; font-weight: normal; } tr:first-child { border-bottom: 1px solid; }\n"
    )
    listed = "\n".join(sections)
    text = (
        f"{begin_page('Bench', style)}<header>\n{to_html(format_report(report))}\n"
        '<p class="legend">Below: where methods disagree most. What is outside a mask is dimmed, its border is orange; '
        f"the figure is the IoU with the ground truth.</p></header>\n<main>\n{listed}\n</main></body></html>\n"
    )
    page = report.out / "index.html"
    with open_atomic(page) as stream:
        stream.write(clean_markup(text).encode())
    return page


def disagreement(masks: Sequence[BoolArray]) -> float:
    """1 minus the mean IoU over pairs of masks: 0 all equal, 1 nothing in common; two empty masks are equal.

    Examples
    --------
    >>> disagreement([np.array([True, True]), np.array([True, False])])
    0.5
    """
    overlaps = []
    for first, second in itertools.combinations(masks, 2):
        union = np.count_nonzero(first | second)
        overlaps.append(np.count_nonzero(first & second) / union if union else 1.0)
    return 1.0 - float(np.mean(overlaps)) if overlaps else 0.0


def _predictions(report: BenchReport, dataset: str) -> dict[str, Mapping[str, Path]]:
    """Mask files by method, of the methods that were scored."""
    cells = {method: report.cell(dataset, method) for method in report.methods}
    return {method: cell.predictions for method, cell in cells.items() if cell.masks is not None}


def _rank(report: BenchReport, dataset: str) -> list[tuple[float, str]]:
    """Images from the largest disagreement down; ties by id."""
    found = _predictions(report, dataset)
    ranked = []
    for image_id in report.pictures.get(dataset, {}) if len(found) > 1 else ():
        masks = [compute_grey_thumbnail(files[image_id], _COMPARED_HW) >= _LEVEL for files in found.values()]
        ranked.append((disagreement(masks), image_id))
    return sorted(ranked, key=lambda item: (-item[0], item[1]))


def _article(report: BenchReport, dataset: str, image_id: str, unlike: float, name: str) -> str:
    image, truth = report.pictures[dataset][image_id]
    found = _predictions(report, dataset)
    try:
        picture_HW3 = compute_thumbnail(image, _THUMB_PX)
    except DataError as error:  # gone since it was scored
        logger.warning("page of disagreements, %s: %s", image_id, error)
        return f"<article><h3>{escape(image_id)}</h3></article>"
    tiles = [("image", None), ("ground truth", truth), *((method, files[image_id]) for method, files in found.items())]
    figures = []
    for number, (label, file) in enumerate(tiles):
        shown_HW3 = picture_HW3
        rule = report.truth_rules.get(dataset, MaskRule(kind="half"))
        if file is truth and not rule.is_plain:
            mask_HW = MaskReader(rule).read(truth).foreground
            shown_HW3 = paint_mask(picture_HW3, resize_mask(mask_HW, (picture_HW3.shape[0], picture_HW3.shape[1])))
        elif file is not None:
            shown_HW3 = paint_mask(picture_HW3, compute_grey_thumbnail(file, picture_HW3.shape[:2]) >= _LEVEL)
        relative = f"thumbs/{name}-{number}.jpg"
        write_jpeg(report.out / relative, shown_HW3)
        caption = label if label not in found else f"{label} {_iou(report, dataset, label, image_id):.2f}"
        figures.append(
            f'<figure><img loading="lazy" src="{relative}" alt="{escape(label)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return (
        f'<article><div class="tiles">{"".join(figures)}</div><h3>{escape(image_id)}</h3>'
        f'<p class="notes"><span>disagreement {unlike:.2f}</span></p></article>'
    )


def _iou(report: BenchReport, dataset: str, method: str, image_id: str) -> float:
    masks = report.cell(dataset, method).masks
    assert masks is not None, "only methods that were scored are shown"
    return next(image.iou for image in masks.images if image.name == image_id)
