"""The App in a browser, as a person uses it: open a data set, fill a form, open a panel; and pictures of each step."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

URI = "@umscosod/umscosod"
SHOWN_MS = 600_000
"""Longest wait for anything in the page: the first drawing takes 7 to 14 s when nothing else runs."""
DONE_S = 900
"""Longest wait for a job in the database."""
QUIET_MS = 150
"""The page is settled after so long without a change: the App's forms wait 100 ms before they ask the server."""
POLLED_MS = 50
SETTLED_S = 10
"""Longest wait for that: a grid that was covered while it drew may show its progress for ever."""
QUIET = """quietMs => performance.now() - window.changedMs >= quietMs
    && (document.querySelector("[data-cy='modal']")
        || !document.querySelector("[data-cy='panel-tab-samples'] [role='progressbar']"))"""
"""Behind an open sample the grid may stay half drawn."""
WATCH = """
localStorage.setItem("fiftyone-enterprise-tooltip-seen", "true");  // a notice of the vendor's over the grid
window.changedMs = performance.now();
new MutationObserver(() => { window.changedMs = performance.now(); }).observe(
    document, {attributes: true, characterData: true, childList: true, subtree: true});
// A spinner that turns costs a processor core where no GPU draws it.
document.addEventListener("DOMContentLoaded", () => document.head.append(Object.assign(
    document.createElement("style"), {textContent: "* { animation: none !important; }"})));
"""
"""Runs before the App does."""
FIRST_CAPTION = """(tiles, field) => tiles
    .map(tile => [tile.getBoundingClientRect(), tile.querySelector(`[data-cy='tag-${field}']`)])
    .filter(([box]) => box.width)
    .sort(([a], [b]) => a.y - b.y || a.x - b.x)[0]?.[1]?.title"""
"""What the first tile says of a field; all in one look, as tiles come and go."""
ASKED = ("/operators", "/graphql", "/samples", "/geo", "/tag", "/media")
"""What the App asks the server for while a form, the grid or a panel builds up."""
SCREENSHOTS = "UMSCOSOD_SCREENSHOTS"
"""Environment variable with the folder that gets the pictures; without it they go to the test's own folder."""


def wait_for(probe: Callable[[], Any], timeout_s: float = DONE_S) -> Any:
    """Ask until the answer is true; returns the last one, so that an assertion can show it."""
    end = time.monotonic() + timeout_s
    while not (answer := probe()) and time.monotonic() < end:
        time.sleep(0.2)
    return answer


