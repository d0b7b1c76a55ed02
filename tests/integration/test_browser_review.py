"""The review panel in a browser: what is decided about is what is seen, and the user's view comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.app_page import AppPage, wait_for
from tests.integration.toy_runs import add_run

pytestmark = pytest.mark.slow
LABEL = "UMS-CoSOD: review masks"
ACCEPT, REJECT = "check_circle", "cancel"
"""Buttons beside an open sample are known by their icons."""


@pytest.fixture
def dataset(dataset_factory: Any) -> Any:
    return dataset_factory(n_groups=2, n_images=3)


def open_review(app: AppPage) -> None:
    app.open_panel(LABEL)
    app.page.get_by_role("button", name="Accept selected").wait_for()
    app.page.locator("input[value=SortBy]").first.wait_for()  # the grid shows the panel's list
    app.settle()


def click_row(app: AppPage, name: str) -> None:
    app.page.get_by_role("cell", name=name, exact=True).first.click()


def is_open(app: AppPage, sample_id: str) -> Any:
    return app.page.locator("[data-cy='modal']").get_by_text(sample_id)


def closes_on_escape(app: AppPage) -> bool:
    """The App hears Escape while the pointer is over the image, once that is drawn: to be tried again until then."""
    app.page.mouse.move(500, 400)
    app.page.mouse.move(520, 420)
    app.page.keyboard.press("Escape")
    return app.page.locator("[data-cy='modal']").count() == 0


def test_a_run_newer_than_the_page_is_seen_before_it_is_decided_about(
    app_url: str, browser: Any, dataset: Any, tmp_path: Path
) -> None:
    app = AppPage(browser, app_url, dataset, tmp_path)
    ids = add_run(dataset)
    open_review(app)
    click_row(app, "00.jpg")
    app.page.get_by_text("Open the first mask by its tile").wait_for()
    assert app.page.locator("[data-cy='modal']").count() == 0
    app.open_first_tile()
    is_open(app, ids[0]).wait_for()
    assert app.page.locator("[data-cy='modal'] [data-cy='checkbox-cosal'].Mui-checked").count()
    app.settle()
    app.page.get_by_text(ACCEPT, exact=True).click()
    is_open(app, ids[1]).wait_for()
    assert dataset.reload() or dataset.values("cosal_review") == ["accepted", *[None] * 5]
    assert dataset[ids[0]]["reviewed"].run == "cosal"
    app.page.get_by_text(REJECT, exact=True).click()
    is_open(app, ids[2]).wait_for()
    assert wait_for(lambda: closes_on_escape(app))
    click_row(app, "01.jpg")
    app.page.locator("[data-cy='modal'] [data-cy='checkbox-cosal'].Mui-checked").wait_for()
    app.page.close()


def test_the_users_view_comes_back(app_url: str, browser: Any, dataset: Any, tmp_path: Path) -> None:
    add_run(dataset)
    dataset.save_view("squares", dataset.match({"cls": "square-1"}))
    app = AppPage(browser, app_url, dataset, tmp_path, view="squares")
    assert wait_for(lambda: app.samples_shown() == 3)
    open_review(app)
    app.page.get_by_text("3 open").wait_for()
    app.close_panel("review_masks")
    app.page.locator("[data-cy='saved-views-selection']").get_by_text("squares").wait_for()
    assert wait_for(lambda: app.samples_shown() == 3)
    app.page.close()
