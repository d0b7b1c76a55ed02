"""FiftyOne's own tools for instance masks, used by mouse: docs/editing.md says what they do."""

from __future__ import annotations

from typing import Any

from tests.integration.app_page import SHOWN_MS, AppPage, wait_for

Point = tuple[float, float]
"""x and y as shares of the picture's width and height."""


def make_editable(dataset: Any, field: str, classes: list[str]) -> None:
    """Let people edit a Detections field in the App: without a label schema the tab *Annotate* shows no label."""
    schemas = dataset.label_schemas
    schemas[field] = {"type": "detections", "component": "dropdown", "classes": classes, "attributes": []}
    dataset.set_label_schemas(schemas)
    dataset.activate_label_schemas(field)


def edit_first_mask(app: AppPage, field: str, start: Point, end: Point, *, erase: bool) -> dict[str, Any]:
    """Open the first sample, draw one stroke on its first detection, and close it; returns the detection as stored.

    Parameters
    ----------
    app : AppPage
    field : str
        A field of `make_editable`.
    start, end : (float, float)
        Ends of the stroke.
    erase : bool
        Take away from the mask, or add to it.
    """
    detection = app.dataset.first()[field].detections[0]
    open_annotation(app)
    choose_label(app, detection.id)
    draw_stroke(app, start, end, erase=erase)
    close_sample(app)
    app.dataset.reload()
    return next(one for one in stored_detections(app.dataset, field) if str(one["_id"]) == detection.id)


def stored_detections(dataset: Any, field: str) -> list[dict[str, Any]]:
    """What the database has of the first sample; FiftyOne's own objects may be older."""
    document = dataset._sample_collection.find_one({"_id": dataset.first()._id})
    return list(document[field]["detections"])


def open_annotation(app: AppPage) -> None:
    """Open the first sample and its tab *Annotate*."""
    app.open_first_tile()
    app.page.locator("[data-cy='modal'] [data-cy='annotate']").click()
    app.page.locator("[data-cy='lighter-sample-image']").wait_for()
    app.page.locator("[data-cy='segmentation-mode']:visible").wait_for()
    app.settle()


def choose_label(app: AppPage, detection_id: str) -> None:
    """Choose a detection in the list of labels; one with a mask opens the tools for masks."""
    app.page.locator(f"[data-cy='annotate-label-{detection_id}']").click()
    app.page.locator("[data-cy='brush']:visible").wait_for()
    app.settle()


def draw_stroke(app: AppPage, start: Point, end: Point, *, erase: bool) -> None:
    """Draw with the brush and wait until it is saved, which FiftyOne does when the button is let go."""
    app.page.locator("[data-cy='brush']:visible").click()
    app.page.locator(f"[data-cy='{'remove' if erase else 'add'}']:visible").click()
    _drag(app, start, end)


def draw_box(app: AppPage, start: Point, end: Point) -> None:
    """Draw a new box, from corner to corner; no label may be chosen."""
    app.page.locator("[data-cy='detection-mode']:visible").click()
    _drag(app, start, end)


def close_sample(app: AppPage) -> None:
    """Leave the tab and the sample. The App hears Escape while the pointer is over the picture."""
    app.page.locator("[data-cy='modal'] [data-cy='explore']").click()
    app.page.locator("[data-cy='modal'] [data-cy='modal-looker-container']").wait_for()
    app.settle()
    assert wait_for(lambda: _closes_on_escape(app)), "the sample does not close"


def _closes_on_escape(app: AppPage) -> bool:
    app.page.mouse.move(500, 400)
    app.page.mouse.move(520, 420)
    app.page.keyboard.press("Escape")
    return bool(app.page.locator("[data-cy='modal']").count() == 0)


def _drag(app: AppPage, start: Point, end: Point) -> None:
    box = app.page.locator("[data-cy='lighter-sample-image']").bounding_box()
    mouse = app.page.mouse
    (x0, y0), (x1, y1) = (
        (box["x"] + share_x * box["width"], box["y"] + share_y * box["height"]) for share_x, share_y in (start, end)
    )
    with app.page.expect_response(_is_save, timeout=SHOWN_MS) as answer:
        mouse.move(x0, y0)
        mouse.down()
        mouse.move(x1, y1, steps=10)
        mouse.up()
    assert answer.value.ok, answer.value.status
    app.page.locator("[data-cy='annotation-save-state'][data-settled='true']").wait_for(state="attached")
    app.settle()


def _is_save(response: Any) -> bool:
    return response.request.method == "PATCH" and "/sample/" in response.url
