"""Instance masks from any COCO-format file, such as HASSOD's own results (spec B1)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from umscosod.config import PseudoConfig
from umscosod.data.resize import LEAST_SIDE_PX, is_same_aspect
from umscosod.data.values import describe_value, finite_number, whole_number
from umscosod.errors import DataError
from umscosod.pseudo.coco_file import Annotation, Tally, read_coco_file
from umscosod.pseudo.matching import match_entries
from umscosod.pseudo.proposals import MaskProposal, drop_duplicates, is_sound_mask
from umscosod.pseudo.segmentation import decode_segmentation, read_stated_size
from umscosod.types import GroupFeatures, ImageRef
from umscosod.words import count_of

_MAX_MASKS = 1000  # of an image: all are compared with all
_MAX_PIXELS = 2_000_000_000  # of all masks of an image, a byte each


class CocoProposer:
    """Masks read from a COCO-format file.

    Two shapes are understood: a dict with ``images`` and ``annotations``, and a bare results list, whose
    ``image_id`` is resolved through the ``images`` list of a second file, or taken for the image's path, name, stem
    or number. Which entry is of which image is settled here, for the whole collection, by the rules of
    `umscosod.pseudo.matching.match_entries`: no image ever gets the masks of another one.
    Masks may be polygons, uncompressed or compressed run lengths; ``iscrowd`` makes no difference here. An annotation
    that makes no sense is left out and counted; `warnings` says so once.

    Parameters
    ----------
    file : Path
    config : PseudoConfig
        ``min_score``, the area and corner rules, ``nms_iou`` and ``detections_images`` apply.
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
        self.sha256 = content.sha256
        self.missed = matching.missed
        self._count = len(images)
        self._keys = matching.found
        self._entries = len(content.names)
        self._unused = [content.names[key] for key in matching.unused]
        # a file of all of COCO is large: only what is asked for stays in memory
        used = set(matching.found.values())
        self._rows = {key: rows for key, rows in content.annotations.items() if key in used}
        self._sizes = {key: size for key, size in content.sizes.items() if key in used}
        self._note = content.note
        self._by_number = [f"{image_id!r} for {content.names[self._keys[image_id]]}" for image_id in matching.by_number]
        self._bad_images, self._bad_annotations = content.bad_images, content.bad_annotations
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
        key = self._keys.get(image_id)
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
                stated_hw = read_stated_size(segmentation, self._sizes.get(key))
                if stated_hw is not None and not _fits(segmentation, stated_hw, size_hw):
                    misfits.append(f"{where} is made for {_by(stated_hw)} pixels, the upright image has {_by(size_hw)}")
                    continue
                mask_hw = decode_segmentation(segmentation, stated_hw, size_hw)
            except DataError as error:
                self._bad_annotations.add(f"{where}: {error}")
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
                self._bad_annotations.add(misfit)
        if rescaled:
            self._rescaled.add(rescaled)
        has_levels = all("hier_level" in annotation.row for annotation, _ in found)
        return drop_duplicates([proposal for _, proposal in found], self.config, relevel=not has_levels)

    def _rank(self, key: str, image_id: str) -> list[tuple[float, Annotation]]:
        """Annotations of an entry with their scores, best first, those of too low a score left out."""
        ranked = []
        for annotation in self._rows.get(key, []):
            where = f"annotation {annotation.name} of image {image_id!r}"
            try:
                score = _read_score(annotation)
            except DataError as error:
                self._bad_annotations.add(f"{where}: {error}")
                continue
            if score > 1.0:
                self._above.add(f"{where}: {score:g}")
            if score >= self.config.min_score:
                ranked.append((score, annotation))
        return sorted(ranked, key=lambda pair: -pair[0])

    def _explain(self, key: str) -> str:
        """Why nothing of an entry is used."""
        count = len(self._rows.get(key, []))
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
        lines = [self._note] if self._note else []
        if self.missed:
            image_id, reason = next(iter(self.missed.items()))
            lines.append(
                f"images without masks from it: {len(self.missed)} of {self._count}, such as {image_id!r}: {reason}"
            )
        if self._by_number:
            lines.append(
                f"images found by a number in their name alone: {len(self._by_number)}, such as {self._by_number[0]}; "
                "if it is another's, give pseudo.detections_images"
            )
        if self._unused:
            lines.append(
                f"images it names that are not in the collection: {len(self._unused)} of {self._entries}, such as "
                f"{describe_value(self._unused[0])}; their masks are not used"
            )
        for tally, what in (
            (self._bad_images, "rows of images left out"),
            (self._bad_annotations, "annotations left out"),
            (self._crowded, "images with more masks than are used"),
            (self._above, "scores above 1, which count as 1"),
            (self._rescaled, "images whose masks were made for another size and rescaled"),
        ):
            if tally.count:
                lines.append(f"{what}: {tally.count}, such as {tally.example}")
        return [f"{self.file}: {line}" for line in lines]


def _read_score(annotation: Annotation) -> float:
    given = annotation.row.get("score", 1.0)
    score = finite_number(given)
    if score is None:
        raise DataError(f"its score is {describe_value(given)}, not a finite number")
    return score


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
