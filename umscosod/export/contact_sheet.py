"""Writes ``index.html``: each image beside its pseudo-label, its co-saliency map and its final mask."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from importlib import resources
from itertools import groupby, tee
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

from umscosod.data.files import open_atomic
from umscosod.errors import DataError, count_of, reason_of
from umscosod.export.folder import clean_markup, path_inside
from umscosod.export.items import Tally
from umscosod.export.png import compute_grey_thumbnail, compute_thumbnail, paint_mask, write_jpeg
from umscosod.types import Labelled, Status

logger = logging.getLogger(__name__)

_THUMB_PX = 192  # longest side of a small picture
_OPEN_GROUPS = 12  # a longer table of contents is closed at first
_TILES = (("image", "image"), ("pseudo", "pseudo-label"), ("map", "co-saliency map"), ("mask", "final mask"))


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetRow:
    """One image on the sheet.

    Attributes
    ----------
    labelled : Labelled
        Its row of the report.
    image : Path
        The image file.
    pseudo, map, mask : str or None
        Relative POSIX paths below the output folder, such as ``"masks/cat/7.png"``; None if there is none.
    """

    labelled: Labelled
    image: Path
    pseudo: str | None = None
    map: str | None = None
    mask: str | None = None


Each = Callable[[Callable[[SheetRow], dict[str, str]], Iterable[SheetRow]], Iterable[dict[str, str]]]


def write_contact_sheet(
    out_dir: str | os.PathLike[str],
    rows: Iterable[SheetRow],
    *,
    title: str = "Co-salient objects",
    facts: Mapping[str, str] | None = None,
    max_pixels: int | None = None,
    changed: Collection[str] | None = None,
    each: Each = map,
) -> Path:
    """Write ``OUT/index.html`` and its small pictures under ``OUT/thumbs/``.

    The page needs nothing outside the folder: no external scripts, fonts or pictures, and only relative links. One
    image is in memory at a time. The page has no date: equal results give equal bytes.

    Parameters
    ----------
    out_dir : path
    rows : iterable of SheetRow
        The rows of a group are consecutive.
    title : str
    facts : mapping, optional
        Shown at the top, such as ``{"backbone": "dino_vits8"}``.
    max_pixels : int, optional
        Limit of `umscosod.data.images.decode_image`.
    changed : collection of str, optional
        Ids of the images to paint; the small pictures of the others are kept. By default all are painted.
    each : callable
        Paints the rows, in their order: `map`, or one that does so elsewhere, see `umscosod.engine.Engine.map`.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        A path points outside the output folder, or a file cannot be written. An unreadable picture becomes an empty
        tile.
    """
    out_dir = Path(out_dir)
    rows, to_paint = tee(rows)
    paint = partial(_find_or_paint, out_dir=out_dir, max_pixels=max_pixels, changed=changed)
    painted = iter(each(paint, to_paint))
    page = path_inside(out_dir, "index.html")
    tally = Tally()
    contents: list[str] = []
    troubles: list[str] = []
    # The summary at the top is known only at the end, so the sections wait in a file, not in memory.
    with _open_waiting(page) as body:
        number = 0
        for index, (group, members) in enumerate(groupby(rows, key=lambda row: row.labelled.group)):
            part = Tally()
            articles = []
            for row in members:
                tally.add(row.labelled)
                part.add(row.labelled)
                articles.append(_article(row, number, next(painted)))
                if row.labelled.status is not Status.LABELLED:
                    troubles.append(_trouble(row.labelled, number))
                number += 1
            counts = _group_counts(part)
            contents.append(f'<li><a href="#g{index}">{escape(group)}</a> <span>{escape(counts)}</span></li>')
            heading = f"<h2>{escape(group)} <small>{escape(counts)}</small></h2>"
            listed = "\n".join(articles)
            body.write(_encode(f'<section id="g{index}">{heading}\n<div class="rows">\n{listed}\n</div></section>\n'))
        body.seek(0)
        with open_atomic(page) as stream:
            for text in _head(title, tally, facts or {}, contents, troubles):
                stream.write(_encode(text))
            shutil.copyfileobj(body, stream)
            stream.write(_encode(f"</main>\n<script>\n{_resource('sheet.js')}</script>\n</body></html>\n"))
    return page


@contextmanager
def _open_waiting(page: Path) -> Iterator[BinaryIO]:
    """Open a nameless file beside the page, so that only one disk needs room, and an error names the page."""
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=page.parent) as body:
            yield body
    except OSError as error:
        raise DataError(f"cannot write {page}: {reason_of(error)}; check the folder and the disk") from error


def _find_or_paint(
    row: SheetRow, out_dir: Path, max_pixels: int | None, changed: Collection[str] | None
) -> dict[str, str]:
    """Relative paths of the thumbnails of a row by tile, painted unless the row is unchanged and they are there."""
    if changed is not None and row.labelled.image_id not in changed:
        names = {tile: _thumb_name(row, tile) for tile, _ in _TILES}
        there = {tile: name for tile, name in names.items() if path_inside(out_dir, name).is_file()}
        if "image" in there:
            return there
    return _paint(row, out_dir, max_pixels)


def _thumb_name(row: SheetRow, tile: str) -> str:
    return PurePosixPath("thumbs", tile, row.labelled.output).with_suffix(".jpg").as_posix()


def _paint(row: SheetRow, out_dir: Path, max_pixels: int | None) -> dict[str, str]:
    """Write the thumbnails of a row; return their relative paths by tile. A tile that could not be made is absent."""
    files = {"pseudo": row.pseudo, "map": row.map, "mask": row.mask}
    paths = {tile: path_inside(out_dir, relative) for tile, relative in files.items() if relative is not None}
    try:
        picture = compute_thumbnail(row.image, _THUMB_PX, max_pixels=max_pixels)
    except DataError as error:
        logger.debug("no small picture of %s: %s", row.labelled.image_id, error)  # the row itself has the reason
        return {}
    made = {"image": picture}
    for tile, path in paths.items():
        try:
            grey_HW = compute_grey_thumbnail(path, picture.shape[:2])
        except DataError as error:
            logger.warning("contact sheet, %s: %s", row.labelled.image_id, error)
            continue
        made[tile] = paint_mask(picture, grey_HW >= 128) if tile == "mask" else grey_HW
    names = {tile: _thumb_name(row, tile) for tile in made}
    for tile, name in names.items():
        write_jpeg(path_inside(out_dir, name), made[tile])
    return names


def _article(row: SheetRow, number: int, thumbs: Mapping[str, str]) -> str:
    labelled = row.labelled
    full = {"pseudo": row.pseudo, "map": row.map, "mask": row.mask}
    tiles = "".join(_tile(label, thumbs.get(tile), full.get(tile)) for tile, label in _TILES)
    notes = [f'<span class="chip {labelled.status.value}">{labelled.status.value}</span>']
    if labelled.status is Status.LABELLED:
        notes.append(
            f'<span class="meter" title="confidence"><meter min="0" max="1" value="{labelled.confidence:.4f}"></meter> '
            f"{labelled.confidence:.2f}</span>"
        )
        notes.append(f"<span>threshold {labelled.threshold:.2f}</span>")
    if labelled.source:
        notes.append(f"<span>from {escape(labelled.source)}</span>")
    reason = f'<p class="reason">{escape(labelled.reason)}</p>' if labelled.reason else ""
    return (
        f'<article id="i{number}" data-confidence="{labelled.confidence:.6f}" data-status="{labelled.status.value}">'
        f'<div class="tiles">{tiles}</div><h3>{escape(labelled.image_id)}</h3>'
        f'<p class="notes">{"".join(notes)}</p>{reason}</article>'
    )


def _tile(label: str, thumb: str | None, full: str | None) -> str:
    if thumb is None:
        content = '<span class="none">none</span>'
    else:
        content = f'<img loading="lazy" decoding="async" src="{_url(thumb)}" alt="{label}">'
        if full is not None:
            content = f'<a href="{_url(full)}">{content}</a>'
    return f"<figure>{content}<figcaption>{label}</figcaption></figure>"


def _url(relative: str) -> str:
    # bytes as on disk, so that names in any encoding and any Unicode form are found
    return escape(quote(os.fsencode(relative)))


def _trouble(labelled: Labelled, number: int) -> str:
    return (
        f'<li><span class="chip {labelled.status.value}">{labelled.status.value}</span> '
        f'<a href="#i{number}">{escape(labelled.image_id)}</a> {escape(labelled.reason)}</li>'
    )


def _group_counts(tally: Tally) -> str:
    totals = tally.as_dict()
    parts = [count_of(totals["images"], "image")]
    parts += [f"{totals[status.value]} {status.value}" for status in Status if totals[status.value]]
    parts += [f"from {source}" for source in totals["sources"]]
    if totals["mixed_groups"]:
        parts.append("no common object seen")
    if totals["mean_confidence"] is not None:
        parts.append(f"mean confidence {totals['mean_confidence']:.2f}")
    return ", ".join(parts)


def begin_page(title: str, style: str = "") -> str:
    """Everything up to the body of a page in our look; `style` adds to it."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_resource('sheet.css')}{style}</style></head>\n<body>\n"
    )


