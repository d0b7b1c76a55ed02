"""Jobs of the App: the end of each is kept and told, whatever it is; none waits for a tab."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fiftyone")
import fiftyone as fo

from plugin.jobs import DONE, FAILED, RUNNING, STOPPED, AppJob, JobEnd, NextStep, Throttle, dismiss, list_jobs
from plugin.panels.progress import EVERY_MS, LATER_MS, Progress
from umscosod.errors import DataError

DATASET = "pictures"
WAIT_S = 60


@pytest.fixture(autouse=True)
def forget() -> Any:
    yield
    dismiss(DATASET)


def run(work: Any, label: str = "label") -> AppJob:
    job = AppJob(label, DATASET, "@umscosod/umscosod/label", {"device": "foo"}, work)
    job.start()
    return job


def ended(job: AppJob) -> AppJob:
    job.join(WAIT_S)
    assert job.state != RUNNING
    return job


def test_an_end_is_kept_until_it_is_dismissed() -> None:
    step = NextStep(label="Evaluate", operator="evaluate", params={"pred_field": "cosal"})
    job = ended(run(lambda report, whole: JobEnd(summary="cosal: 3 labelled", steps=(step,))))
    assert (job.state, job.message) == (DONE, "cosal: 3 labelled")
    assert list_jobs(DATASET) == [job]
    dismiss(DATASET)
    assert list_jobs(DATASET) == []


def test_our_errors_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    def work(report: Any, whole: Any) -> JobEnd:
        raise DataError("device 'foo' is unknown;\nuse auto")

    job = ended(run(work))
    assert (job.state, job.message) == (FAILED, "Failed: device 'foo' is unknown; use auto")


def test_a_fault_of_ours_is_in_the_log_under_the_number_that_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    def work(report: Any, whole: Any) -> JobEnd:
        raise KeyError("nobody thought of this")

    with caplog.at_level(logging.ERROR):
        job = ended(run(work))
    number = job.message.rpartition(" ")[2]
    assert job.message.startswith("Failed: KeyError: 'nobody thought of this'. The log of the App's server")
    (record,) = [record for record in caplog.records if number in record.getMessage()]
    assert record.exc_info is not None


def test_stop_ends_the_work_at_its_next_report() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(report: Any, whole: Any) -> JobEnd:
        report(0, 2, "training")
        begun.set()
        go_on.wait(WAIT_S)
        report(1, 2, "training")
        return JobEnd(summary="went on")

    job = run(work)
    assert begun.wait(WAIT_S)
    assert job.message == "training 0/2"
    job.stop()
    assert job.is_stopping
    go_on.set()
    assert ended(job).state == STOPPED
    assert job.message.startswith("Stopped. What was finished is kept")


def test_one_bar_for_all_stages() -> None:
    seen: list[float] = []

    def work(report: Any, whole: Any) -> JobEnd:
        whole.expect({"features": 30.0, "training": 10.0})
        for done, stage in ((0, "features"), (1, "features"), (2, "features"), (1, "training"), (2, "training")):
            report(done, 2, stage)
            seen.append(whole.fraction)
        return JobEnd(summary="done")

    ended(run(work))
    assert seen == [0.0, 0.375, 0.75, 0.875, 1.0]


class Panel:
    """The panel `progress`, called as the App calls it."""

    def __init__(self) -> None:
        self.panel: Any = Progress()  # not FiftyOne's: its plugin is another copy of the modules, with jobs of its own
        self.panel.plugin_name = "@umscosod/umscosod"
        self.asked: list[tuple[Any, ...]] = []

    def context(self, **params: Any) -> Any:
        ops = SimpleNamespace(
            notify=lambda message, variant: self.asked.append(("notify", message, variant)),
            close_panel=lambda **given: self.asked.append(("close", given)),
            set_view=lambda view: self.asked.append(("view", view)),
        )
        return SimpleNamespace(
            dataset=SimpleNamespace(name=DATASET, reload=lambda: None, list_runs=lambda **given: []),
            params=params,
            panel=SimpleNamespace(set_state=lambda name, value: None, get_state=lambda name: None, id="one"),
            ops=ops,
            trigger=lambda name, params=None: self.asked.append(("trigger", name, params)),
            prompt=lambda uri, params: self.asked.append(("prompt", uri, params)),
            request_params={},
            view="the user's view",
        )

    def buttons(self) -> list[str]:
        found: list[str] = []

        def walk(each: Any) -> None:
            if isinstance(each, dict):
                if each.get("name") == "Button" and each.get("label"):
                    found.append(each["label"])
                for value in each.values():
                    walk(value)

        walk(self.panel.render(self.context()).to_json())
        return found


def test_a_long_job_is_looked_at_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    job = run(lambda report, whole: JobEnd(summary="done") if go_on.wait(WAIT_S) else JobEnd(summary="late"))

    def intervals() -> list[int]:
        timers: list[int] = []

        def walk(each: Any) -> None:
            if isinstance(each, dict):
                timers.extend([each["interval"]] if each.get("name") == "TimerView" else [])
                for value in each.values():
                    walk(value)

        panel = Panel()
        walk(panel.panel.render(panel.context()).to_json())
        return timers

    assert intervals() == [EVERY_MS]
    monkeypatch.setattr("plugin.panels.progress.SHORT_S", 0.0)
    assert intervals() == [LATER_MS]
    go_on.set()
    ended(job)
    Panel().panel.look(Panel().context())
    assert intervals() == []


def test_the_panel_tells_of_an_end_once_and_offers_what_comes_next() -> None:
    step = NextStep(label="Evaluate", operator="evaluate", params={"pred_field": "cosal"})
    job = ended(run(lambda report, whole: JobEnd(summary="cosal: 3 labelled", steps=(step,), view="a view")))
    panel = Panel()
    panel.panel.look(panel.context())
    panel.panel.look(panel.context())
    told = [("notify", "cosal: 3 labelled", "success"), ("trigger", "reload_dataset", None), ("view", "a view")]
    assert panel.asked == told
    assert panel.buttons() == ["Evaluate", "Done"]
    panel.panel.go_on(panel.context(job=job.id, step=0))
    assert panel.asked[-1] == ("prompt", "@umscosod/umscosod/evaluate", {"pred_field": "cosal"})


def test_a_view_to_look_at_goes_when_the_panel_is_closed() -> None:
    ended(run(lambda report, whole: JobEnd(summary="2 groups proposed", view="one image a group", is_look=True)))
    panel = Panel()
    panel.panel.look(panel.context())
    panel.panel.close(panel.context())
    assert [given for kind, given, *_ in panel.asked if kind == "view"] == ["one image a group", "the user's view"]


def test_a_failure_offers_its_form_again_as_it_was_filled_in() -> None:
    def work(report: Any, whole: Any) -> JobEnd:
        raise DataError("device 'foo' is unknown")

    job = ended(run(work))
    panel = Panel()
    panel.panel.look(panel.context())
    assert panel.asked[0] == ("notify", "Failed: device 'foo' is unknown", "error")
    assert panel.buttons() == ["Open the form again", "Done"]
    panel.panel.again(panel.context(job=job.id))
    assert panel.asked[-1] == ("prompt", job.uri, {"device": "foo"})
    panel.panel.close(panel.context())
    assert list_jobs(DATASET) == []


def test_filters_of_the_side_bar_become_stages_of_the_view() -> None:
    from plugin.spaces import keep_filters

    ctx = SimpleNamespace(
        request_params={"filters": {"subject": {"values": ["cat"]}}, "view_name": "two"},
        view=fo.DatasetView,
        ops=SimpleNamespace(set_view=lambda view: view),
    )
    assert list(keep_filters(ctx)) == [fo.DatasetView]
    assert ctx.request_params["view_name"] is None  # by its name FiftyOne would find the view without the filter
    ctx.request_params["filters"] = {}
    assert list(keep_filters(ctx)) == []


def test_throttle_keeps_first_last_and_stage_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("plugin.jobs.time.monotonic", lambda: clock[0])
    seen: list[tuple[int, int, str]] = []
    report = Throttle(lambda *given: seen.append(given))
    for done, total, stage, at_s in [
        (1, 9, "features", 100.0),
        (2, 9, "features", 100.5),  # dropped
        (3, 9, "features", 101.0),
        (4, 9, "train", 101.1),
        (9, 9, "train", 101.2),
    ]:
        clock[0] = at_s
        report(done, total, stage)
    assert seen == [(1, 9, "features"), (3, 9, "features"), (4, 9, "train"), (9, 9, "train")]


def test_a_loss_that_changes_makes_no_new_stage() -> None:
    seen: list[str] = []
    throttle = Throttle(lambda done, total, stage: seen.append(stage))
    for done in range(1, 51):
        throttle(done, 50, f"training, loss {1 / done:.3f}")
    assert seen == ["training, loss 1.000", "training, loss 0.020"]  # first and last; the rest came within a second