class AppPage:
    """One data set in one tab."""

    def __init__(self, browser: Any, url: str, dataset: Any, pictures: Path, view: str = "") -> None:
        self.dataset = dataset
        self.pictures = Path(os.environ.get(SCREENSHOTS) or pictures)
        self.page = browser.new_page(viewport={"width": 1500, "height": 900})
        self.page.set_default_timeout(SHOWN_MS)
        # What the server refused. The page's own errors say nothing of ours: FiftyOne 1.22's grid throws some when it
        # is redrawn while it draws ("entry is loading", "detached ArrayBuffer"), and goes on.
        self.refused: list[str] = []
        self.page.on("response", self._note_failure)
        self._asked: set[Any] = set()
        self.page.on("request", self._note_request)
        # Not "requestfinished": nobody reads the rest of an answer for a sample that was closed meanwhile.
        self.page.on("response", lambda response: self._asked.discard(response.request))
        self.page.on("requestfailed", lambda request: self._asked.discard(request))
        self.page.add_init_script(WATCH)
        # Not "networkidle": the App keeps a stream open.
        address = f"{url}/datasets/{dataset.name}" + (f"?view={view}" if view else "")
        self.page.goto(address, wait_until="domcontentloaded")
        self.page.wait_for_selector("[data-cy='looker']")

    def _note_failure(self, response: Any) -> None:
        if response.status >= 400:
            self.refused.append(f"{response.status} {response.url}")

    def _note_request(self, request: Any) -> None:
        if any(part in request.url for part in ASKED):
            self._asked.add(request)

    def settle(self) -> None:
        """Wait until the App asks for nothing and changes nothing: forms are resolved at every change."""
        from playwright.sync_api import TimeoutError as NotQuiet

        end = time.monotonic() + SETTLED_S
        with contextlib.suppress(NotQuiet):
            self._wait_until_quiet()
            while self._asked and time.monotonic() < end:  # an answer changes the page
                self._wait_until_quiet()

    def _wait_until_quiet(self) -> None:
        # Not at each frame, as playwright would: then the page is drawn again and again.
        self.page.wait_for_function(QUIET, arg=QUIET_MS, polling=POLLED_MS, timeout=SETTLED_S * 1000)

    def press_button(self, operator: str) -> Any:
        """Press the operator's button above the grid; returns its form."""
        self.page.locator(f"[data-item-id='{URI}/{operator}']").click()
        return self.form()

    def search(self, operator: str) -> Any:
        """Open an operator's form by the list of operators (backtick), as where a panel hides the buttons."""
        self.page.keyboard.press("`")
        self.page.get_by_placeholder("Search operations by name...").fill(operator)
        self.page.keyboard.press("Enter")
        return self.form()

    def form(self) -> Any:
        """The form that is open."""
        form = self.page.locator("[data-cy='operators-prompt-modal']")
        form.get_by_role("button", name="Execute").wait_for()
        self.settle()  # before the defaults are in, required fields are marked as missing
        return form

    def choose(self, form: Any, label: str, wanted: str) -> None:
        """Choose in the list under a label, one that takes typed text or not."""
        path = f"xpath=.//*[normalize-space(text())='{label}']/following::*[@role='combobox'][1]"
        form.locator(path).first.click()
        if (typed := form.locator("input[role=combobox]:focus")).count():
            typed.fill(wanted)
        self.page.get_by_role("option", name=wanted, exact=True).click()
        self.settle()

    def fill(self, form: Any, label: str, text: str) -> None:
        """Type into the box under a label."""
        path = f"xpath=.//*[normalize-space(text())='{label}']/following::*[self::input or self::textarea][1]"
        form.locator(path).first.fill(text)
        self.settle()

    def tick(self, form: Any, label: str) -> None:
        """Tick or untick a box by its label."""
        form.get_by_text(label, exact=True).click()
        self.settle()

    def execute(self, form: Any) -> None:
        """Run what the form asks for."""
        form.get_by_role("button", name="Execute").click()

    def leave_job(self, words: str) -> None:
        """Wait for the end of a job, which says these words, and close the panel that shows it."""
        self.page.get_by_text(words).first.wait_for()
        self.settle()
        self.page.get_by_role("button", name="Done").click()
        self.page.locator("[data-cy='panel-tab-progress']").wait_for(state="hidden")

    def open_panel(self, label: str) -> None:
        """Open a panel beside the grid by the menu of panels."""
        self.page.locator("[data-cy='new-panel-btn'], [title='New panel']").first.click()
        self.page.get_by_text(label, exact=True).first.click()

    def close_panel(self, name: str) -> None:
        """Close a panel by its name, so that the grid has its buttons back."""
        tab = self.page.locator(f"[data-cy='panel-tab-{name}']")
        tab.locator("[title='Close']").click()
        tab.wait_for(state="hidden")

    def wait_for_first(self, field: str, value: float) -> None:
        """Wait until the first sample is one with this number as its caption.

        The view bar and the panel change first, the tiles in the new order come later.
        """
        tiles = self.page.locator("[data-cy='looker']")

        def is_first() -> bool:
            caption = tiles.evaluate_all(FIRST_CAPTION, field) or ""
            return caption != "" and float(caption.removeprefix(f"{field}: ")) == value

        assert wait_for(is_first), (field, value, tiles.evaluate_all(FIRST_CAPTION, field))

    def select_first_sample(self) -> None:
        """Tick the box of the first sample, which is shown where the mouse is; a redraw may take a click away."""
        assert wait_for(self._has_ticked_first), "the first sample cannot be selected"

    def open_first_tile(self) -> None:
        """Open the first sample, large."""
        self.page.wait_for_selector("[data-cy='looker']")
        self.settle()
        self._first_tile().click()
        self.page.locator("[data-cy='modal']").wait_for()

    def _first_tile(self) -> Any:
        tiles = [(tile.bounding_box(), tile) for tile in self.page.locator("[data-cy='looker']").all()]
        # By place: the order in the page is another, as tiles are used again when the view changes.
        first = min((box["y"], box["x"], place) for place, (box, _) in enumerate(tiles) if box)
        return tiles[first[2]][1]

    def _has_ticked_first(self) -> bool:
        self.settle()
        tile = self._first_tile()
        tile.hover()
        tile.click(position={"x": 19, "y": 20})
        self.settle()
        return bool(tile.locator("input[type='checkbox']").is_checked())

    def samples_shown(self) -> int:
        """Number the App shows above the grid; -1 while it counts."""
        counted = self.page.locator("[data-cy='entry-counts']").first
        number = counted.inner_text().split(" ")[0].replace(",", "")
        return int(number) if number.isdigit() else -1

    def picture(self, name: str) -> Path:
        """Keep what is seen now as ``app_NAME.jpg``."""
        self.settle()
        file = self.pictures / f"app_{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=file, type="jpeg", quality=85)
        return file
