from __future__ import annotations

import itertools

import numpy as np
import pytest

from umscosod.confidence.judge import calibration

MODELS = [f"{what}-{kind}" for what in ("mask", "group", "image") for kind in ("plain", "whitened")]


@pytest.mark.parametrize("name", MODELS)
def test_an_estimate_is_a_share_and_never_falls_as_a_cue_rises(name: str) -> None:
    model = calibration()[name]
    usual = {cue: weight.mean for cue, weight in model.cues.items()}
    for cue, weight in model.cues.items():
        assert weight.weight >= 0.0
        ladder = [model.estimate({**usual, cue: weight.mean + step * weight.scale}) for step in np.linspace(-9, 9, 13)]
        assert all(0.0 <= low <= high <= 1.0 for low, high in itertools.pairwise(ladder))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_listens_to_something(name: str) -> None:
    model = calibration()[name]
    far = {cue: weight.mean - 3.0 * weight.scale for cue, weight in model.cues.items()}
    assert model.estimate(far) < 0.2


def test_a_missing_cue_counts_as_average() -> None:
    model = calibration()["mask-plain"]
    usual = {cue: weight.mean for cue, weight in model.cues.items()}
    assert model.estimate(usual) == model.estimate({}) == pytest.approx(1.0 / (1.0 + np.exp(-model.bias)))
