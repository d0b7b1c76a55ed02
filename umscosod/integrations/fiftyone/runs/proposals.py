"""Instance masks that others made, for CM-SPLG: a ``Detections`` field or a COCO file, keyed by sample.

The pipeline matches masks to images by the image's id, which is the sample's: names of files are looked up here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from umscosod.config import PipelineConfig
from umscosod.data.files import open_atomic
from umscosod.data.masks import encode_rle
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.parts import Part
from umscosod.types import BoolArray


def with_detections_file(
    sample_collection: Any, detections_field: str | None, part: Part, config: PipelineConfig
) -> PipelineConfig:
    """Write the instance masks of a part's samples to ``PART/detections.json`` and point the configuration there.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    detections_field : str or None
        ``Detections`` field whose detections have masks; None: the COCO file of ``config.pseudo``, if any.
    part : Part
    config : PipelineConfig

    Returns
    -------
    PipelineConfig
        Unchanged where masks are to be made by clustering.

    Raises
    ------
    DataError
        The field is missing or no ``Detections``, a detection has no mask, or the file cannot be used.
    """
    target = part.folder / "detections.json"
    if detections_field is not None:
        content = _from_field(sample_collection, detections_field, part)
    elif config.pseudo.proposer == "coco-json":
        content = _from_file(config, part)
    else:
        return config
    with open_atomic(target) as stream:
        stream.write(json.dumps(content).encode())
    chosen = replace(config.pseudo, proposer="coco-json", detections=str(target), detections_images="")
    return replace(config, pseudo=chosen)


def paste_instance(mask_hw: Any, box: Any, size_hw: tuple[int, int]) -> BoolArray:
    """Put a detection's mask, which covers its box only, into the whole picture.

    Parameters
    ----------
    mask_hw : array_like, (h, w)
        Anything but 0 is the object; resized to the box by nearest neighbour.
    box : (x, y, width, height), relative
    size_hw : (int, int)

    Returns
    -------
    ndarray, bool, (H, W)

    Examples
    --------
    >>> paste_instance([[1]], (0.5, 0.0, 0.5, 1.0), (2, 4)).astype(int)
    array([[0, 0, 1, 1],
           [0, 0, 1, 1]])
    """
    mask = np.asarray(mask_hw) != 0
    height, width = size_hw
    x0, y0 = round(box[0] * width), round(box[1] * height)
    box_w, box_h = max(1, round(box[2] * width)), max(1, round(box[3] * height))
    rows = (np.arange(box_h) * mask.shape[0]) // box_h
    columns = (np.arange(box_w) * mask.shape[1]) // box_w
    patch = mask[np.ix_(rows, columns)]
    whole = np.zeros(size_hw, bool)
    top, left = max(0, y0), max(0, x0)
    bottom, right = min(height, y0 + box_h), min(width, x0 + box_w)
    whole[top:bottom, left:right] = patch[top - y0 : bottom - y0, left - x0 : right - x0]
    return whole


def _from_field(sample_collection: Any, field: str, part: Part) -> dict[str, Any]:
    import fiftyone as fo

    from umscosod.data.images import decode_image

    dataset = sample_collection._dataset
    found = dataset.get_field(field)
    if getattr(found, "document_type", None) is not fo.Detections:
        raise DataError(f"{field!r} is no Detections field; choose one whose detections have masks")
    annotations = []
    for sample in dataset.select(part.sample_ids).select_fields(field).iter_samples():
        detections = sample[field].detections if sample[field] is not None else []
        size_hw = decode_image(Path(sample.filepath)).shape[:2] if detections else (0, 0)
        for detection in detections:
            if not detection.has_mask:
                raise DataError(f"{sample.filepath}: a detection in {field!r} has no mask; boxes alone cannot be used")
            whole = paste_instance(detection.get_mask(), detection.bounding_box, size_hw)
            score = 1.0 if detection.confidence is None else float(detection.confidence)
            annotations.append({"image_id": sample.id, "segmentation": encode_rle(whole), "score": score})
    return {"images": [{"id": id_, "file_name": id_} for id_ in part.sample_ids], "annotations": annotations}


def _from_file(config: PipelineConfig, part: Part) -> dict[str, Any]:
    file = Path(config.pseudo.detections)
    content = _load(file)
    companion = _load(Path(config.pseudo.detections_images)) if config.pseudo.detections_images else {}
    is_list = isinstance(content, list)
    annotations = content if is_list else content.get("annotations")
    images = companion.get("images") if is_list else content.get("images")
    if not isinstance(annotations, list):
        raise DataError(f"{file} has no list of annotations; give a COCO file or a results list")
    names = (
        {str(row["id"]): str(row["file_name"]) for row in images}
        if images
        else {str(row["image_id"]): str(row["image_id"]) for row in annotations}
    )
    samples = _match(names, part, file)
    return {
        "images": [{"id": key, "file_name": sample} for key, sample in samples.items()],
        "annotations": [row for row in annotations if str(row["image_id"]) in samples],
    }


def _match(names: dict[str, str], part: Part, file: Path) -> dict[str, str]:
    """Sample id by the file's image id: by the longest common end of the two paths, then by name or stem if unique."""
    by_tail: defaultdict[str, set[str]] = defaultdict(set)
    for group in part.groups:
        for image in group.images:
            parts = image.path.parts[1:]
            for start in range(len(parts)):
                by_tail["/".join(parts[start:])].add(image.id)
            by_tail[image.path.stem].add(image.id)
    found = {}
    for key, name in names.items():
        candidates = by_tail.get(str(PurePosixPath(name)), set()) or by_tail.get(PurePosixPath(name).name, set())
        if len(candidates) > 1:
            raise DataError(f"{file}: {name!r} fits {len(candidates)} images; give names with their folders")
        if candidates:
            found[key] = next(iter(candidates))
    if not found:
        raise DataError(f"{file}: none of its {len(names)} images is among the samples; give the file of these images")
    return found


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the detections {file}: {error}; give a COCO file") from error
