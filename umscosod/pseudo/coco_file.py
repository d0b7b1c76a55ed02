"""COCO files of masks: read, checked, matched to images."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from umscosod.data.images import PICTURE_SUFFIXES, check_regular
from umscosod.data.masks import describe_value, whole_number
from umscosod.errors import DataError
from umscosod.types import ImageRef

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


# COCO numbers its images through all of its splits, so that there the folder adds nothing to the name
_COCO_SPLIT = re.compile(r"(train|val|test|unlabeled)20\d\d")
_COCO_STEM = re.compile(r"(COCO_\w+_)?\d{12}")

Parts = tuple[str, ...]
"""A path, part by part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Matching:
    """What belongs to what.

    Attributes
    ----------
    found : dict of str to str
        Image id -> key of its entry.
    missed : dict of str to str
        Image id -> why it has no entry.
    unused : tuple of str
        Keys of the entries that are of no image of the collection.
    by_number : tuple of str
        Ids of images found by a number that is only a part of their name.
    """

    found: dict[str, str]
    missed: dict[str, str]
    unused: tuple[str, ...]
    by_number: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """An image file of the collection: one, however many groups list it."""

    path: Parts
    ids: dict[str, Parts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    key: str
    path: Parts
    number: str  # "" where its name is no number


def match_entries(images: Iterable[ImageRef], names: Mapping[str, str], *, has_numbers: bool) -> Matching:
    """Find the entry of each image of a collection.

    The rules, the surest first; each takes a pair only where both sides are the only ones of that name, in the whole
    file and in the whole collection:

    1. The entry's path is the image's id, which is its path below the collection's root.
    2. One path is the end of the other, with a folder at least: ``train/1.jpg`` is ``/data/train/1.jpg``, and
       ``/results/cat/1.jpg`` is ``cat/1.jpg``. Then rules 1 and 2 without suffixes: ``cat/1.png`` is ``cat/1.jpg``.
    3. The file name.
    4. The stem: ``1.png`` is ``1.jpg``.
    5. With `has_numbers`, the last number of the image's stem: 139 is ``COCO_train2014_000000000139.jpg``.

    An entry with folders must not contradict those of the image: ``a/1.jpg`` is never ``b/1.jpg``, nor a ``1.jpg``
    that lies in ``b``. Exempt are COCO's splits (``train2017/000000000139.jpg``), whose numbers are unique without
    them. An entry serves one file; an image that several groups list is one file.

    Parameters
    ----------
    images : iterable of ImageRef
        Of the whole collection.
    names : mapping of str to str
        Key of an entry -> the path it gives, with any slashes.
    has_numbers : bool
        Names of digits alone are COCO's numbers of images.

    Returns
    -------
    Matching

    Examples
    --------
    >>> from pathlib import Path
    >>> images = [ImageRef(id=f"{name}/1.jpg", path=Path(f"/d/{name}/1.jpg"), output=f"{name}.png") for name in "ab"]
    >>> matching = match_entries(images, {"7": "a/1.png", "8": "c/2.jpg"}, has_numbers=False)
    >>> matching.found, matching.missed, matching.unused
    ({'a/1.jpg': '7'}, {'b/1.jpg': "its namesake 'a/1.png' lies in another folder"}, ('8',))
    """
    by_path: dict[str, _File] = {}
    for image in images:
        path = os.path.abspath(image.path)  # noqa: PTH100 - resolve() would make one file of two linked names
        by_path.setdefault(path, _File(_split(path))).ids[image.id] = _split(image.id)
    files = list(by_path.values())
    entries = [_Entry(key, _split(name), _number(name) if has_numbers else "") for key, name in names.items()]
    pairs: dict[_File, _Entry] = {}
    used: set[str] = set()
    for of_entry, of_file in _RULES:
        named = _group(entries, of_entry)
        for name, owners in _group(files, of_file).items():
            candidates = named.get(name, [])
            if len(owners) != 1 or len(candidates) != 1 or not _agree(candidates[0], owners[0]):
                continue
            if owners[0] not in pairs and candidates[0].key not in used:
                pairs[owners[0]] = candidates[0]
                used.add(candidates[0].key)
    return Matching(
        found={id_: entry.key for file, entry in pairs.items() for id_ in file.ids},
        missed=_explain(files, pairs, entries),
        unused=tuple(key for key in names if key not in used),
        by_number=tuple(id_ for file, entry in pairs.items() if _is_guess(entry, file) for id_ in file.ids),
    )


def _is_guess(entry: _Entry, file: _File) -> bool:
    """Whether the two share no more than a number within a name: ``1`` and ``IMG_9 (1).jpg``."""
    stem = _bare(file.path)[-1]
    is_number = bool(_COCO_STEM.fullmatch(stem)) or (stem.isascii() and stem.isdigit())
    return not is_number and stem != _bare(entry.path)[-1] and _last_number(file.path) == entry.number != ""


def _explain(files: Sequence[_File], pairs: Mapping[_File, _Entry], entries: Sequence[_Entry]) -> dict[str, str]:
    """Reason by image id for files without an entry."""
    reasons: dict[str, str] = {}
    by_stem = _group(entries, lambda entry: [_bare(entry.path)[-1:]])
    by_number = _group(entries, lambda entry: [entry.number] if entry.number else [])
    for file in files:
        if file in pairs:
            continue
        namesakes = by_stem.get(_bare(file.path)[-1:], []) or by_number.get(_last_number(file.path), [])
        agreeing = [entry for entry in namesakes if _agree(entry, file)]
        if len({entry.path for entry in agreeing}) < len(agreeing):
            reason = f"{'/'.join(agreeing[0].path)!r} has several rows among the images of the file; leave one"
        elif agreeing:
            reason = f"{'/'.join(agreeing[0].path)!r} may be of another image of that name; give relative paths"
        elif namesakes:
            reason = f"its namesake {'/'.join(namesakes[0].path)!r} lies in another folder"
        else:
            reason = "no entry"
        reasons |= dict.fromkeys(file.ids, reason)
    return reasons


def _agree(entry: _Entry, file: _File) -> bool:
    """Whether the entry's folders, if it has any, can be those of the image."""
    folders = entry.path[:-1]
    if not folders or (_COCO_SPLIT.fullmatch(folders[-1]) and _COCO_STEM.fullmatch(_bare(entry.path)[-1])):
        return True
    if file.path[:-1][-len(folders) :] == folders:
        return True
    # an image at the collection's root has the folder that it lies in
    owns = [id_[:-1] or file.path[-2:-1] for id_ in file.ids.values()]
    return any(own and folders[-len(own) :] == own for own in owns)


_Owner = TypeVar("_Owner", _File, _Entry)
_Name = TypeVar("_Name")


def _group(owners: Iterable[_Owner], names_of: Callable[[_Owner], Iterable[_Name]]) -> dict[_Name, list[_Owner]]:
    groups: defaultdict[_Name, list[_Owner]] = defaultdict(list)
    for owner in owners:
        for name in set(names_of(owner)):
            groups[name].append(owner)
    return groups


def _split(path: str) -> Parts:
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))


