"""Instance masks from a COCO file: its entries matched to images, their masks decoded and ranked.

Suffixes: ``H W`` pixels.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from umscosod.config import PseudoConfig
from umscosod.data.images import PICTURE_SUFFIXES
from umscosod.data.masks import describe_value, finite_number, whole_number
from umscosod.data.resize import LEAST_SIDE_PX, is_same_aspect
from umscosod.errors import DataError, count_of
from umscosod.pseudo.coco_file import Annotation, Tally, read_coco_file
from umscosod.pseudo.proposals import (
    MaskProposal,
    drop_duplicates,
    is_sound_mask,
)
from umscosod.pseudo.regions import decode_segmentation, read_stated_size
from umscosod.types import GroupFeatures, ImageRef

_MAX_MASKS = 1000  # of an image: all are compared with all
_MAX_PIXELS = 2_000_000_000  # of all masks of an image, a byte each
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


class CocoProposer:
    """Masks read from a COCO-format file.

    Two shapes are understood: a dict with ``images`` and ``annotations``, and a bare results list, whose
    ``image_id`` is resolved through the ``images`` list of a second file, or taken for the image's path, name, stem
    or number. Which entry is of which image is settled here, for the whole collection, by the rules of
    `match_entries`: no image ever gets the masks of another one.
    Masks may be polygons, uncompressed or compressed run lengths; ``iscrowd`` makes no difference here. An annotation
    that makes no sense is left out and counted; `warnings` says so once.

    Parameters
    ----------
    file : Path
    config : PseudoConfig
        ``min_score``, the smallest share of the area and ``detections_images`` apply.
    images : iterable of ImageRef
        All images of the collection.

    Attributes
    ----------
    sha256 : str
        Of all that was read.
    missed : dict
        Image id -> why it has no masks: no entry, or none of its masks can be used (found when it is asked for).

    Raises
    ------
    DataError
        A file is missing, is no JSON, has another shape, or names none of the images.
    """

    def __init__(self, file: Path, config: PseudoConfig, images: Iterable[ImageRef]) -> None:
        images = list(images)
        self.file = file
        self.config = config
        content = read_coco_file(file, Path(config.detections_images) if config.detections_images else None)
        matching = match_entries(images, content.names, has_numbers=content.is_bare)
        if not matching.found:
            first = next(iter(content.names.values()), None)
            named = "no image" if first is None else f"images such as {describe_value(first)} ({len(content.names)})"
            raise DataError(
                f"{file} names {named}, and none of the collection, such as {images[0].id!r} ({len(images)}); give the "
                "file of these images"
            )
        self.sha256, self.missed = content.sha256, matching.missed
        self._count, self._matching = len(images), matching
        # a file of all of COCO is large: of its annotations only what is asked for stays in memory
        used = set(matching.found.values())
        self._content = replace(content, annotations={key: content.annotations.get(key, []) for key in used})
        self._rescaled, self._crowded, self._above = Tally(), Tally(), Tally()

    def propose(self, features: GroupFeatures, index: int) -> list[MaskProposal]:
        """Read the masks of image `index` at its own size, best score first.

        Returns
        -------
        list of MaskProposal
            Source ``coco-json``. Levels are the file's ``hier_level`` where every mask of the image has one, else
            those of mutual coverage. Masks made for another size of the same aspect are rescaled, those of another
            aspect left out; an image of whose masks none can be used is `missed`. Of very many masks the best are
            taken, as many as fit into memory. Empty for an image without an entry.
        """
        image_id, size_hw = features.group.images[index].id, features.sizes_hw[index]
        key = self._matching.found.get(image_id)
        if key is None:
            return []
        found: list[tuple[Annotation, MaskProposal]] = []
        misfits: list[str] = []
        rescaled = ""
        ranked = self._rank(key, image_id)
        room = min(_MAX_MASKS, max(1, _MAX_PIXELS // (size_hw[0] * size_hw[1])))
        for score, annotation in ranked:
            where = f"annotation {annotation.name} of image {image_id!r}"
            if len(found) == room:
                self._crowded.add(f"{image_id!r}: its best {room} of {len(ranked)} are used")
                break
            try:
                level = _read_level(annotation)
                segmentation = annotation.row.get("segmentation")
                stated_hw = read_stated_size(segmentation, self._content.sizes.get(key))
                if stated_hw is not None and not _fits(segmentation, stated_hw, size_hw):
                    misfits.append(f"{where} is made for {_by(stated_hw)} pixels, the upright image has {_by(size_hw)}")
                    continue
                mask_hw = decode_segmentation(segmentation, stated_hw, size_hw)
            except DataError as error:
                self._content.bad_annotations.add(f"{where}: {error}")
                continue
            if stated_hw is not None and stated_hw != size_hw:
                rescaled = rescaled or f"{where} from {_by(stated_hw)} to {_by(size_hw)} pixels"
            if is_sound_mask(mask_hw, self.config):
                proposal = MaskProposal(mask_hw=mask_hw, score=min(score, 1.0), level=level, source="coco-json")
                found.append((annotation, proposal))
        if not found:
            self.missed[image_id] = misfits[0] if misfits else self._explain(key)
        else:
            for misfit in misfits:
                self._content.bad_annotations.add(misfit)
        if rescaled:
            self._rescaled.add(rescaled)
        has_levels = all("hier_level" in annotation.row for annotation, _ in found)
        return drop_duplicates([proposal for _, proposal in found], relevel=not has_levels)

    def _rank(self, key: str, image_id: str) -> list[tuple[float, Annotation]]:
        """Annotations of an entry with their scores, best first, those of too low a score left out."""
        ranked = []
        for annotation in self._content.annotations[key]:
            where = f"annotation {annotation.name} of image {image_id!r}"
            given = annotation.row.get("score", 1.0)
            score = finite_number(given)
            if score is None:
                self._content.bad_annotations.add(f"{where}: its score is {describe_value(given)}, not a finite number")
                continue
            if score > 1.0:
                self._above.add(f"{where}: {score:g}")
            if score >= self.config.min_score:
                ranked.append((score, annotation))
        return sorted(ranked, key=lambda pair: -pair[0])

    def _explain(self, key: str) -> str:
        """Why nothing of an entry is used."""
        count = len(self._content.annotations[key])
        if not count:
            return "no annotation of it"
        return (
            f"none of its {count} masks can be used: they score below pseudo.min_score, are smaller, larger or in more "
            "corners than the settings allow, or make no sense"
        )

    def summary(self) -> str:
        """Count the images found in one line."""
        return f"{self.file}: {self._count - len(self.missed)} of {count_of(self._count, 'image')} found"

    def warnings(self) -> list[str]:
        """Say what was not taken as it stands: one line each, with a count and the first example.

        Complete after `propose` for all images; matches and misses by name are known from the start.
        """
        content, matching = self._content, self._matching
        lines = [content.note] if content.note else []
        if self.missed:
            image_id, reason = next(iter(self.missed.items()))
            lines.append(
                f"images without masks from it: {len(self.missed)} of {self._count}, such as {image_id!r}: {reason}"
            )
        if matching.by_number:
            image_id = matching.by_number[0]
            lines.append(
                f"images found by a number in their name alone: {len(matching.by_number)}, such as {image_id!r} for "
                f"{content.names[matching.found[image_id]]}; if it is another's, give pseudo.detections_images"
            )
        if matching.unused:
            lines.append(
                f"images it names that are not in the collection: {len(matching.unused)} of {len(content.names)}, such "
                f"as {describe_value(content.names[matching.unused[0]])}; their masks are not used"
            )
        for tally, what in (
            (content.bad_images, "rows of images left out"),
            (content.bad_annotations, "annotations left out"),
            (self._crowded, "images with more masks than are used"),
            (self._above, "scores above 1, which count as 1"),
            (self._rescaled, "images whose masks were made for another size and rescaled"),
        ):
            if tally.count:
                lines.append(f"{what}: {tally.count}, such as {tally.example}")
        return [f"{self.file}: {line}" for line in lines]


def _read_level(annotation: Annotation) -> int:
    given = annotation.row.get("hier_level", 0)
    level = whole_number(given)
    if level is None or level < 0:
        raise DataError(f"its hier_level is {describe_value(given)}, not 0, 1 or 2")
    return level


def _fits(segmentation: object, stated_hw: tuple[int, int], size_hw: tuple[int, int]) -> bool:
    """Whether a mask made for one size can be rescaled to another; polygons can from any size of the aspect."""
    is_stamp = isinstance(segmentation, dict) and min(stated_hw) < LEAST_SIDE_PX
    return stated_hw == size_hw or (is_same_aspect(stated_hw, size_hw) and not is_stamp)


def _by(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]} x {size_hw[1]}"
