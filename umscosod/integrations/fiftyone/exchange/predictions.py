"""Imports results of any other method as a run: copies files and matches them by group and name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from umscosod.config import PipelineConfig
from umscosod.data.files import real_path
from umscosod.data.foreign import MaskReader
from umscosod.data.images import read_upright_size
from umscosod.data.mask_rules import MaskRule, decide_rule
from umscosod.data.masks import write_png_atomic
from umscosod.errors import ConfigError, DataError, count_of
from umscosod.evaluation.scoring import open_grey
from umscosod.evaluation.trees import name_some
from umscosod.export.folder import path_inside
from umscosod.integrations.fiftyone.exchange.importer import (
    Matching,
    Prediction,
    PredictionFolder,
    Wanted,
    looks_like_masks,
)
from umscosod.integrations.fiftyone.runs.jobs import Job, RunReport, flat_images, read_groups, run_job
from umscosod.integrations.fiftyone.runs.parts import Part
from umscosod.integrations.fiftyone.runs.record import Progress
from umscosod.progress import ProgressFn
from umscosod.types import ByteArray, ImageRef, Labelled, Status

if TYPE_CHECKING:
    from umscosod.pipeline import LabelReport

METHOD, STAGE = "umscosod/import", "import"
Kind = Literal["auto", "mask", "map"]
_WHITE = 255


def import_predictions(
    sample_collection: Any,
    folder: str | Path,
    field: str,
    *,
    group_field: str | None = None,
    kind: Kind = "auto",
    threshold: float = 0.5,
    out_dir: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> RunReport:
    """Import saliency maps or masks of another method as a run.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    folder : path
        ``FOLDER/GROUP/NAME.png`` as in results of benchmarks, or ``FOLDER/NAME.png``; or an output folder of
        ``umscosod label``, with masks, maps, confidence and status. It is only read: the run has copies.
    field : str
        Name of the mask field and of the run.
    group_field : str, optional
        Field whose value is the name of the group's folder. None: the image's own folder.
    kind : {"auto", "mask", "map"}
        Kind of the pictures; ``auto``: masks if they hold only two values. For an output folder it is known.
    threshold : float
        Value of a map (0 to 1) from which a pixel belongs to the mask.
    out_dir : path, optional
        Folder for the run's files.
    overwrite : bool
        Replace the labels of an earlier import into the field, but never a person's labels.
    progress : callable or bool, optional
        As for `umscosod.integrations.fiftyone.label_dataset`.

    Returns
    -------
    RunReport
        Samples without a prediction, or with several candidates, have a row ``skipped`` with the reason. Nothing is
        written for them, so a later call can add their prediction.

    Raises
    ------
    DataError
        There are no predictions in `folder`, none fits a sample, or another run owns the field.
    ConfigError
        `kind` or `threshold` is out of its bounds.

    Notes
    -----
    A picture of another size is resized to its image by Pillow's bilinear filter on 8 bits, as in `umscosod evaluate`;
    a mask is then thresholded at half. A result of another program has no confidence: nothing is known of it that
    compares with the confidence of our masks.
    """
    if kind not in ("auto", "mask", "map"):
        raise ConfigError(f"no kind {kind!r}; choose one of: auto, mask, map")
    if not 0.0 < threshold <= 1.0:
        raise ConfigError(f"threshold must be above 0 and at most 1, got {threshold}")
    source = real_path(Path(folder).expanduser())
    view = flat_images(sample_collection)
    predictions = PredictionFolder(source, by_folder=group_field is None)
    wanted = _wanted(view, group_field)
    matching = predictions.match(wanted)
    if not matching.found:
        raise DataError(_nothing_fits(predictions, wanted))
    has_maps = _has_maps(view._dataset, field, predictions, matching.found, kind)
    rule = _rule_of(matching.found, has_maps=has_maps)
    rule.check_clear(str(source))
    job = Job(
        key=field,
        method=METHOD,
        group_field=group_field,
        out_dir=out_dir,
        config=PipelineConfig(),
        verb={"verb": "import", "folder": str(source), "threshold": threshold, "has_maps": has_maps},
        overwrite=overwrite,
        has_maps=has_maps,
    )

    def work(part: Part, progress: ProgressFn) -> LabelReport:
        return _do_part(part, predictions, threshold, rule, has_maps=has_maps, progress=progress)

    report = run_job(view.select(list(matching.found)), job, work, progress)
    return _with_unmatched(report, matching, wanted)


def _wanted(view: Any, group_field: str | None) -> list[Wanted]:
    ids, paths = view.values(["id", "filepath"])
    if not ids:
        raise DataError("the view has no samples; choose another view or data set")
    files = [Path(path) for path in paths]
    groups = read_groups(view, files, group_field)
    return [Wanted(id=sample, image=file, group=group) for sample, file, group in zip(ids, files, groups, strict=True)]


def _nothing_fits(predictions: PredictionFolder, wanted: list[Wanted]) -> str:
    first = wanted[0]
    return (
        f"no prediction in {predictions.folder} fits any of the {len(wanted)} samples: it holds "
        f"{name_some(predictions.names[:3])}, looked for {first.group}/{first.image.stem}.png and the like; "
        "give the folder whose sub-folders are the groups, or another group field"
    )


def _has_maps(
    dataset: Any, field: str, predictions: PredictionFolder, found: Mapping[str, Prediction], kind: str
) -> bool:
    """Whether the run has soft maps; an existing import decides for ``auto``."""
    from umscosod.integrations.fiftyone.runs.record import find_run

    if predictions.is_ours:
        return any(prediction.map is not None for prediction in found.values())
    present = find_run(dataset, field) if kind == "auto" else None
    if present is not None and present.method == METHOD:
        return bool(present.has_maps)
    return not looks_like_masks(found) if kind == "auto" else kind == "map"


def _rule_of(found: Mapping[str, Prediction], *, has_maps: bool) -> MaskRule:
    """Decide how the masks are read; masks that are made of maps need no rule."""
    masks = [one.mask or (None if has_maps else one.picture) for one in found.values()]
    return decide_rule([path for path in masks if path is not None])


def _with_unmatched(report: RunReport, matching: Matching, wanted: list[Wanted]) -> RunReport:
    """Add the samples without a prediction, and the predictions that fit no sample."""
    left = [
        Labelled(
            image_id=sample.id,
            group=sample.group,
            output=f"{sample.id}.png",
            status=Status.SKIPPED,
            reason=matching.problems[sample.id],
        )
        for sample in wanted
        if sample.id in matching.problems
    ]
    notes = list(report.notes)
    if left:
        notes.append(f"{count_of(len(left), 'sample')} got nothing: {name_some([row.reason for row in left])}")
    if matching.unused:
        notes.append(
            f"{count_of(len(matching.unused), 'prediction fits', 'predictions fit')} no sample: "
            f"{name_some(list(matching.unused))}"
        )
    return replace(report, rows=(*report.rows, *left), notes=tuple(notes))


def _do_part(
    part: Part,
    predictions: PredictionFolder,
    threshold: float,
    rule: MaskRule,
    *,
    has_maps: bool,
    progress: ProgressFn,
) -> LabelReport:
    """Copy the predictions of a part's samples, one at a time; a bad one becomes a failed row."""
    from umscosod.pipeline import LabelReport

    started = time.monotonic()
    images = [(group.name, image) for group in part.groups for image in group.images]
    matching = predictions.match(Wanted(id=image.id, image=image.path, group=group) for group, image in images)
    rows = []
    reader = MaskReader(rule)
    for done, (group, image) in enumerate(images):
        progress(done, len(images), STAGE)
        row = Labelled(image_id=image.id, group=group, output=image.output, status=Status.FAILED)
        prediction = matching.found.get(image.id)
        if prediction is None:  # the prediction existed when the part began
            rows.append(replace(row, reason=matching.problems[image.id]))
            continue
        try:
            rows.append(_import_sample(part, image, row, prediction, threshold, reader, has_maps=has_maps))
        except DataError as error:
            rows.append(replace(row, reason=str(error)))
    reader.warn()
    progress(len(images), len(images), STAGE)
    return LabelReport(rows=tuple(rows), out=part.folder, seconds=time.monotonic() - started)