def _bare(path: Parts) -> Parts:
    """Without the suffix of a picture: other dots belong to the name."""
    stem, dot, suffix = path[-1].rpartition(".") if path else ("", "", "")
    return (*path[:-1], stem) if dot and stem and f".{suffix.lower()}" in PICTURE_SUFFIXES else path


def _ends(path: Parts) -> Iterator[Parts]:
    """The path and its ends, as long as there is a folder in them."""
    return (path[start:] for start in range(len(path) - 1))


def _number(name: str) -> str:
    return (name.lstrip("0") or "0") if name.isascii() and name.isdigit() else ""


def _last_number(path: Parts) -> str:
    numbers = re.findall(r"[0-9]+", _bare(path)[-1])
    return _number(numbers[-1]) if numbers else ""


_Rule = tuple[Callable[[_Entry], Iterable[object]], Callable[[_File], Iterable[object]]]

_RULES: tuple[_Rule, ...] = (
    (lambda entry: [entry.path], lambda file: file.ids.values()),
    (lambda entry: [entry.path], lambda file: _ends(file.path)),
    (lambda entry: _ends(entry.path), lambda file: file.ids.values()),
    (lambda entry: [_bare(entry.path)], lambda file: map(_bare, file.ids.values())),
    (lambda entry: [_bare(entry.path)], lambda file: _ends(_bare(file.path))),
    (lambda entry: _ends(_bare(entry.path)), lambda file: map(_bare, file.ids.values())),
    (lambda entry: [entry.path[-1:]], lambda file: [file.path[-1:]]),
    (lambda entry: [_bare(entry.path)[-1:]], lambda file: [_bare(file.path)[-1:]]),
    (lambda entry: [entry.number] if entry.number else [], lambda file: [_last_number(file.path)]),
)
"""Names of an entry and of a file that are compared, the surest first; see `match_entries`."""
