"""Pseudo-labels on disk, and their soft maps.

``OUT/<output>`` is the label as 0/255 at the image's own size. ``OUT/manifest.jsonl`` has one row an image: the label
on its own grid, the PNG's hash, the decision, and every candidate mask as run lengths. A PNG whose hash is no longer
the recorded one was replaced by a person and is taken as it is, with full confidence.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from umscosod.config import PseudoConfig
from umscosod.data.files import describe_damage, open_atomic
from umscosod.data.foreign import MaskReader
from umscosod.data.images import read_upright_size
from umscosod.data.masks import decode_rle, encode_png, encode_rle, read_rle_size
from umscosod.data.resize import LEAST_SIDE_PX, is_same_aspect, resize_centred, resize_mask
from umscosod.errors import DataError, shorten
from umscosod.pseudo.proposals import MaskProposer
from umscosod.pseudo.select import attention_threshold, choose_labels
from umscosod.types import NAMES, FloatArray, GroupFeatures, ImageGroup, ImageRef, PseudoLabel


def label_map(
    label: PseudoLabel, saliency_hw: FloatArray, size_hw: tuple[int, int], config: PseudoConfig
) -> FloatArray:
    """Average the mask with the attention, the latter raised so that its own threshold (eq. 1) becomes 0.5.

    A ViT's attention is peaked: most of an object lies far below half of its maximum. A map whose threshold is above
    0.5 already, as that of ``embedded``, stays as it is.

    Parameters
    ----------
    label : PseudoLabel
    saliency_hw : ndarray, float, (h, w), in [0, 1]
    size_hw : (int, int)
        Size of the map asked for.
    config : PseudoConfig

    Returns
    -------
    ndarray, float32, size_hw, in [0, 1]
        At least 0.5 where the resized mask is 1, at most 0.5 where it is 0; where it is between, along its border, the
        attention decides. A person's mask stays as it is, and so does a label that is a map of its own, or one that
        ``select=masks`` chose without the attention.
    """
    mask_HW = resize_centred(label.map_hw, size_hw)
    if label.source == HUMAN_SOURCE or label.is_map or config.select == "masks":
        return mask_HW.astype(np.float32)
    threshold = attention_threshold(saliency_hw)
    if not np.isfinite(threshold) or threshold <= 0:
        return mask_HW.astype(np.float32)
    attention_HW = np.clip(resize_centred(saliency_hw, size_hw) / (2.0 * min(threshold, 0.5)), 0.0, 1.0)
    return np.asarray(0.5 * (mask_HW + attention_HW), np.float32)


_log = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.jsonl"
HUMAN_SOURCE = "human"
_MAX_GRID = 1024  # tokens along a side of a label, more than any backbone gives

_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("image", "group", "output", "source", "png_sha256"), str),
    **{"size": list, "confidence": (int, float), "is_weak": bool, "label": dict},
}


DrawnLabel = tuple[dict[str, Any], bytes]
"""A row of the manifest, and what its PNG holds."""


class UnfitMaskError(DataError):
    """A person's mask cannot be read, or is not one of its image."""


