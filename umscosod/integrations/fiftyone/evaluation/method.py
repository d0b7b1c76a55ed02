"""Defines the evaluation method ``cosal``: our measures in FiftyOne's evaluation API, which the App can show.

FiftyOne stores the path of `CoSalEvaluationConfig` and finds `CoSalEvaluation` by dropping "Config": both must stay in
this module. A process without this package uses the base classes and can still read the scores.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
import fiftyone.utils.eval.segmentation as fous
import numpy as np

from umscosod.data.mask_rules import MaskValue
from umscosod.errors import ConfigError, DataError, count_of
from umscosod.evaluation.scores import CURVES, Curves, Definition, Scores, check_definition
from umscosod.evaluation.scoring import MEASURES, Measure
from umscosod.integrations.fiftyone.evaluation.pairs import LeftOut, Measured, measure_pairs
from umscosod.integrations.fiftyone.runs.fields import FOREGROUND, TARGETS, remove_sidebar_group, store_values

WORDS: dict[Measure, str] = {
    "s": "S-measure",
    "e_max": "Max E-measure",
    "f_max": "Max F-measure",
    "iou": "IoU",
    "mae": "MAE",
    "e_mean": "Mean E-measure",
    "f_mean": "Mean F-measure",
    "e_adaptive": "Adaptive E-measure",
    "f_adaptive": "Adaptive F-measure",
}
"""Labels of the nine measures, the usual ones first."""
IMAGE_FIELDS: tuple[Measure, ...] = ("iou", "s")
"""Measures that get a field with a value for each image by default; the results hold all other scores."""
LOWER_IS_BETTER: frozenset[str] = frozenset({"mae"})
NAMED = 3
"""Number of omitted samples to name in one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationReport:
    """Outcome of `evaluate_dataset`.

    Attributes
    ----------
    eval_key, pred_field, gt_field : str
        `gt_field` is the mask field that was used.
    definition : {"cosod", "sod"}
        Definition of the scores; quote it with every score.
    dataset : Scores
    groups : dict of str to Scores
    n : int
        Images scored.
    missing : int
        Number of omitted samples.
    missing_reasons : tuple of LeftOut
        The omitted samples with their reasons.
    notes : tuple of str
        Further remarks for the user.
    """

    eval_key: str
    pred_field: str
    gt_field: str
    definition: Definition
    dataset: Scores
    groups: dict[str, Scores]
    n: int
    missing: int
    missing_reasons: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One sentence for people."""
        scores = self.dataset
        text = (
            f"{self.eval_key}: {count_of(self.n, 'image')} in {count_of(len(self.groups), 'group')}, "
            f"S {scores.s:.3f}, maxE {scores.e_max:.3f}, maxF {scores.f_max:.3f}, IoU {scores.iou:.3f}, "
            f"MAE {scores.mae:.3f} ({self.definition})"
        )
        if self.missing:
            text += f"; {self.missing} left out: {describe_left_out(self.missing_reasons)}"
        return "; ".join([text, *self.notes])

    @property
    def is_success(self) -> bool:
        """Whether every sample was scored."""
        return self.missing == 0


def describe_left_out(rows: tuple[LeftOut, ...]) -> str:
    """Describe the commonest reasons with their counts, or the first few samples by name.

    Examples
    --------
    >>> describe_left_out((LeftOut(sample_id="1", image="/a.jpg", reason="no prediction"),))
    '/a.jpg (no prediction)'
    """
    if len(rows) <= NAMED:
        return ", ".join(f"{row.image} ({row.reason})" for row in rows)
    counts = Counter(row.reason for row in rows).most_common(NAMED)
    text = ", ".join(f"{count} x {reason}" for reason, count in counts)
    return f"{text}, such as {rows[0].image}"


def check_any(measured: Measured, pred_field: str, gt_field: str) -> None:
    """Refuse measurements without an image.

    Raises
    ------
    DataError
    """
    if not measured.images:
        left = tuple(measured.left_out)
        raise DataError(
            f"none of the {len(left)} samples can be scored: {describe_left_out(left)}; "
            f"choose a view whose samples have both {pred_field!r} and {gt_field!r}"
        )


METHOD = "cosal"
BACKGROUND = 0
BACKGROUND_NAME, FOREGROUND_NAME = "background", TARGETS[FOREGROUND]
PIXEL_MEASURES = ("accuracy", "precision", "recall")
"""Values that FiftyOne's own method stores for each image; for 0/255 masks its accuracy is the IoU."""


