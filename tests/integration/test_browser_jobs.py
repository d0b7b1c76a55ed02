"""Jobs in the App: a failure is seen and mended, what the user has set stays, a job is stopped and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.app_page import AppPage, wait_for

pytestmark = pytest.mark.slow

FAST = "features.backbone=embedded"


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
    app = AppPage(browser, app_url, pictures, tmp_path / "screenshots")
    show_only(app, "coffee")
    assert wait_for(lambda: app.samples_shown() == 4)
    form = app.press_button("label")
    assert "4 images, 1 group" in form.inner_text()
    app.tick(form, "Advanced")
    app.fill(form, "Device", "foo")
    form.get_by_text("device 'foo' is unknown; use auto, cpu, cuda, cuda:N or mps").wait_for()
    assert form.get_by_role("button", name="Execute").is_disabled()
    app.fill(form, "Device", "cpu")
    damaged = tmp_path / "weights.safetensors"
    damaged.write_bytes(b"no weights at all")
    app.fill(form, "Weight file", str(damaged))
    app.execute(form)
    app.page.get_by_text("Failed: ").first.wait_for()
    app.page.get_by_text(damaged.name).first.wait_for()
    app.picture("failed")

    app.page.get_by_role("button", name="Open the form again").click()
    form = app.form()
    app.fill(form, "Weight file", "")
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
    app.fill(form, "Other settings", f"{FAST}\nseed=3")
    app.execute(form)
    app.page.get_by_text("training ").first.wait_for()
    app.picture("progress")
    app.page.get_by_role("button", name="Stop").click()
    app.page.get_by_text("Stopped. What was finished is kept").first.wait_for()
    app.page.reload(wait_until="domcontentloaded")
    app.page.get_by_role("button", name="Go on").click()
    app.page.get_by_text("cosal: 12 labelled").first.wait_for()
    pictures.reload()
    assert pictures.count_values("cosal_status") == {"labelled": 12}
    app.page.close()
