"""Jobs in the App: a failure is seen and mended, what the user has set stays, a job is stopped and goes on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from plugin.settings import PRESETS
from tests.integration.app_page import AppPage, wait_for
from umscosod.config.io import load_config

pytestmark = pytest.mark.slow


def show_only(app: AppPage, subject: str) -> None:
    """Filter by a value of the field `subject` in the sidebar."""
    page = app.page
    page.locator("[data-cy='sidebar-field-arrow-enabled-subject']").click()
    page.locator("[data-cy='selector-sidebar-search-subject']").click()
    choices = page.locator("[data-cy='selector-results-container-sidebar-search-subject']")
    choices.get_by_text(subject, exact=True).click()


def test_a_failure_is_seen_and_mended_and_the_filter_stays(
    app_url: str, browser: Any, pictures: Any, tmp_path: Path
) -> None:
    from umscosod.integrations.fiftyone.runs.fields import run_folder
    from umscosod.integrations.fiftyone.runs.parts import hold_run

    app = AppPage(browser, app_url, pictures, tmp_path / "screenshots")
    show_only(app, "coffee")
    assert wait_for(lambda: app.samples_shown() == 4)
    form = app.press_button("label")
    form.get_by_text("4 images, 1 group").wait_for()
    app.tick(form, "Advanced")
    app.fill(form, "Device", "foo")
    form.get_by_text("device 'foo' is unknown; use auto, cpu, cuda, cuda:N or mps").wait_for()
    assert wait_for(lambda: form.get_by_role("button", name="Execute").is_disabled())
    app.fill(form, "Device", "cpu")
    with hold_run(run_folder(pictures, "cosal")):  # what no form can know
        app.execute(form)
        app.page.get_by_text("is being worked on by another process").first.wait_for()
        app.page.get_by_text("Failed: ").first.wait_for()
        app.picture("failed")
    app.page.get_by_role("button", name="Open the form again").click()
    form = app.form()
    form.get_by_text("4 images, 1 group").wait_for()
    app.execute(form)
    app.page.get_by_text("cosal: 4 labelled").first.wait_for()
    app.picture("done")
    pictures.reload()
    assert pictures.count_values("cosal_status") == {"labelled": 4, None: 8}
    assert wait_for(lambda: app.samples_shown() == 4)  # as before
    app.page.get_by_role("button", name="Done").click()
    app.page.locator("[data-cy='panel-tab-progress']").wait_for(state="hidden")
    assert app.refused == []
    app.page.close()


def test_a_job_is_stopped_and_goes_on(app_url: str, browser: Any, pictures: Any, tmp_path: Path) -> None:
    app = AppPage(browser, app_url, pictures, tmp_path / "screenshots")
    form = app.press_button("label")
    app.tick(form, "Train on these images")
    app.tick(form, "Advanced")
    app.choose(form, "Preset", PRESETS["smoke"])
    app.fill(form, "Other settings", "train.epochs=40\ntrain.min_steps=0")
    app.execute(form)
    app.page.get_by_text(re.compile(r"training [1-9]")).first.wait_for()
    app.picture("progress")
    app.page.get_by_role("button", name="Stop").click()
    app.page.get_by_text("Stopped. What was finished is kept").first.wait_for()
    app.page.reload(wait_until="domcontentloaded")  # a job is the server's, not the tab's
    app.page.wait_for_selector("[data-cy='looker']")
    app.settle()
    app.page.get_by_role("button", name="Go on").click()
    app.page.get_by_text("cosal: 12 labelled").first.wait_for()
    pictures.reload()
    assert pictures.count_values("cosal_status") == {"labelled": 12}
    app.page.close()


def test_a_network_of_another_data_set_labels_the_slice_that_is_shown(
    app_url: str, browser: Any, toy_dataset: Any, pictures: Any, tmp_path: Path
) -> None:
    """Two faults in one go: networks of other data sets are offered, and no label of several sensors is lost."""
    import fiftyone as fo

    from umscosod.integrations.fiftyone import label_dataset, list_runs

    config = load_config("smoke", overrides={"device": "cpu"})
    label_dataset(toy_dataset, group_field="cls", field="elsewhere", train=True, config=config)
    sensors = fo.Dataset("two-sensors", persistent=True)
    sensors.add_group_field("sensor", default="left")
    for n, (path, subject) in enumerate(zip(*pictures.values(["filepath", "subject"]), strict=True)):
        if n % 2 == 0:
            scene = fo.Group()
        side = "right" if n % 2 else "left"
        sensors.add_sample(fo.Sample(filepath=path, subject=subject, sensor=scene.element(side)))
    try:
        app = AppPage(browser, app_url, sensors, tmp_path / "screenshots")
        form = app.search("predict with a trained network")
        form.get_by_text("6 images, 3 groups (2, 2, 2)").wait_for()
        app.tick(form, "Advanced")
        app.choose(form, "Preset", PRESETS["smoke"])
        app.picture("predict_form")
        app.execute(form)
        app.page.get_by_text("predicted: 6 labelled").first.wait_for()
        sensors.reload()
        assert sensors.select_group_slices("left").count("predicted") == 6
        assert sensors.select_group_slices("right").count("predicted") == 0
        run = next(run for run in list_runs(sensors) if run.key == "predicted")
        assert run.method == "umscosod/predict"
        app.page.close()
    finally:
        fo.delete_dataset(sensors.name)
