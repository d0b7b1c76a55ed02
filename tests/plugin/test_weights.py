"""The operator `get_weights`: what its form shows, and what it passes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402

import umscosod.integrations.fiftyone as integration  # noqa: E402
from umscosod.features.hub import SETS, WeightsOffer, list_weights  # noqa: E402

URI = "@umscosod/umscosod/get_weights"


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> dict[str, WeightsOffer]:
    """Nothing is here; a test may change that, or a licence."""
    found = {offer.name: replace(offer, path=None) for offer in list_weights()}

    def offered_weights(names: Any = ()) -> tuple[WeightsOffer, ...]:
        chosen = [each for name in names for each in SETS.get(name, (name,))]
        return tuple(found[name] for name in chosen or found)

    from plugin import settings
    from plugin.operators import weights

    for module in (settings, weights):
        monkeypatch.setattr(module, "offered_weights", offered_weights)
    return found


@pytest.fixture
def operator(offers: dict[str, WeightsOffer]) -> Any:
    from plugin.operators.weights import GetWeights

    return GetWeights()


def make_context(**params: Any) -> Any:
    return SimpleNamespace(params=params, dataset=SimpleNamespace(name="toy"), delegated=False, view="the view")


def form_of(operator: Any, **params: Any) -> dict[str, Any]:
    return dict(operator.resolve_input(make_context(**params)).type.properties)


def test_it_is_an_operator_of_the_plugin() -> None:
    config = foo.get_operator(URI).config
    assert config.allow_delegated_execution
    assert config.execute_as_generator


def test_the_form_shows_size_licence_and_what_is_here(operator: Any, offers: dict[str, WeightsOffer]) -> None:
    form = form_of(operator)
    label = form["offer_dino_vitb8"].view.label
    assert "343 MB from http" in label
    assert "licence Apache-2.0" in label
    assert "accepted" not in form
    for name in SETS["small"]:
        offers[name] = replace(offers[name], path=Path("here"))
    assert "nothing is downloaded" in form_of(operator, names="small")["here"].view.label


def test_a_licence_of_its_own_kind_is_accepted_first(operator: Any, offers: dict[str, WeightsOffer]) -> None:
    offers["dino_vitb8"] = replace(offers["dino_vitb8"], licence="DINOv3 License")
    form = form_of(operator, names="dino_vitb8")
    assert "read it there before you use them" in form["offer_dino_vitb8"].view.label
    assert form["licence_problem"].invalid
    assert "licence_problem" not in form_of(operator, names="dino_vitb8", accepted=True)
    with pytest.raises(ValueError, match="accepted=True"):
        list(operator.execute(make_context(names="dino_vitb8")))


def test_the_names_are_passed_on(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def get_weights(names: Any, *, progress: Any) -> Any:
        seen.append(names)
        return SimpleNamespace(summary="done", is_success=True)

    monkeypatch.setattr(integration, "get_weights", get_weights)
    list(operator.execute(make_context(names="small, dinov2_vits14")))
    assert seen == [("small", "dinov2_vits14")]