def _import_sample(
    part: Part,
    image: ImageRef,
    row: Labelled,
    prediction: Prediction,
    threshold: float,
    reader: MaskReader,
    *,
    has_maps: bool,
) -> Labelled:
    """Write mask and map of one sample at its image's own size."""
    told = prediction.row
    if told is not None and told.status is Status.FAILED:
        return replace(row, reason=told.reason)
    size_hw, _ = read_upright_size(image.path)
    map_file = prediction.map if told is not None else prediction.picture
    grey_HW = _read_map(map_file, size_hw) if has_maps and map_file is not None else None
    if told is not None and prediction.mask is not None:
        mask_HW = _read_mask(prediction.mask, size_hw, reader)
    elif grey_HW is not None:
        mask_HW = grey_HW >= threshold * _WHITE
    else:
        assert prediction.picture is not None, "a prediction is a row of a report or a picture"
        mask_HW = _read_mask(prediction.picture, size_hw, reader)
    if grey_HW is not None:
        write_png_atomic(path_inside(part.folder, f"maps/{image.output}"), grey_HW)
    write_png_atomic(path_inside(part.folder, f"masks/{image.output}"), mask_HW.astype(np.uint8) * np.uint8(_WHITE))
    if told is not None:
        status = told.status if told.status is not Status.SKIPPED else Status.LABELLED
        return replace(row, status=status, confidence=told.confidence, reason=told.reason, source=told.source)
    if not mask_HW.any():
        return replace(row, status=Status.EMPTY, reason="the prediction is empty")
    return replace(row, status=Status.LABELLED, confidence=None, threshold=0.0 if grey_HW is None else threshold)


def _read_map(path: Path, size_hw: tuple[int, int]) -> ByteArray:
    """Read a picture as 8-bit grey at the size of its image."""
    return np.asarray(_resize(open_grey(path), size_hw))


def _read_mask(path: Path, size_hw: tuple[int, int], reader: MaskReader) -> Any:
    """Read a mask at the size of its image, bool (H, W); another size is resized smoothly and thresholded at half."""
    mask_HW = reader.read(path).foreground
    if mask_HW.shape == size_hw:
        return mask_HW
    grey = Image.fromarray(mask_HW.astype(np.uint8) * np.uint8(_WHITE))
    return np.asarray(_resize(grey, size_hw)) > _WHITE / 2


def _resize(grey: Image.Image, size_hw: tuple[int, int]) -> Image.Image:
    size_wh = size_hw[::-1]
    return grey if grey.size == size_wh else grey.resize(size_wh, Image.Resampling.BILINEAR)