def _head(
    title: str, tally: Tally, facts: Mapping[str, str], contents: list[str], troubles: list[str]
) -> Iterator[str]:
    totals = tally.as_dict()
    yield f"{begin_page(title)}<header><h1>{escape(title)}</h1>\n"
    counts = [("images", totals["images"]), ("groups", totals["groups"])]
    figures = "".join(f"<li><b>{count}</b> {name}</li>" for name, count in counts)
    figures += "".join(f'<li class="{status}"><b>{totals[status.value]}</b> {status.value}</li>' for status in Status)
    if totals["mean_confidence"] is not None:
        figures += f"<li><b>{totals['mean_confidence']:.2f}</b> mean confidence</li>"
    if totals["mixed_groups"]:
        figures += f"<li><b>{totals['mixed_groups']}</b> groups without a common object</li>"
    figures += "".join(f"<li><b>{count}</b> from {escape(name)}</li>" for name, count in totals["sources"].items())
    yield f'<ul class="figures">{figures}</ul>\n'
    if facts:
        shown = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
        yield f'<dl class="facts">{shown}</dl>\n'
    yield (
        '<p class="legend">Final mask: the picture outside the mask is dimmed, its border is orange. '
        "A click on a pseudo-label, map or mask opens the file itself.</p>\n"
        '<div class="controls" id="controls" hidden>'
        '<label><input type="checkbox" id="worst"> lowest confidence first</label>'
        '<label>show <select id="status"><option value="">all</option>'
        + "".join(f"<option>{status.value}</option>" for status in Status)
        + "</select></label></div>\n"
    )
    if troubles:
        yield f"<details><summary>{len(troubles)} without a mask, with reasons</summary><ul>"
        yield "\n".join(troubles)
        yield "</ul></details>\n"
    is_open = " open" if len(contents) <= _OPEN_GROUPS else ""
    yield f'<details{is_open}><summary>{count_of(len(contents), "group")}</summary><ul class="contents">'
    yield "\n".join(contents)
    yield '</ul></details>\n</header>\n<main id="main">\n'


def _resource(name: str) -> str:
    return resources.files("umscosod.export").joinpath(name).read_text(encoding="utf-8")


def _encode(text: str) -> bytes:
    return clean_markup(text).encode()  # a name that is no valid text is shown with "?"; its links still work
