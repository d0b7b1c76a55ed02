"""Which image of a collection each entry of a COCO-format file is of: settled once, for all images together."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from umscosod.data.opening import PICTURE_SUFFIXES
from umscosod.types import ImageRef

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
    return stem != _bare(entry.path)[-1] and _last_number(file.path) == entry.number != "" and not _is_number(stem)


def _is_number(stem: str) -> bool:
    return bool(_COCO_STEM.fullmatch(stem)) or (stem.isascii() and stem.isdigit())


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
