"""Orders names, and assigns output names that cannot clash."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from umscosod.data.files import LONGEST
from umscosod.types import NAMES

_DIGITS = re.compile("([0-9]+)")
NaturalKey = tuple[tuple[tuple[str | tuple[int, str], ...], ...], str]


def natural_key(name: str) -> NaturalKey:
    """Return the sort key of a relative POSIX path: numbers by value, letters without case, the exact name last.

    The order is total on distinct names, and the same on every file system and in every locale.

    Examples
    --------
    >>> sorted(["b/1.png", "a10.png", "A2.png", "a2.png"], key=natural_key)
    ['A2.png', 'a2.png', 'a10.png', 'b/1.png']
    """
    parts = []
    for part in name.split("/"):
        chunks = _DIGITS.split(_fold(part))  # text, digits, text, ...: the types of any two names match
        parts.append(tuple(_value(chunk) if index % 2 else chunk for index, chunk in enumerate(chunks)))
    return tuple(parts), name


def _value(digits: str) -> tuple[int, str]:
    """Order a number of any length; Python converts no text of more than some thousand digits to int."""
    significant = digits.lstrip("0")
    return len(significant), significant


def assign_outputs(names: Iterable[str]) -> dict[str, str]:
    """Assign to each image the relative path of its output PNG.

    ``cat/7.jpg`` becomes ``cat/7.png``. Images of one folder that share a stem all keep their extension:
    ``cat/7.jpg.png`` and ``cat/7.bmp.png``. Names that still clash (``7.jpg`` beside ``7.JPG``) are numbered:
    ``7.JPG.png``, ``7.jpg~2.png``. A name with more bytes than file systems allow is cut, and a hash of the whole name
    is appended. Two outputs of a folder differ even if the disk ignores case or composes accents. No output has the
    name of a sub-folder that receives outputs.

    Parameters
    ----------
    names : iterable of str
        Distinct relative POSIX paths.

    Returns
    -------
    dict
        From name to output, in the given order.

    Examples
    --------
    >>> assign_outputs(["cat/7.jpg", "cat/8.jpg", "cat/7.bmp", "7.png"])
    {'cat/7.jpg': 'cat/7.jpg.png', 'cat/8.jpg': 'cat/8.png', 'cat/7.bmp': 'cat/7.bmp.png', '7.png': '7.png'}
    """
    level = dict.fromkeys(names, 0)
    holding = {PurePosixPath(name.rpartition("/")[0]) for name in level}
    folders = {_key(str(folder)) for each in holding for folder in (each, *each.parents)}
    while True:
        outputs = {name: _output(name, level[name]) for name in level}
        holders: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, output in outputs.items():
            holders[_key(output)].append(name)
        clashes = [sharing for key, sharing in holders.items() if len(sharing) > 1 or key in folders]
        if not clashes:  # the only exit: every key belongs to one name, and to no folder
            return outputs
        for sharing in clashes:
            short = [name for name in sharing if level[name] == 0]
            for name in short or sorted(sharing, key=natural_key)[1:] or sharing:
                level[name] += 1


def shared_stems(outputs: dict[str, str]) -> dict[str, list[str]]:
    """Return images whose output is not ``stem.png``, per folder (``"."`` at the top), in the given order."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, output in outputs.items():
        if output != _output(name, 0):
            found[name.rpartition("/")[0] or "."].append(name)
    return dict(found)


def unique_tails(paths: Iterable[tuple[str, str]]) -> list[str]:
    """Name files by group and the shortest part of their path that distinguishes them.

    Parameters
    ----------
    paths : iterable of (str, str)
        Group name and absolute POSIX path; distinct pairs.

    Returns
    -------
    list of str
        ``group/file`` or, where that is not unique, ``group/folder/file`` and so on. A pair that occurs twice gives
        the same name twice.

    Examples
    --------
    >>> unique_tails([("cat", "/a/1.jpg"), ("cat", "/b/1.jpg"), ("cat", "/b/2.jpg")])
    ['cat/a/1.jpg', 'cat/b/1.jpg', 'cat/2.jpg']
    """
    pairs = [(group, PurePosixPath(path).parts[1:]) for group, path in paths]
    depths = [1] * len(pairs)
    while True:
        names = ["/".join((group, *parts[-depth:])) for (group, parts), depth in zip(pairs, depths, strict=True)]
        counts = Counter(names)
        longer = [
            index for index, name in enumerate(names) if counts[name] > 1 and depths[index] < len(pairs[index][1])
        ]
        if not longer:
            return names
        for index in longer:
            depths[index] += 1


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _key(path: str) -> tuple[str, str]:
    """Return what two outputs must not share: the exact folder, and the file name with case and accents folded."""
    parent, _, file_name = path.rpartition("/")
    return parent, _fold(file_name)


def _output(name: str, level: int) -> str:
    folder, slash, file = name.rpartition("/")
    dot = file.rfind(".") if level == 0 else 0
    stem = file[:dot] if 0 < dot < len(file) - 1 else file  # as PurePosixPath.stem
    if level > 1:
        stem += f"~{level}"
    if len(f"{stem}.png".encode("utf-8", NAMES)) > LONGEST:
        stem = _shorten(stem)
    return f"{folder}{slash}{stem}.png"


def _shorten(stem: str) -> str:
    digest = hashlib.sha256(stem.encode("utf-8", NAMES)).hexdigest()[:12]
    kept = stem
    while len(kept.encode("utf-8", NAMES)) > LONGEST - 32:  # room for other suffixes: .jpeg, .safetensors
        kept = kept[:-1]
    return f"{kept}~{digest}"
