"""From pictures to reviewed masks in the App, as a person does it; each step is checked in the database.

With ``UMSCOSOD_SCREENSHOTS=docs/images`` the pictures of the steps become those of the documentation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.app_page import AppPage, wait_for
from umscosod.config.io import load_config

pytestmark = pytest.mark.slow

RUN, QUICK = "cosal", "cosal_quick"


def label(app: AppPage) -> None:
    """Two clicks: the button above the grid and Execute, nothing filled in; then masks in the grid."""
    form = app.press_button("label")
    form.get_by_text("12 images, 3 groups (4, 4, 4)").wait_for()  # by the field 'subject', which is preselected
    app.picture("label_form")
    app.execute(form)
    app.leave_job(f"Masks are in the field '{RUN}'")
    app.picture("masks")


def check_labels(dataset: Any) -> None:
    dataset.reload()
    assert dataset.count_values(f"{RUN}_status") == {"labelled": len(dataset)}
    assert dataset.distinct(f"{RUN}.provenance") == ["model"]
    assert dataset.distinct(f"{RUN}.run") == [RUN]
    for image, mask in zip(*dataset.values(["filepath", f"{RUN}.mask_path"]), strict=True):
        with Image.open(image) as picture, Image.open(mask) as file:
            assert file.size == picture.size
            assert set(np.unique(np.asarray(file))) == {0, 255}


def add_second_run(dataset: Any) -> None:
    """Other settings, from Python while the App is open."""
    from umscosod.integrations.fiftyone import evaluate_dataset, label_dataset

    settings = {"features.backbone": "embedded", "device": "cpu", "pseudo.probe": "none"}  # better on some images only
    label_dataset(
        dataset, group_field="subject", field=QUICK, train=False, config=load_config("fast", overrides=settings)
    )
    report = evaluate_dataset(dataset, QUICK, "ground_truth", group_field="subject")
    assert report.n == len(dataset)


def evaluate(app: AppPage) -> None:
    form = app.press_button("evaluate")
    app.picture("evaluate_form")
    app.execute(form)
    app.leave_job(f"Figures are in the fields eval_{RUN}_iou")


def compare(app: AppPage, dataset: Any) -> None:
    """The panel, and the images where one run beats the other in the grid."""
    from umscosod.integrations.fiftyone import compare_dataset

    dataset.reload()
    found = compare_dataset(dataset, f"eval_{RUN}", f"eval_{QUICK}")
    assert 0 < found.n_a_better < found.n
    form = app.press_button("compare")
    app.choose(form, "A", f"eval_{RUN}")
    app.choose(form, "B", f"eval_{QUICK}")
    app.execute(form)
    app.page.get_by_role("button", name="Where A beats B").wait_for()
    app.picture("compare")
    values_a, values_b = (np.array(dataset.values(f"eval_{key}_iou")) for key in (RUN, QUICK))
    for side, n in (("A beats B", (values_a > values_b).sum()), ("B beats A", (values_b > values_a).sum())):
        app.page.get_by_role("button", name=f"Where {side}").click()
        assert wait_for(lambda n=n: app.samples_shown() == n), (side, n, app.samples_shown())
    app.picture("compare_filtered")
    app.page.get_by_role("button", name="Back to your view").click()
    assert wait_for(lambda: app.samples_shown() == len(dataset))
    app.close_panel("compare_models")


def review(app: AppPage, dataset: Any) -> None:
    """The panel lists the least certain masks; the first is accepted."""
    from umscosod.integrations.fiftyone import list_for_review

    dataset.reload()
    worst = list_for_review(dataset, RUN).first()
    form = app.press_button("review")
    app.choose(form, "Masks of the run", RUN)
    app.execute(form)
    accept = app.page.get_by_role("button", name="Accept selected")
    app.page.get_by_text("12 open").wait_for()
    app.wait_for_first(f"{RUN}_confidence", worst[f"{RUN}_confidence"])
    app.select_first_sample()
    app.picture("review")
    accept.click()
    assert wait_for(lambda: dataset.reload() or (dataset.has_field("reviewed") and dataset.count("reviewed") == 1))
    sample = dataset[worst.id]
    assert (sample.reviewed.provenance, sample.reviewed.run) == ("human", RUN)
    assert sample[f"{RUN}_review"] == "accepted"
    copy, source = Path(sample.reviewed.mask_path), Path(sample[RUN].mask_path)
    assert copy != source
    assert np.array_equal(np.asarray(Image.open(copy)), np.asarray(Image.open(source)))


def test_from_pictures_to_reviewed_masks(app_url: str, browser: Any, pictures: Any, tmp_path: Path) -> None:
    app = AppPage(browser, app_url, pictures, tmp_path / "screenshots")
    label(app)
    check_labels(pictures)
    add_second_run(pictures)
    evaluate(app)
    compare(app, pictures)
    review(app, pictures)
    assert app.refused == []
    app.page.close()
