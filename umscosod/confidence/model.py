"""From cues to a number in [0, 1]: a logistic model of standardised cues, each with a weight that is not negative."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from umscosod.config_confidence import CUE_CLIP


@dataclass(frozen=True, kw_only=True, slots=True)
class CueWeight:
    """How one cue counts.

    Attributes
    ----------
    mean, scale : float
        Of the cue where the model was calibrated.
    weight : float
        At least 0: a higher cue never lowers the estimate.
    """

    mean: float
    scale: float
    weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CueModel:
    """A calibrated model.

    Attributes
    ----------
    bias : float
    cues : mapping of str to CueWeight
    """

    bias: float
    cues: Mapping[str, CueWeight]

    def estimate(self, values: Mapping[str, float]) -> float:
        """Estimate from the cues that are there; a missing one counts as average, and so not at all.

        Examples
        --------
        >>> model = CueModel(bias=0.0, cues={"size": CueWeight(mean=2.0, scale=1.0, weight=1.0)})
        >>> model.estimate({"size": 2.0}), model.estimate({}), round(model.estimate({"size": 9.0}), 3)
        (0.5, 0.5, 0.953)
        """
        return 1.0 / (1.0 + math.exp(-self.bias - math.fsum(self.contributions(values).values())))

    def contributions(self, values: Mapping[str, float]) -> dict[str, float]:
        """What each cue that is there adds to the logit."""
        return {
            name: cue.weight * min(CUE_CLIP, max(-CUE_CLIP, (values[name] - cue.mean) / cue.scale))
            for name, cue in self.cues.items()
            if name in values
        }


@functools.cache
def calibration() -> Mapping[str, CueModel]:
    """The models that come with the package.

    Returns
    -------
    mapping of str to CueModel
        ``mask``: IoU of a mask with what a person would draw. ``group`` and ``image``: that a group shares an object
        and that an image belongs to its group. Each for a ViT's tokens as they are (``mask-plain``) and for tokens
        whitened over the collection (``mask-whitened``). Made by ``python -m benchmarks.confidence --write``.
    """
    text = resources.files("umscosod.confidence").joinpath("calibration.json").read_text(encoding="utf-8")
    return {name: read_model(content) for name, content in json.loads(text)["models"].items()}


def read_model(content: Mapping[str, object]) -> CueModel:
    """Build a model from plain JSON values."""
    bias, cues = content["bias"], content["cues"]
    assert isinstance(bias, float)
    assert isinstance(cues, dict)
    return CueModel(bias=bias, cues={name: CueWeight(**cue) for name, cue in cues.items()})
