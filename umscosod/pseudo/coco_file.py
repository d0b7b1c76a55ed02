"""COCO files of masks: read and checked."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from umscosod.data.images import check_regular
from umscosod.data.masks import describe_value, whole_number
from umscosod.errors import DataError

_MAX_DIGITS = 1000  # Python refuses to read integers of more than 4300

Size = tuple[int, int]


@dataclass(slots=True)
class Tally:
    """How often something happened, and the first time in words."""

    count: int = 0
    example: str = ""

    def add(self, example: str) -> None:
        """Count once more."""
        self.example = self.example or example
        self.count += 1


class Annotation(NamedTuple):
    """A row of the file, and how messages name it."""

    name: str
    row: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoFile:
    """What the file says. Keys are image ids as text: 139 and 139.0 and "139" are one.

    Attributes
    ----------
    sha256 : str
        Of its content, and that of the file that names its images.
    names : dict of str to str
        Path of each image by key; of a bare list without a second file the key itself.
    sizes : dict of str to (int, int)
        Height and width of images whose row has them; 0 for what is no whole number.
    annotations : dict of str to list of Annotation
        By key. Their masks, scores and levels are not looked at yet.
    is_bare : bool
        A list whose image ids stand for themselves.
    bad_images, bad_annotations : Tally
        Rows left out.
    note : str
        What else is ignored.
    """

    sha256: str
    names: dict[str, str]
    sizes: dict[str, Size]
    annotations: dict[str, list[Annotation]]
    is_bare: bool
    bad_images: Tally
    bad_annotations: Tally
    note: str = ""


def read_coco_file(file: Path, companion: Path | None) -> CocoFile:
    """Read a data set (a dict with ``images`` and ``annotations``) or a bare list of results.

    Parameters
    ----------
    file : Path
    companion : Path or None
        A data set whose ``images`` name the image ids of a bare list.

    Raises
    ------
    DataError
        A file cannot be read, is no JSON, is nested too deeply, or has another shape: a list is missing, or none of
        its rows is of the kind. Single bad rows are left out and counted.
    """
    content, digest = _load(file, "pseudo.detections")
    images, source = None, file
    if isinstance(content, dict):
        images, annotations = (_rows_of(content, name, file) for name in ("images", "annotations"))
    elif isinstance(content, list):
        annotations = content
        if companion is not None:
            source = companion
            second, second_digest = _load(companion, "pseudo.detections_images")
            images = _rows_of(second, "images", companion)
            digest = hashlib.sha256(f"{digest} {second_digest}".encode()).hexdigest()
    else:
        found = describe_value(content)
        raise DataError(f"{file}: expected a COCO data set or a list, found {found}; give a COCO-format file")
    names, sizes, bad_images = _read_images(images or [], source)
    known = None if images is None else names.keys()
    rows, bad_annotations = _read_annotations(annotations, known, file)
    return CocoFile(
        sha256=digest,
        names={key: key for key in rows} if images is None else names,
        sizes=sizes,
        annotations=rows,
        is_bare=images is None,
        bad_images=bad_images,
        bad_annotations=bad_annotations,
        note="" if companion is None or source == companion else "has images of its own; detections_images is not read",
    )


def _read_images(rows: list[Any], source: Path) -> tuple[dict[str, str], dict[str, Size], Tally]:
    """Names and sizes by image key, and the rows left out."""
    names: dict[str, str] = {}
    sizes: dict[str, Size] = {}
    bad, twice = Tally(), set[str]()
    for position, row in enumerate(rows):
        key = _key(row.get("id")) if isinstance(row, dict) else None
        # LVIS has no 'file_name'
        name = row.get("file_name", row.get("coco_url")) if isinstance(row, dict) else None
        if key is None or not isinstance(name, str) or not name:
            bad.add(f"image {_name(row, position)} has no usable 'id' or no 'file_name'")
            continue
        sides = [row.get("height"), row.get("width")]
        size = None if sides == [None, None] else (whole_number(sides[0]) or 0, whole_number(sides[1]) or 0)
        if key in names and (names[key], sizes.get(key)) != (name, size):
            twice.add(key)
            bad.add(f"image id {describe_value(key)} stands for more than one image")
            continue
        names[key] = name
        if size is not None:
            sizes[key] = size
    if rows and not names:
        raise DataError(f"{source}: {bad.example}; give a COCO-format file")
    for key in twice:
        del names[key]
    return names, sizes, bad


def _read_annotations(rows: list[Any], known: Any, file: Path) -> tuple[dict[str, list[Annotation]], Tally]:
    """Annotations by image key, those of images that are not `known` left out; None: any."""
    found: defaultdict[str, list[Annotation]] = defaultdict(list)
    bad = Tally()
    is_usable = False
    by_number = _numbers(known or ())
    for position, row in enumerate(rows):
        key = _key(row.get("image_id")) if isinstance(row, dict) else None
        if key is None:
            bad.add(f"annotation {_name(row, position)} has no usable 'image_id'")
            continue
        is_usable = is_usable or "segmentation" in row
        key = key if known is None or key in known else by_number.get(key.lstrip("0"), key)
        if known is not None and key not in known:
            bad.add(f"annotation {_name(row, position)} is of image id {describe_value(key)}, which no image has")
            continue
        found[key].append(Annotation(_name(row, position), row))
    if rows and not is_usable:
        reason = f"none of its {len(rows)} annotations has a 'segmentation'; boxes alone cannot be used"
        raise DataError(f"{file}: {bad.example or reason}; give a COCO-format file of masks")
    return dict(found), bad


def _numbers(keys: Iterable[str]) -> dict[str, str]:
    """Keys of digits by themselves without leading zeros, where only one key is that number."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        if key.isascii() and key.isdigit():
            found[key.lstrip("0")].append(key)
    return {number: same[0] for number, same in found.items() if len(same) == 1}


def _load(file: Path, setting: str) -> tuple[Any, str]:
    """Content of a JSON file, and its hash."""
    try:
        check_regular(file, "a COCO-format file")
        content = file.read_bytes()
    except DataError as error:
        raise DataError(f"{setting}: {error}") from None
    except OSError as error:
        raise DataError(f"{setting}: {file} cannot be read ({error.strerror}); check the path") from error
    try:
        return _parse(content.decode("utf-8-sig")), hashlib.sha256(content).hexdigest()
    except ValueError as error:
        raise DataError(f"{file} is not a JSON file: {error}; give a COCO-format file") from error
    except RecursionError:
        raise DataError(f"{file} is nested too deeply; give a COCO-format file") from None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer longer than Python reads: like 1e999 it stands for no number that could be meant
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= _MAX_DIGITS else math.inf)


def _rows_of(content: Any, name: str, file: Path) -> list[Any]:
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        if not isinstance(content, dict):
            found = describe_value(content)
        elif name in content:
            found = f"{describe_value(rows)} for it"
        else:
            found = f"an object with {', '.join(map(describe_value, list(content)[:8])) or 'nothing in it'}"
        raise DataError(f"{file}: expected the list '{name}', found {found}; give a COCO-format file")
    return rows


def _key(value: Any) -> str | None:
    """Image id as text; None for what is none."""
    number = whole_number(value)
    if number is None:
        return value if isinstance(value, str) and value else None
    return str(number)


def _name(row: Any, position: int) -> str:
    key = _key(row.get("id")) if isinstance(row, dict) else None
    return f"at position {position}" if key is None else describe_value(key).strip("'")
