"""Scores predictions against ground truth by FiftyOne's evaluation API, with the scores of the command line."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import fiftyone as fo

from umscosod.data.mask_rules import MaskValue
from umscosod.errors import ConfigError, DataError
from umscosod.evaluation.scores import Definition, check_definition
from umscosod.evaluation.scoring import MEASURES, Measure
from umscosod.integrations.fiftyone.evaluation.method import (
    BACKGROUND,
    BACKGROUND_NAME,
    FOREGROUND_NAME,
    IMAGE_FIELDS,
    CoSalEvaluationConfig,
    EvaluationReport,
    check_any,
    measure_fields,
)
from umscosod.integrations.fiftyone.evaluation.pairs import Measured, make_mask_field, measure_pairs
from umscosod.integrations.fiftyone.runs.edits import read_edits
from umscosod.integrations.fiftyone.runs.fields import (
    FOREGROUND,
    check_name,
    collapse_evaluation,
    every_sample,
    store_values,
)
from umscosod.integrations.fiftyone.runs.jobs import flat_images
from umscosod.integrations.fiftyone.runs.record import CoSalRunConfig, Progress, showing

logger = logging.getLogger(__name__)


def mark_of(dataset: Any, field: str) -> str:
    """Return a mark that changes when a run writes a field; ``""`` for a field that no run of ours wrote."""
    run = dataset.get_run_info(field).config if field in dataset.list_runs() else None
    return f"{run.run_id}/{getattr(run, 'changed', '')}" if isinstance(run, CoSalRunConfig) else ""


def stale_evaluations(dataset: Any, pred_field: str | None = None) -> dict[str, str]:
    """Find the evaluations with a field that a run rewrote or deleted later.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    pred_field : str, optional
        Only evaluations of this field.

    Returns
    -------
    dict of str to str
        By key of the evaluation, a sentence. It omits evaluations made by earlier versions, and fields that no run
        wrote: their age is unknown.
    """
    told = {}
    for key in dataset.list_evaluations():
        config = dataset.get_evaluation_info(key).config
        if pred_field is not None and getattr(config, "pred_field", None) != pred_field:
            continue
        for field, mark in (getattr(config, "made_of", None) or {}).items():
            if not dataset.has_field(field):
                told[key] = f"{key} was made of {field}, which is deleted"
            elif mark_of(dataset, field) != mark:
                told[key] = f"{key} was made before {field} was labelled anew; evaluate again"
    return told


def evaluate_dataset(
    sample_collection: Any,
    pred_field: str,
    gt_field: str,
    *,
    eval_key: str | None = None,
    group_field: str | None = None,
    definition: Definition = "cosod",
    mask_value: MaskValue | None = None,
    use_maps: bool = False,
    fields: Sequence[Measure] = IMAGE_FIELDS,
    overwrite: bool = False,
    progress: Progress = None,
) -> EvaluationReport:
    """Score masks or soft maps against ground truth; scores go to fields, to the App's panel and to the caller.

    All pairs are measured before anything is stored. So a stopped call leaves no incomplete evaluation, and an earlier
    evaluation with the same key stays.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
        An image data set or view; a ``group_by()`` view is flattened.
    pred_field : str
        Segmentation field with the predictions, usually the name of a run.
    gt_field : str
        Segmentation field, or Detections with masks: their union is then written to ``<gt_field>_mask``.
    eval_key : str, optional
        Name of the evaluation, ``eval_<pred_field>`` by default.
    group_field : str, optional
        Field that names an image's group: text, number or Classification. None: the image's folder.
    definition : {"cosod", "sod"}
        As for `umscosod.evaluate`, which gives the same scores.
    mask_value : int, str or sequence, optional
        Ids in the ground truths that are foreground, as for `umscosod.evaluate`.
    use_maps : bool
        Score the soft maps in ``<pred_field>_map``.
    fields : sequence of str
        Measures that get a field with a value for each image, ``<key>_iou`` and ``<key>_s`` by default;
        ``delete_evaluation`` removes them. The results hold all nine measures of each image, group and the data set.
    overwrite : bool
        Replace an evaluation of that key; without it a used key is an error.
    progress : callable or bool, optional
        As for `umscosod.integrations.fiftyone.label_dataset`.

    Returns
    -------
    EvaluationReport
        It names the omitted samples: without prediction or ground truth, or with an unreadable file.

    Raises
    ------
    DataError
        A field is missing or of another kind, the key is taken, no sample can be scored, every ground truth is empty,
        or they hold several ids and no `mask_value` is given.
    ConfigError
        Unknown definition or measure.
    """
    check_definition(definition)
    view = flat_images(sample_collection)
    dataset, key = view._dataset, eval_key or f"eval_{pred_field}"
    map_field = _check_prediction(view, pred_field, use_maps)
    gt_kind = _check_truth(view, pred_field, gt_field)
    for each in (pred_field, gt_field):
        read_edits(dataset, each)
    _check_key(dataset, key, fields, overwrite)
    notes: list[str] = []
    problems: dict[str, str] = {}
    if gt_kind is fo.Detections:
        instances = gt_field
        view, gt_field, problems = _unite_instances(view, instances, progress)
        notes.append(f"the instances in {instances!r} were compared as one mask an image, in {gt_field!r}")
    made_of = {field: mark for field in (pred_field, gt_field) if (mark := mark_of(dataset, field))}
    compared: dict[str, Any] = {"definition": definition, "group_field": group_field, "mask_value": mask_value}
    measured = _measure(view, (map_field or pred_field, gt_field), compared, problems, progress)
    check_any(measured, pred_field, gt_field)
    if key in dataset.list_evaluations():
        dataset.delete_evaluation(key)
    results = view.evaluate_segmentations(
        pred_field,
        gt_field=gt_field,
        eval_key=key,
        method=CoSalEvaluationConfig,
        mask_targets={BACKGROUND: BACKGROUND_NAME, FOREGROUND: _object_name(dataset, gt_field)},
        progress=False,
        **compared,
        map_field=map_field,
        image_fields=fields,
        made_of=made_of,
        measured=measured,
    )
    collapse_evaluation(dataset, key)
    notes += measured.notes()
    return _report(key, pred_field, gt_field, results, measured, tuple(notes))


def _measure(
    view: Any, fields: tuple[str, str], compared: Mapping[str, Any], problems: Mapping[str, str], progress: Progress
) -> Measured:
    """Measure all pairs of two fields; a reason why no ground truth was made replaces "no ground truth"."""
    with showing(progress) as shown:
        measured = measure_pairs(view, *fields, **compared, report=lambda done, total: shown(done, total, "evaluate"))
    measured.left_out = [
        dataclasses.replace(row, reason=problems.get(row.sample_id, row.reason)) for row in measured.left_out
    ]
    return measured


def _report(
    key: str, pred_field: str, gt_field: str, results: Any, measured: Measured, notes: tuple[str, ...]
) -> EvaluationReport:
    report = EvaluationReport(
        eval_key=key,
        pred_field=pred_field,
        gt_field=gt_field,
        definition=measured.definition,
        dataset=results.dataset_scores,
        groups=results.group_scores,
        n=len(measured.images),
        missing=len(measured.left_out),
        missing_reasons=tuple(measured.left_out),
        notes=notes,
    )
    logger.info(report.summary)
    return report


def _unite_instances(view: Any, instances: str, progress: Progress) -> tuple[Any, str, dict[str, str]]:
    """Write one mask an image; return a view with them, their field, and the problems by sample."""
    dataset = view._dataset
    if set(view.get_field_schema()) != set(dataset.get_field_schema()):
        # a view that hides fields would hide the masks too
        view = every_sample(dataset).select(view.values("id"), ordered=True)
    with showing(progress) as shown:
        return view, *make_mask_field(view, instances, shown)


def compute_metric(samples: Any, results: Any, measure: Measure, field: str | None = None) -> float:
    """Compute one measure for an evaluation of FiftyOne's own method: images go to a field, the data set is returned.

    All measures of one evaluation share one pass over the masks, which is stored with the results object.

    Parameters
    ----------
    samples : fiftyone.core.collections.SampleCollection
    results : fiftyone.utils.eval.segmentation.SegmentationResults
    measure : str
    field : str, optional
        Float field for the scores of the images; created if missing. None: they are not stored.

    Raises
    ------
    DataError
        No sample can be scored.
    """
    config = results.config
    measured = getattr(results, "_umscosod_measured", None)
    if measured is None:
        pairs = (samples.view(), config.pred_field, config.gt_field)
        measured = measure_pairs(*pairs, definition="cosod", group_field=None, report=lambda done, total: None)
        check_any(measured, config.pred_field, config.gt_field)
        results._umscosod_measured = measured  # private: not stored with the results
    if field:
        dataset = samples._dataset
        if not dataset.has_sample_field(field):
            dataset.add_sample_field(field, fo.FloatField)
        store_values(dataset, field, {image.name: getattr(image, measure) for image in measured.images})
    return float(getattr(measured.means.dataset.scores(), measure))


def _check_prediction(view: Any, pred_field: str, use_maps: bool) -> str | None:
    """Check the predictions' field; return the field of the soft maps if they are to be scored."""
    kind = _kind(view, pred_field)
    if kind is fo.Heatmap:
        masks = pred_field.removesuffix("_map")
        raise DataError(f"{pred_field!r} holds soft maps; to score them, give the field {masks!r} and use_maps=True")
    if kind is not fo.Segmentation:
        raise DataError(f"there is no field of masks {pred_field!r}; such fields here: {_names(view, fo.Segmentation)}")
    if not use_maps:
        return None
    map_field = f"{pred_field}_map"
    if _kind(view, map_field) is not fo.Heatmap:
        raise DataError(f"there are no soft maps {map_field!r}; score the masks: use_maps=False")
    return map_field


