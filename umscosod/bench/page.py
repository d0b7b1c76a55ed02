"""The tables of a report, from the Markdown a terminal shows to HTML."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np

from umscosod.bench.table import BenchReport, format_report
from umscosod.data.files import open_atomic
from umscosod.errors import DataError
from umscosod.export.folder import clean_markup
from umscosod.export.png import compute_grey_thumbnail, compute_thumbnail, paint_mask, write_jpeg
from umscosod.types import BoolArray


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


logger = logging.getLogger(__name__)

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
    style = resources.files("umscosod.export").joinpath("sheet.css").read_text(encoding="utf-8")
    text = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Bench</title>\n<style>\n{style}.rows {{ grid-template-columns: 1fr; }}\n"
        ".tiles { grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); }\n"
        "table { border-collapse: collapse; } th, td { padding: 2px 10px; text-align: right; }\n"
        "th:first-child { text-align: left; font-weight: normal; } tr:first-child { border-bottom: 1px solid; }\n"
        f"</style></head>\n<body>\n<header>\n{to_html(format_report(report))}\n"
        '<p class="legend">Below: where methods disagree most. What is outside a mask is dimmed, its border is orange; '
        "the figure is the IoU with the ground truth.</p></header>\n<main>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
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
        if file is not None:
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
