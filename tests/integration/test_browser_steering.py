"""Putting a group right in a browser: an example, a wrong mask, new masks in the grid within seconds, and back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.integration.app_page import AppPage, wait_for
from tests.integration.servers import Mongod
from tests.integration.test_browser_review import LABEL
from tests.jobs import quick_config

pytestmark = pytest.mark.slow
N_IMAGES = 14
MOST_S = 5.0
"""Click to new masks, on two cores with nothing else to do."""
LOOP_S = 0.25
"""The loop below on such a machine."""


def busyness() -> float:
    """How many times slower than that this machine is now, at least 1: by a loop, and by what waits for its cores."""
    started = time.monotonic()
    total = 0
    for number in range(4_000_000):
        total += number
    return max(1.0, (time.monotonic() - started) / LOOP_S, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture
def cups(mongod: Mongod, tmp_path: Path) -> Iterator[Any]:
    """A labelled group of 14 demo pictures, and a small one; their features are in the cache."""
    mongod.start()
    import fiftyone as fo

    from umscosod.demo.compose import make_groups
    from umscosod.integrations import fiftyone as ours

    groups = make_groups(tmp_path / "pictures", seed=3, groups=("coffee", "cat"), images_per_group=N_IMAGES, size=320)
    dataset = fo.Dataset("put-it-right", persistent=True)
    samples = [
        fo.Sample(filepath=str(image), subject=group.name)
        for group in groups
        for image in group.images[: N_IMAGES if group.name == "coffee" else 4]
    ]
    dataset.add_samples(samples)
    ours.label_dataset(
        dataset, group_field="subject", field="cosal", config=quick_config(tmp_path / "cache"), train=False
    )
    yield dataset
    fo.delete_dataset(dataset.name)


class Masks:
    """When which mask files reached the page."""

    def __init__(self, page: Any) -> None:
        self.seen: dict[str, float] = {}
        page.on("response", self._note)

    def _note(self, response: Any) -> None:
        address = unquote(response.url)
        if "/media" in address and "/run/shown/" in address:
            self.seen.setdefault(address.partition("filepath=")[2].partition("&")[0], time.monotonic())


def press(app: AppPage, name: str) -> None:
    app.page.get_by_role("button", name=name, exact=True).click()


def shown_masks(dataset: Any) -> dict[str, str]:
    dataset.reload()
    return dict(zip(*dataset.values(["id", "cosal.mask_path"]), strict=True))


def tick_last_tile(app: AppPage) -> None:
    """Tick the most certain mask of the group."""
    tiles = [(tile.bounding_box(), tile) for tile in app.page.locator("[data-cy='looker']").all()]
    _, last = max(((box["y"], box["x"]), place) for place, (box, _) in enumerate(tiles) if box)
    tile = tiles[last][1]

    def is_ticked() -> bool:
        app.settle()
        tile.hover()
        tile.click(position={"x": 19, "y": 20})
        app.settle()
        return bool(tile.locator("input[type='checkbox']").is_checked())

    assert wait_for(is_ticked), "the last sample cannot be selected"


def test_put_it_right(app_url: str, browser: Any, cups: Any, tmp_path: Path, record_property: Any) -> None:
    app = AppPage(browser, app_url, cups, tmp_path / "screenshots")
    masks = Masks(app.page)
    app.open_panel(LABEL)
    app.page.get_by_role("button", name="Accept selected").wait_for()
    app.settle()
    app.page.get_by_role("cell", name="coffee", exact=True).last.click()
    assert wait_for(lambda: app.samples_shown() == N_IMAGES)
    app.picture("steer_group")
    tick_last_tile(app)
    press(app, "Use as example")
    app.page.locator("[data-cy='looker'] [data-cy='tag-cosal_example']").first.wait_for()
    app.settle()
    app.page.get_by_text("1 example").first.wait_for()
    app.page.get_by_text("accepted with it").first.wait_for(state="hidden")
    app.picture("steer_example")
    first = shown_masks(cups)

    factor, started = busyness(), 0.0
    app.settle()
    started = time.monotonic()
    press(app, "Relabel this group")
    app.page.get_by_text("masks changed").first.wait_for()
    told_s = time.monotonic() - started
    after = shown_masks(cups)
    changed = {path for id_, path in after.items() if path != first[id_] and "/run/shown/" in path}
    changed -= {after[id_] for id_ in cups.match({"cosal_review": "accepted"}).values("id")}
    assert len(changed) > N_IMAGES // 2
    assert wait_for(lambda: app.page.wait_for_timeout(50) or changed <= masks.seen.keys()), "new masks are not shown"
    shown_s = max(masks.seen[path] for path in changed) - started
    record_property("seconds to new masks", shown_s)
    print(
        f"{len(changed)} new masks in the grid {shown_s:.1f} s after the click, count {told_s:.1f} s; busy {factor:.1f}"
    )
    assert shown_s < MOST_S * max(factor, busyness())
    app.picture("steer_relabelled")

    press(app, "Show the masks before")
    app.page.get_by_role("button", name="Show the new masks").wait_for()
    app.settle()
    app.picture("steer_before")
    press(app, "Undo relabelling")
    app.page.get_by_text("masks taken back").first.wait_for()
    assert shown_masks(cups) == first
    app.settle()
    assert app.refused == []
    app.page.close()