def measure_fields(eval_key: str, measures: Sequence[str] = (*MEASURES, *PIXEL_MEASURES)) -> list[str]:
    """Return the fields of each image, ``<key>_mae`` and so on.

    Examples
    --------
    >>> measure_fields("eval_cosal", ("iou", "s"))
    ['eval_cosal_iou', 'eval_cosal_s']
    """
    return [f"{eval_key}_{measure}" for measure in measures]


def custom_metrics(scores: Scores) -> dict[str, dict[str, Any]]:
    """Return the data set's scores in the form that FiftyOne stores with an evaluation and shows in its panel."""
    return {
        f"umscosod/{measure}": {
            "key": measure,
            "value": float(getattr(scores, measure)),
            "label": label,
            "lower_is_better": measure in LOWER_IS_BETTER,
        }
        for measure, label in WORDS.items()
    }


class CoSalEvaluationConfig(fous.SimpleEvaluationConfig):  # type: ignore[misc]  # untyped base
    """Settings of one evaluation.

    Parameters
    ----------
    pred_field, gt_field : str
        Segmentation fields.
    definition : {"cosod", "sod"}
        Definition of the scores; see `umscosod.evaluation`.
    group_field : str, optional
        Field that names an image's group; None: its folder.
    mask_value : int, str or sequence, optional
        Ids in the ground truths that are foreground; see `umscosod.evaluate`.
    map_field : str, optional
        Heatmap field to score instead of the masks of `pred_field`.
    image_fields : sequence of str, optional
        Measures that get a field with a value for each image. None, as in evaluations of earlier versions: all nine,
        and those of FiftyOne's own method.
    made_of : dict of str to str, optional
        By field, its `umscosod.integrations.fiftyone.evaluation.dataset.mark_of` at the time of the evaluation.
    measured : Measured, optional
        The measures, if they are already computed; not stored.

    Raises
    ------
    ConfigError
        An option of FiftyOne's own method that has no meaning here, or an unknown definition.
    """

    def __init__(
        self,
        pred_field: str,
        gt_field: str,
        definition: Definition = "cosod",
        group_field: str | None = None,
        mask_value: MaskValue | None = None,
        map_field: str | None = None,
        image_fields: Sequence[str] | None = None,
        made_of: Mapping[str, str] | None = None,
        measured: Measured | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("compute_dice"):
            raise ConfigError(
                "compute_dice is not offered: FiftyOne fills it with a running pixel accuracy; "
                "of two masks, 2 IoU / (1 + IoU) is the Dice score"
            )
        if kwargs.get("bandwidth") is not None:
            raise ConfigError(f"bandwidth={kwargs['bandwidth']} has no meaning for these measures; leave it out")
        super().__init__(pred_field, gt_field, **kwargs)
        self.definition = check_definition(definition)
        self.group_field = group_field
        self.mask_value = mask_value
        self.map_field = map_field
        self.image_fields = None if image_fields is None else list(image_fields)
        self.made_of = dict(made_of or {})
        self._measured = measured  # private: FiftyOne stores public attributes only

    @property
    def method(self) -> str:
        """The name in lists of evaluations."""
        return METHOD

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that get a field with a value for each image."""
        return (*MEASURES, *PIXEL_MEASURES) if self.image_fields is None else tuple(self.image_fields)


class CoSalEvaluation(fous.SimpleEvaluation):  # type: ignore[misc]  # untyped base
    """MAE, F, E, S and IoU per image, group and data set, with the pixel confusion matrix of FiftyOne's own method."""

    def register_samples(self, samples: Any, eval_key: str | None) -> None:
        """Add the fields for the scores."""
        if eval_key:
            for name in measure_fields(eval_key, self.config.measures):
                samples._dataset.add_sample_field(name, fo.FloatField)

    def evaluate_samples(
        self, samples: Any, eval_key: str | None = None, mask_targets: Any = None, progress: Any = None
    ) -> CoSalEvaluationResults:
        """Measure each pair, store the scores of the images, and return those of groups and data set.

        Raises
        ------
        DataError
            There is no sample with both prediction and ground truth.
        """
        config, measured = self.config, self.config._measured
        if measured is None:
            view = samples.view()
            pairs = (view, config.map_field or config.pred_field, config.gt_field)
            names = ("definition", "group_field", "mask_value")
            compared = {name: getattr(config, name) for name in names}
            with fou.ProgressBar(total=len(view), progress=progress) as bar:
                measured = measure_pairs(*pairs, **compared, report=lambda done, total: bar.set_iteration(done))
        check_any(measured, config.pred_field, config.gt_field)
        if eval_key:
            _store(samples._dataset, eval_key, measured, config.measures)
        return build_results(samples, self, eval_key, measured, mask_targets)

    def get_fields(self, samples: Any, eval_key: str, include_custom_metrics: bool = True) -> list[str]:
        """Return all fields of an evaluation, for renaming and for the sidebar."""
        custom = self.get_custom_metric_fields(samples, eval_key) if include_custom_metrics else []
        return [*measure_fields(eval_key, self.config.measures), *custom]

    def cleanup(self, samples: Any, eval_key: str) -> None:
        """Remove the fields, without the base class, which warns of fields of its own that do not exist."""
        dataset = samples._dataset
        names = measure_fields(eval_key, self.config.measures)
        dataset.delete_sample_fields([name for name in names if dataset.has_sample_field(name)])
        self.cleanup_custom_metrics(samples, eval_key)
        remove_sidebar_group(dataset, eval_key)


class CoSalEvaluationResults(fous.SegmentationResults):  # type: ignore[misc]  # untyped base
    """Results in the form of FiftyOne's panel, with scores and curves of the data set and its groups.

    Attributes
    ----------
    figures : dict
        ``definition``, ``dataset`` and ``groups``: see `dataset_scores` and `group_scores`.
    curves : dict
        ``thresholds``, ``dataset`` and ``groups``: see `dataset_curves` and `group_curves`.
    left_out : list of dict
        Samples that were not scored: ``sample_id``, ``image``, ``reason``.
    images : dict of str to list
        ``sample_id`` and the nine measures of each image; empty in results of earlier versions.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.figures: dict[str, Any] = kwargs.pop("figures")
        self.curves: dict[str, Any] = kwargs.pop("curves")
        self.left_out: list[dict[str, str]] = kwargs.pop("left_out")
        self.images: dict[str, list[Any]] = kwargs.pop("images")
        super().__init__(*args, **kwargs)

    @property
    def definition(self) -> Definition:
        """Definition of the scores."""
        return check_definition(self.figures["definition"])

    @property
    def dataset_scores(self) -> Scores:
        """Return the scores over all images."""
        return Scores(**self.figures["dataset"])

    @property
    def group_scores(self) -> dict[str, Scores]:
        """Return the scores of each group, by name."""
        return {name: Scores(**figures) for name, figures in self.figures["groups"].items()}

    @property
    def dataset_curves(self) -> Curves:
        """Return mean precision, recall, F and E over all images, at each threshold."""
        return _curves_from(self.curves["thresholds"], self.curves["dataset"])

    @property
    def group_curves(self) -> dict[str, Curves]:
        """Return the mean curves of each group, by name."""
        thresholds = self.curves["thresholds"]
        return {name: _curves_from(thresholds, curves) for name, curves in self.curves["groups"].items()}

    def _get_custom_metrics(self) -> dict[str, Any]:
        # FiftyOne's scenarios ask for scores of a part of the images; these scores are of all images
        return {} if self.has_subset else dict(super()._get_custom_metrics())

    @classmethod
    def _from_dict(
        cls, d: dict[str, Any], samples: Any, config: Any, eval_key: str, **kwargs: Any
    ) -> CoSalEvaluationResults:
        ours = {**{name: d[name] for name in ("figures", "curves", "left_out")}, "images": d.get("images", {})}
        results: CoSalEvaluationResults = super()._from_dict(d, samples, config, eval_key, **ours, **kwargs)
        return results


def build_results(
    samples: Any, method: CoSalEvaluation, eval_key: str | None, measured: Measured, mask_targets: Any
) -> CoSalEvaluationResults:
    """Build the results from the measurements.

    Parameters
    ----------
    samples : fiftyone.core.collections.SampleCollection
    method : CoSalEvaluation
    eval_key : str, optional
    measured : Measured
        With at least one image.
    mask_targets : dict, optional
        Names of the two classes.
    """
    names = {str(value): name for value, name in (mask_targets or {}).items()}
    classes = [names.get(str(BACKGROUND), BACKGROUND_NAME), names.get(str(FOREGROUND), FOREGROUND_NAME)]
    whole, groups = measured.means.dataset, sorted(measured.means.groups.items())
    return CoSalEvaluationResults(
        samples,
        method.config,
        eval_key,
        np.asarray(measured.counts, dtype=np.int64).sum(axis=0).reshape(2, 2),
        classes,
        matches=_matches(measured, classes),
        missing=classes[0],
        custom_metrics=custom_metrics(whole.scores()),
        backend=method,
        figures={
            "definition": measured.definition,
            "dataset": dataclasses.asdict(whole.scores()),
            "groups": {name: dataclasses.asdict(mean.scores()) for name, mean in groups},
        },
        curves={
            "thresholds": whole.curves().thresholds_T.tolist(),
            "dataset": _curves_to(whole.curves()),
            "groups": {name: _curves_to(mean.curves()) for name, mean in groups},
        },
        left_out=[dataclasses.asdict(row) for row in measured.left_out],
        images={
            "sample_id": [image.name for image in measured.images],
            **{measure: [getattr(image, measure) for image in measured.images] for measure in MEASURES},
        },
    )


def _matches(measured: Measured, classes: Sequence[str]) -> list[tuple[str, str, int, str, str]]:
    """List (class in truth, class predicted, pixels, id of truth, id of prediction), for clicks in the panel."""
    return [
        (classes[cell // 2], classes[cell % 2], pixels, gt_id, pred_id)
        for (gt_id, pred_id), counts in zip(measured.labels, measured.counts, strict=True)
        for cell, pixels in enumerate(counts)
        if pixels
    ]


def _store(dataset: Any, eval_key: str, measured: Measured, measures: Sequence[str]) -> None:
    """Write the scores of each image that get a field."""
    pixels = [dict(zip(PIXEL_MEASURES, pixel_measures(counts), strict=True)) for counts in measured.counts]
    scores = [{**dataclasses.asdict(image), **more} for image, more in zip(measured.images, pixels, strict=True)]
    for name, measure in zip(measure_fields(eval_key, measures), measures, strict=True):
        store_values(dataset, name, {row["name"]: row[measure] for row in scores})


def pixel_measures(counts: tuple[int, int, int, int]) -> tuple[float | None, float | None, float | None]:
    """Return accuracy, precision and recall of the object as in FiftyOne's own method; None without an object.

    Examples
    --------
    >>> pixel_measures((10, 1, 2, 1))
    (0.25, 0.5, 0.3333333333333333)
    """
    _, false_object, missed, right = counts
    if right + missed == 0:
        return None, None, None
    found = right + false_object
    return right / (right + missed + false_object), right / found if found else 0.0, right / (right + missed)


def _curves_to(curves: Curves) -> dict[str, list[float]]:
    return {name.removesuffix("_T"): getattr(curves, name).tolist() for name in CURVES}


def _curves_from(thresholds: Sequence[float], curves: Mapping[str, Sequence[float]]) -> Curves:
    arrays = {f"{name}_T": np.asarray(values, dtype=np.float64) for name, values in curves.items()}
    return Curves(thresholds_T=np.asarray(thresholds, dtype=np.float64), **arrays)
