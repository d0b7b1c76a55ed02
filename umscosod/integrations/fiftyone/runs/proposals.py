"""Instance masks of a ``Detections`` field, for CM-SPLG: written as the COCO file that the pipeline reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from umscosod.config import PipelineConfig
from umscosod.data.files import open_atomic
from umscosod.data.images import read_upright_size
from umscosod.data.masks import encode_rle
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.fields import FOREGROUND
from umscosod.integrations.fiftyone.runs.parts import Part
from umscosod.integrations.fiftyone.runs.store import every_sample


def with_detections_file(
    sample_collection: Any, detections_field: str | None, part: Part, config: PipelineConfig
) -> PipelineConfig:
    """Write the instance masks of a part's samples to ``PART/detections.json`` and point the configuration there.

    A COCO file that the configuration names is left to the pipeline, which finds images by the paths of their files.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    detections_field : str or None
        ``Detections`` field whose detections have masks; None: as the configuration says.
    part : Part
    config : PipelineConfig

    Returns
    -------
    PipelineConfig
        Unchanged without a field.

    Raises
    ------
    DataError
        A detection has no mask.
    """
    if detections_field is None:
        return config
    target = part.folder / "detections.json"
    content = _from_field(sample_collection, detections_field, part)
    with open_atomic(target) as stream:
        stream.write(json.dumps(content).encode())
    chosen = replace(config.pseudo, proposer="coco-json", detections=str(target), detections_images="")
    return replace(config, pseudo=chosen)


def check_detections_field(dataset: Any, field: str) -> None:
    """Refuse a field that is missing or holds no ``Detections``."""
    import fiftyone as fo

    if getattr(dataset.get_field(field), "document_type", None) is not fo.Detections:
        raise DataError(f"{field!r} is no Detections field; choose one whose detections have masks")


def _from_field(sample_collection: Any, field: str, part: Part) -> dict[str, Any]:
    dataset = sample_collection._dataset
    annotations = []
    for sample in every_sample(dataset).select(part.sample_ids).select_fields(field).iter_samples():
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