def _check_truth(view: Any, pred_field: str, gt_field: str) -> Any:
    """Check the ground truth field; return its kind."""
    kind = _kind(view, gt_field)
    if kind not in (fo.Segmentation, fo.Detections):
        there = f"{_names(view, fo.Segmentation)}; with instances: {_names(view, fo.Detections)}"
        raise DataError(f"there is no field of masks or instances {gt_field!r}; with masks there are: {there}")
    if gt_field == pred_field:
        raise DataError(f"prediction and ground truth are both {gt_field!r}; choose two different fields")
    return kind


def _kind(view: Any, name: str) -> Any:
    return getattr(view.get_field(name), "document_type", None) if name else None


def _names(view: Any, kind: Any) -> str:
    return ", ".join(sorted(view.get_field_schema(embedded_doc_type=kind))) or "none"


def _check_key(dataset: Any, key: str, fields: Sequence[Measure], overwrite: bool) -> None:
    """Refuse a used key, a key whose fields belong to something else, and an unknown measure."""
    if unknown := [name for name in fields if name not in MEASURES]:
        raise ConfigError(f"unknown measure {unknown[0]!r}; choose among {', '.join(MEASURES)}")
    check_name(key, "evaluation key")
    is_there = key in dataset.list_evaluations()
    if is_there and not overwrite:
        raise DataError(f"the evaluation {key!r} exists; choose another key or overwrite")
    taken = [name for name in measure_fields(key, fields) if dataset.has_sample_field(name)]
    if taken and not is_there:
        raise DataError(f"field {taken[0]!r}, where figures would go, exists already; choose another evaluation key")


def _object_name(dataset: Any, gt_field: str) -> str:
    """Return the data set's name of the object's pixel value."""
    targets = dataset.mask_targets.get(gt_field) or dataset.default_mask_targets or {}
    return str(targets.get(FOREGROUND, FOREGROUND_NAME))
