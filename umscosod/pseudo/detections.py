"""Instance masks from any COCO-format file, such as HASSOD's own results (spec B1)."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from pycocotools import mask as coco

from umscosod.config import PseudoConfig
from umscosod.data.masks import decode_rle
from umscosod.errors import DataError
from umscosod.pseudo.proposals import MaskProposal, drop_duplicates, is_sound_mask
from umscosod.types import BoolArray, GroupFeatures

_log = logging.getLogger(__name__)

Row = dict[str, Any]


class CocoProposer:
    """Masks read from a COCO-format file.

    Two shapes are understood: a dict with ``images`` and ``annotations``, and a bare results list, whose
    ``image_id`` is resolved through the ``images`` list of a second file, or taken for the file's stem, name or
    relative path. Images are matched by relative path, else by file name where that is unique in the file.
    Masks may be polygons, uncompressed or compressed run lengths; ``iscrowd`` makes no difference here.

    Parameters
    ----------
    file : Path
    config : PseudoConfig
        ``min_score``, the area and corner rules, ``nms_iou`` and ``detections_images`` apply.

    Attributes
    ----------
    missed : dict
        Image id -> why it has no entry in the file, for all images asked for so far.

    Raises
    ------
    DataError
        The file is missing, is no JSON, or has another shape.
    """

    def __init__(self, file: Path, config: PseudoConfig) -> None:
        self.file = file
        self.config = config
        self.missed: dict[str, str] = {}
        self._matched: dict[str, str] = {}
        content = _load_json(file)
        if isinstance(content, dict):
            images, annotations = content.get("images"), content.get("annotations")
            if not isinstance(images, list) or not isinstance(annotations, list):
                raise DataError(f"{file}: expected the lists 'images' and 'annotations', found {sorted(content)[:8]}")
        else:
            images, annotations = None, content
            if config.detections_images:
                companion = _load_json(Path(config.detections_images))
                images = companion.get("images") if isinstance(companion, dict) else None
                if not isinstance(images, list):
                    raise DataError(f"{config.detections_images}: expected a COCO dict with an 'images' list")
        self._rows: defaultdict[str, list[Row]] = defaultdict(list)
        for position, row in enumerate(annotations):
            if not isinstance(row, dict) or "image_id" not in row:
                raise DataError(f"{file}: annotation {_name(row, position)} has no 'image_id'")
            self._rows[str(row["image_id"])].append({"id": f"at position {position}", **row})
        self._index_images(images)

    def _index_images(self, images: list[Row] | None) -> None:
        self._images: dict[str, Row] = {}
        self._by_path: defaultdict[str, set[str]] = defaultdict(set)
        self._by_name: defaultdict[str, set[str]] = defaultdict(set)
        for position, row in enumerate(images or []):
            if not isinstance(row, dict) or "id" not in row or not row.get("file_name"):
                raise DataError(f"{self.file}: image {_name(row, position)} has no 'id' or no 'file_name'")
            key, path = str(row["id"]), PurePosixPath(str(row["file_name"]).replace("\\", "/"))
            self._images[key] = row
            self._by_path[str(path)].add(key)
            self._by_name[path.name].add(key)
        if images is None:  # a bare list: the ids themselves are names
            for key in self._rows:
                path = PurePosixPath(key)
                self._by_path[key].add(key)
                self._by_name[path.name].add(key)
                if key.isdigit():
                    self._by_name[str(int(key))].add(key)

    def propose(self, features: GroupFeatures, index: int) -> list[MaskProposal]:
        """Read the masks of image `index` at its own size, best score first.

        Returns
        -------
        list of MaskProposal
            Source ``coco-json``. Levels are the file's ``hier_level`` where every mask of the image has one, else
            those of mutual coverage. Empty for an image the file does not know (see `missed`).

        Raises
        ------
        DataError
            A mask has another size than the image, or cannot be decoded; the message names the annotation.
        """
        image = features.group.images[index]
        key = self._find(image.id)
        if key is None:
            return []
        size_hw = features.sizes_hw[index]
        found: list[tuple[Row, MaskProposal]] = []
        for row in self._rows.get(key, []):
            score = float(row.get("score", 1.0))
            if score < self.config.min_score:
                continue
            mask_hw = self._decode(row, self._images.get(key, {}), image.id, size_hw)
            if is_sound_mask(mask_hw, self.config):
                level = int(row.get("hier_level", 0))
                proposal = MaskProposal(mask_hw=mask_hw, score=min(score, 1.0), level=level, source="coco-json")
                found.append((row, proposal))
        found.sort(key=lambda pair: -pair[1].score)
        has_levels = all("hier_level" in row for row, _ in found)
        return drop_duplicates([proposal for _, proposal in found], self.config, relevel=not has_levels)

    def summary(self) -> str:
        """Count matches and misses so far in one line."""
        total = len(self._matched) + len(self.missed)
        line = f"{self.file}: {len(self._matched)} of {total} images found"
        return f"{line}, {len(self.missed)} missed, such as {next(iter(self.missed))!r}" if self.missed else line

    def _find(self, image_id: str) -> str | None:
        """Find the file's id of an image, or None; remember which."""
        path = PurePosixPath(image_id)
        names = [path.name]
        if not self._images:
            names += [path.stem] + ([str(int(path.stem))] if path.stem.isdigit() else [])
        matches = self._by_path.get(image_id, set())
        for name in names:
            matches = matches or self._by_name.get(name, set())
        if len(matches) == 1:
            key = next(iter(matches))
            self._matched[image_id] = key
            return key
        reason = f"{len(matches)} entries are called so; give relative paths" if matches else "no entry"
        if image_id not in self.missed:
            _log.warning("%s: %s: %s; its pseudo-label comes from the attention alone", self.file, image_id, reason)
        self.missed[image_id] = reason
        return None

    def _decode(self, row: Row, image_row: Row, image_id: str, size_hw: tuple[int, int]) -> BoolArray:
        segmentation = row.get("segmentation")
        where = f"{self.file}: annotation {row['id']} of image {image_id}"
        if isinstance(segmentation, dict):
            stated = segmentation.get("size")
        else:
            stated = [image_row.get("height", size_hw[0]), image_row.get("width", size_hw[1])]
        if not segmentation or stated is None:
            raise DataError(f"{where} has no mask in 'segmentation'; boxes alone cannot be used")
        if list(stated) != list(size_hw):
            raise DataError(
                f"{where} is made for {stated[0]} x {stated[1]} pixels (height x width), but the upright image has "
                f"{size_hw[0]} x {size_hw[1]}; give the file of these very images"
            )
        try:
            return _decode_segmentation(segmentation, size_hw)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DataError(f"{where}: its mask cannot be decoded ({error}); repair or remove it") from error


def _decode_segmentation(segmentation: Any, size_hw: tuple[int, int]) -> BoolArray:
    """Decode polygons or either kind of run lengths: bool, (H, W)."""
    height, width = size_hw
    if isinstance(segmentation, dict):
        return decode_rle(segmentation)
    for polygon in segmentation:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers; it needs an even count of at least 6")
    polygons = [[float(number) for number in polygon] for polygon in segmentation]
    return decode_rle(coco.merge(coco.frPyObjects(polygons, height, width)))


def _load_json(file: Path) -> dict[str, Any] | list[Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the detections {file}: {error.strerror}; check pseudo.detections") from error
    except ValueError as error:
        raise DataError(f"{file} is not a JSON file: {error}") from error
    if not isinstance(content, (dict, list)):
        raise DataError(f"{file}: expected a COCO dict or a results list, found {type(content).__name__}")
    return content


def _name(row: Any, position: int) -> str:
    return str(row["id"]) if isinstance(row, dict) and "id" in row else f"at position {position}"
