"""A form that names an interrupted run says so, and goes on with it or begins anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402

import umscosod.integrations.fiftyone as integration  # noqa: E402
from tests.integration.test_forms import URI, form_of, said  # noqa: E402
from umscosod.config.io import load_config  # noqa: E402
from umscosod.errors import Cancelled  # noqa: E402
from umscosod.integrations.fiftyone import get_run, label_dataset, pseudo_label_dataset, train_dataset  # noqa: E402
from umscosod.integrations.fiftyone.runs.parts import list_parts  # noqa: E402

pytestmark = pytest.mark.mongod


def stop_at(wanted: str) -> Any:
    """Progress that stops the work at the end of a stage."""

    def report(done: int, total: int, stage: str) -> None:
        if stage.startswith(wanted) and done == total:
            raise Cancelled("stopped by the test")

    return report


@pytest.fixture
def interrupted(toy_dataset: Any) -> Any:
    """Half of the samples labelled with one preset; the other half interrupted with another."""
    done = toy_dataset.match(fo.ViewField("cls") == "disk-0")
    label_dataset(done, group_field="cls", train=False, config=load_config("smoke"))
    settings = load_config("smoke", overrides={"train.epochs": 2})
    with pytest.raises(Cancelled):
        label_dataset(toy_dataset, group_field="cls", config=settings, progress=stop_at("features"))
    return toy_dataset


def run(dataset: Any, name: str, **params: Any) -> None:
    foo.get_operator(f"{URI}/{name}")(dataset, **params)
    dataset.reload()


def masks(dataset: Any) -> dict[str, str]:
    return dict(zip(*dataset.values(["id", "cosal.mask_path"]), strict=True))


def test_it_is_said_and_resuming_is_preselected(interrupted: Any) -> None:
    form = form_of("label", interrupted, {"field": "cosal"})
    assert said(form, "interrupted_note").startswith("'cosal' was interrupted at features ")
    assert "weight-free features, preset fast" not in said(form, "interrupted_note")
    assert "4 images" in said(form, "interrupted_note")
    assert form["interrupted"].default == "resume"
    assert "train" not in form  # it is resumed as it was
    assert "train" in form_of("label", interrupted, {"field": "cosal", "interrupted": "anew"})
    assert "interrupted_note" not in form_of("label", interrupted, {"field": "other"})
    assert "interrupted_note" in form_of("predict", interrupted, {"field": "cosal"})


def test_resuming_asks_anew_where_the_work_is_done(interrupted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    form = form_of("label", interrupted, {"field": "cosal"})
    assert form["engine"].default == "here"
    form = form_of("label", interrupted, {"field": "cosal", "engine": "ray", "address": "nowhere"})
    assert "'nowhere' is no address" in said(form, "engine_problem")
    monkeypatch.setattr(integration, "resume_dataset", lambda *_, **options: given.append(options["engine"]))
    run(interrupted, "label", field="cosal", interrupted="resume", engine="ray")
    assert given == ["ray"]


def test_a_run_that_has_no_engine_is_resumed_without(toy_dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Cancelled):
        pseudo_label_dataset(toy_dataset, group_field="cls", config=load_config("smoke"), progress=stop_at("features"))
    assert "engine" not in form_of("label", toy_dataset, {"field": "pseudo"})
    run(toy_dataset, "label", field="pseudo", interrupted="resume", engine="ray")
    assert toy_dataset.count("pseudo") == 8


def test_resuming_takes_the_settings_it_began_with(interrupted: Any) -> None:
    before = {id_: path for id_, path in masks(interrupted).items() if path}
    run(interrupted, "label", field="cosal", interrupted="resume", preset="fast", train=False)
    assert get_run(interrupted, "cosal").settings["train"]["epochs"] == 2
    after = masks(interrupted)
    assert all(after.values())
    assert {id_: after[id_] for id_ in before} == before
    assert "interrupted_note" not in form_of("label", interrupted, {"field": "cosal"})


def test_starting_anew_keeps_labels_that_are_written(interrupted: Any) -> None:
    before = {id_: path for id_, path in masks(interrupted).items() if path}
    assert len(before) == 4
    params = {"group_field": "cls", "preset": "smoke", "train": False, "interrupted": "anew"}
    run(interrupted, "label", field="cosal", **params)
    after = masks(interrupted)
    assert all(after.values())
    assert {id_: after[id_] for id_ in before} == before
    parts = list_parts(Path(get_run(interrupted, "cosal").folder))
    assert [part.state.value for part in parts] == ["complete", "complete"]  # the one given up is gone


def test_a_network_that_was_interrupted_goes_on(toy_dataset: Any) -> None:
    config = load_config("smoke")
    label_dataset(toy_dataset, group_field="cls", train=False, config=config)
    with pytest.raises(Cancelled):
        train_dataset(toy_dataset, group_field="cls", labels="cosal", config=config, progress=stop_at("features"))
    form = form_of("train", toy_dataset, {"key": "network", "labels": "cosal"})
    assert said(form, "interrupted_note").startswith("'network' was interrupted")
    run(toy_dataset, "train", key="network", labels="cosal", interrupted="resume")
    assert get_run(toy_dataset, "network").checkpoint


def test_without_an_interrupted_run_nothing_is_asked(toy_dataset: Any) -> None:
    assert "interrupted" not in form_of("label", toy_dataset, {"field": "cosal"})
    run(toy_dataset, "label", interrupted="resume", preset="smoke", train=False, group_field="cls")
    assert toy_dataset.count("cosal") == 8