class PseudoLabelStore:
    """A folder of pseudo-labels, written group by group.

    A run may be killed at any moment: a row is written before its PNG, and a PNG of an earlier run is removed
    before the row, so that nothing half-done is ever taken for a person's work.

    Parameters
    ----------
    out : Path
        Made if missing.

    Raises
    ------
    DataError
        The folder cannot be used or its manifest is damaged.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._file = out / MANIFEST_NAME
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the folder {out}: {error.strerror}; check what is there") from error
        self._hashes = {row["image"]: row["png_sha256"] for row in iter_rows(self._file)}
        if self._file.exists():  # without what a killed run left after the last line break
            os.truncate(self._file, self._file.read_bytes().rfind(b"\n") + 1)

    def holds(self, group: ImageGroup) -> bool:
        """Whether every image of a group has a row; its PNG may have been replaced or removed by a person."""
        return all(image.id in self._hashes for image in group.images)

    def save(self, drawn: Sequence[DrawnLabel]) -> None:
        """Write one group's labels; a mask that a person replaced is left alone.

        Parameters
        ----------
        drawn : sequence of DrawnLabel
            See `draw_labels`.

        Raises
        ------
        DataError
            A file cannot be written.
        """
        pictures = {}
        for row, content in drawn:
            digest, path = row["png_sha256"], self.out / row["output"]
            present, recorded = _hash_file(path), self._hashes.get(row["image"])
            if present is not None and recorded is not None and present not in (recorded, digest):
                _log.warning("%s was replaced by hand and is kept; remove it to get a new pseudo-label", path)
            elif present != digest:
                path.unlink(missing_ok=True)
                pictures[path] = content
            self._hashes[row["image"]] = digest
        try:
            with self._file.open("a", encoding="utf-8", errors=NAMES, newline="\n") as stream:
                stream.writelines(dump_row(row) for row, _ in drawn)
        except OSError as error:
            raise DataError(f"cannot write {self._file}: {error.strerror}; check the disk") from error
        for path, content in pictures.items():
            with open_atomic(path) as picture:
                picture.write(content)

    def seal(self, groups: Iterable[ImageGroup]) -> None:
        """Rewrite the manifest with one row an image, in the order of `groups`; rows of other images follow by id.

        Equal labels give equal bytes, whatever the order in which groups were saved. Atomic.
        """
        lines: dict[str, tuple[int, int]] = {}
        with self._file.open("ab+") as stream:  # also makes an empty manifest
            stream.seek(0)
            for line in iter(stream.readline, b""):
                end = stream.tell()
                lines[str(json.loads(line.decode("utf-8", NAMES))["image"])] = (end - len(line), len(line))
            wanted = [image.id for group in groups for image in group.images if image.id in lines]
            order = [*dict.fromkeys(wanted), *sorted(lines.keys() - set(wanted))]
            with open_atomic(self._file) as sealed:
                for image_id in order:
                    offset, length = lines[image_id]
                    stream.seek(offset)
                    sealed.write(stream.read(length))


def draw_group(features: GroupFeatures, _: None, proposer: MaskProposer, config: PseudoConfig) -> list[DrawnLabel]:
    """`umscosod.pseudo.select.choose_labels`, then `draw_labels`: work for `FeatureCollection.map`.

    It stands here, and not among the stages, as a process that does it need not load torch.
    """
    return draw_labels(features.group, features.sizes_hw, choose_labels(features, proposer, config))


def draw_labels(
    group: ImageGroup, sizes_hw: Sequence[tuple[int, int]], labels: Sequence[PseudoLabel]
) -> list[DrawnLabel]:
    """Make what `PseudoLabelStore.save` writes of one group's labels.

    Parameters
    ----------
    group : ImageGroup
        The images labelled, in the order of `labels`.
    sizes_hw : sequence of (int, int)
        Own size of each image: the size of its PNG.
    labels : sequence of PseudoLabel

    Raises
    ------
    DataError
        Counts or ids do not match.
    """
    if [image.id for image in group.images] != [label.image_id for label in labels] or len(sizes_hw) != len(labels):
        raise DataError(f"group {group.name!r}: labels and sizes must be those of its images, in the same order")
    drawn = []
    for image, size_hw, label in zip(group.images, sizes_hw, labels, strict=True):
        mask_HW = resize_centred(label.map_hw, size_hw) >= 0.5 if label.mask_hw.shape != size_hw else label.mask_hw
        content = encode_png(mask_HW.astype(np.uint8) * 255)
        row = {
            "image": image.id,
            "group": group.name,
            "output": image.output,
            "size": list(size_hw),
            "source": label.source,
            "confidence": label.confidence,
            "is_weak": label.is_weak,
            "label": encode_rle(label.mask_hw),
            "png_sha256": hashlib.sha256(content).hexdigest(),
        }
        drawn.append(({**label.details, **row}, content))
    return drawn


def load_pseudo_labels(
    out: Path,
    groups: Iterable[ImageGroup],
    *,
    max_side_px: int | None = None,
    unfit: dict[str, str] | None = None,
) -> dict[str, PseudoLabel]:
    """Read the pseudo-labels of these groups, replaced ones included.

    Parameters
    ----------
    out : Path
        Folder that a `PseudoLabelStore` wrote; or any folder of masks named like the images.
    groups : iterable of ImageGroup
    max_side_px : int, optional
        Larger masks of a person are shrunk to this longest side: thousands at a camera's size would fill the memory.
    unfit : dict, optional
        Gets, by image id, why a person's mask cannot be used; without it the first such mask is an error.

    Returns
    -------
    dict of str to PseudoLabel
        By image id, in the order of `groups`. An untouched label comes back as it was made, on its own grid, but
        without details; a replaced one at the size of its file (or shrunk), source ``human``, confidence 1. An image
        whose PNG is missing is left out, and the log says so. A person's mask must have the upright size of its image,
        or its aspect and sides of at least 8 pixels; the log counts the latter.

    Raises
    ------
    DataError
        A person's mask cannot be read or does not fit its image (without `unfit`), or the manifest is damaged; the
        message names the file (and line).
    """
    images = [(group, image) for group in groups for image in group.images]
    ids = {image.id for _, image in images}
    # what else a row holds, its candidates above all, is much, and nobody asks for it
    rows = {
        row["image"]: {key: row[key] for key in _KINDS} for row in iter_rows(out / MANIFEST_NAME) if row["image"] in ids
    }
    labels = {}
    reader = MaskReader()
    rescaled: list[Path] = []
    for group, image in images:
        path, row = out / image.output, rows.pop(image.id, None)  # rows of 100,000 are as large as their labels
        try:
            present = _hash_file(path)
            if present is None:
                why = "its PNG was removed" if row else "it was never labelled"
                _log.warning("%s (group %s) is left out of the pseudo-labels: %s: %s", image.id, group.name, path, why)
            elif row is not None and present == row["png_sha256"]:
                labels[image.id] = _from_row(out / MANIFEST_NAME, row)
            else:
                source = row["source"] if row else None
                labels[image.id] = _read_persons(path, image, source, max_side_px, reader, rescaled)
        except UnfitMaskError as error:
            if unfit is None:
                raise
            unfit[image.id] = str(error)
    reader.warn()
    if rescaled:
        _log.warning(
            "%d masks made by hand have the aspect of their images and another size (%s is one): they are rescaled",
            len(rescaled),
            rescaled[0],
        )
    replaced = sum(label.source == HUMAN_SOURCE for label in labels.values())
    _log.info("%s: %d pseudo-labels for %d images, %d replaced by hand", out, len(labels), len(images), replaced)
    return labels


def _from_row(file: Path, row: dict[str, Any]) -> PseudoLabel:
    try:
        label_hw = read_rle_size(row["label"])
        if list(label_hw) != row["size"] and max(label_hw) > _MAX_GRID:
            raise DataError(f"its size is {label_hw[0]} x {label_hw[1]}, neither that of its image nor of a grid")
        mask_hw = decode_rle(row["label"])
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: the label of {row['image']!r} is damaged ({error}); make the pseudo-labels again"
        ) from error
    return PseudoLabel(
        image_id=row["image"],
        map_hw=mask_hw.astype(np.float32),
        mask_hw=mask_hw,
        confidence=float(row["confidence"]),
        source=row["source"],
        is_weak=row["is_weak"],
    )


def _read_persons(
    path: Path,
    image: ImageRef,
    source: str | None,
    max_side_px: int | None,
    reader: MaskReader,
    rescaled: list[Path],
) -> PseudoLabel:
    """Take a mask as the label of its image; UnfitMaskError where it cannot be. `rescaled` gets rescaled ones."""
    try:
        mask_HW = reader.read(path).foreground
        size_hw, _ = read_upright_size(image.path)
    except DataError as error:
        raise UnfitMaskError(str(error)) from error
    if mask_HW.shape != size_hw:
        if min(mask_HW.shape) < LEAST_SIDE_PX or not is_same_aspect(mask_HW.shape, size_hw):
            raise UnfitMaskError(
                f"{path}: the mask has {mask_HW.shape[1]} x {mask_HW.shape[0]} pixels, its image {image.id} "
                f"{size_hw[1]} x {size_hw[0]}; save the mask at the size of the image"
            )
        rescaled.append(path)
    longest = max(mask_HW.shape)
    if max_side_px is not None and longest > max_side_px:
        height, width = (max(1, round(side * max_side_px / longest)) for side in mask_HW.shape)
        mask_HW = resize_mask(mask_HW, (height, width))
    return PseudoLabel(
        image_id=image.id,
        map_hw=mask_HW.astype(np.float32),
        mask_hw=mask_HW,
        confidence=1.0,
        source=HUMAN_SOURCE,
        details={"replaced": source},
    )


def dump_row(row: dict[str, Any]) -> str:
    """Write a row as a line of a manifest."""
    return json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def iter_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a manifest, later rows of an image after earlier ones; none if there is no file.

    A last line without its line break is what a killed run leaves: it is skipped.

    Raises
    ------
    DataError
        The file is not a regular one, or a line is damaged: it is named.
    """
    if not os.path.lexists(file):
        return
    if not file.is_file():
        raise DataError(f"{file}: is not a regular file; remove it and make the pseudo-labels again")
    number = 0
    try:
        with file.open(encoding="utf-8", errors=NAMES, newline="\n") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith("\n"):
                    _log.warning("%s: line %d is unfinished and ignored", file, number)
                    return
                yield _checked(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: line {number} is damaged ({describe_damage(error)}); restore it or make the pseudo-labels again"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error


def _checked(row: object) -> dict[str, Any]:
    """Refuse, with a ValueError, what is never written; run lengths are looked at when they are decoded."""
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    if missing := _KINDS.keys() - row.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    wrong = [key for key, kind in _KINDS.items() if not isinstance(row[key], kind)]
    # a boolean is a number too; NaN lies in no range
    if isinstance(row["confidence"], bool) or ("confidence" not in wrong and not 0 <= row["confidence"] <= 1):
        wrong.append("confidence")
    if wrong:
        raise ValueError(f"{', '.join(wrong)} cannot be {', '.join(shorten(row[key], 40) for key in wrong)}")
    return row


def _hash_file(path: Path) -> str | None:
    """SHA-256 of a file, or None where there is none; UnfitMaskError where it cannot be read."""
    try:
        if path.exists() and not path.is_file():  # never wait for a pipe
            raise UnfitMaskError(f"{path}: is not a regular file; replace or remove it")
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnfitMaskError(f"cannot read {path}: {error.strerror}; replace or remove it") from error
