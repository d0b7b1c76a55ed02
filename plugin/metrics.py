"""Offers the co-saliency measures as metric operators, in FiftyOne's own evaluation form."""

from typing import Any, ClassVar

import fiftyone.operators as foo
from fiftyone.operators import types

from umscosod.integrations.fiftyone.evaluation.method import LOWER_IS_BETTER, WORDS


class CoSalMetric(foo.EvaluationMetric):
    """One measure: a field with the score of each image, and the score of the data set.

    Attributes
    ----------
    MEASURE : str
        Its name in the library; scores go to the field ``<evaluation key>_<measure>``.
    """

    MEASURE: ClassVar[Any]

    @property
    def config(self) -> Any:
        """Name and direction."""
        lower_is_better = self.MEASURE in LOWER_IS_BETTER
        risk = getattr(getattr(types, "RiskLevel", None), "LOW", None)  # from FiftyOne 1.16 on
        config = foo.EvaluationMetricConfig(
            name=f"metric_{self.MEASURE}",
            label=f"{WORDS[self.MEASURE]} (co-saliency)",
            description=f"{WORDS[self.MEASURE]} over the images, as papers on co-saliency give it",
            eval_types=["segmentation"],
            aggregate_key=self.MEASURE,
            lower_is_better=lower_is_better,
            unlisted=True,
            **({} if risk is None else {"risk_level": risk}),
        )
        # FiftyOne looks for the direction in `kwargs`, where its own constructor does not put it, and takes True
        config.kwargs["lower_is_better"] = lower_is_better
        return config

    def compute(self, samples: Any, results: Any, **options: Any) -> float:
        """Compute the scores; all metrics of one evaluation share one pass over the masks."""
        from umscosod.integrations.fiftyone.evaluation.dataset import compute_metric

        fields = self.get_fields(samples, results.config, results.key)
        return compute_metric(samples, results, self.MEASURE, *fields)

    def get_fields(self, samples: Any, config: Any, eval_key: str | None) -> list[str]:
        """Name the field with the scores; an evaluation without a key has none."""
        return [f"{eval_key}_{self.MEASURE}"] if eval_key else []


class MetricMae(CoSalMetric):
    """Mean absolute error."""

    MEASURE = "mae"


class MetricS(CoSalMetric):
    """S-measure."""

    MEASURE = "s"


class MetricEMax(CoSalMetric):
    """Maximum of the mean E curve."""

    MEASURE = "e_max"


class MetricFMax(CoSalMetric):
    """Maximum of the mean F curve."""

    MEASURE = "f_max"


class MetricIou(CoSalMetric):
    """Mean intersection over union."""

    MEASURE = "iou"


METRICS: tuple[type, ...] = (MetricMae, MetricS, MetricEMax, MetricFMax, MetricIou)
