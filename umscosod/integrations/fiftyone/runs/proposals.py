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
from umscosod.data.images import read_upright_size
from umscosod.data.masks import encode_rle
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.fields import FOREGROUND
from umscosod.integrations.fiftyone.runs.parts import Part


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


def _from_field(sample_collection: Any, field: str, part: Part) -> dict[str, Any]:
    import fiftyone as fo

    dataset = sample_collection._dataset
    found = dataset.get_field(field)
    if getattr(found, "document_type", None) is not fo.Detections:
        raise DataError(f"{field!r} is no Detections field; choose one whose detections have masks")
    annotations = []
    for sample in dataset.select(part.sample_ids).select_fields(field).iter_samples():
        detections = sample[field].detections if sample[field] is not None else []
        size_hw = read_upright_size(Path(sample.filepath))[0] if detections else (0, 0)
        for detection in detections:
            if not detection.has_mask:
                raise DataError(f"{sample.filepath}: a detection in {field!r} has no mask; boxes alone cannot be used")
            whole_HW = np.zeros(size_hw, np.uint8)
            detection.to_segmentation(mask=whole_HW, target=FOREGROUND)  # draws into the mask it is given
            score = 1.0 if detection.confidence is None else float(detection.confidence)
            annotations.append({"image_id": sample.id, "segmentation": encode_rle(whole_HW > 0), "score": score})
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
