"""Defines the panel `progress`: one bar for each job of the data set, its result, and the next steps."""

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from umscosod.progress import in_words

from ..interrupted import RESUME
from ..jobs import FAILED, RUNNING, STOPPED, AppJob, dismiss, find_job, list_jobs
from ..operators.base import PROGRESS
from ..spaces import keep_filters
from .base import BasePanel

EVERY_MS, LATER_MS = 1000, 4000
"""Interval at which the panel reads the jobs, in milliseconds: at first, and of jobs that run longer than `SHORT_S`.

Each look has the App draw the panel anew, which costs App and server more than half a second of a processor core.
"""
SHORT_S = 5.0
SHOWN = 3
LAYOUT = {"orientation": "vertical", "gap": 1, "px": 2, "py": 2}
OPERATORS = {
    "umscosod/label": "label",
    "umscosod/predict": "predict",
    "umscosod/pseudo": "generate_pseudo_masks",
    "umscosod/refine": "refine",
    "umscosod/train": "train",
}
"""The operator that resumes an interrupted run, by the run's method."""
HELP = """Jobs of this data set that were started in the App. A job goes on when the tab is closed.

*Stop* keeps what is finished: the same call goes on from there."""


class Progress(BasePanel):
    """Shows the running jobs, stops them, and offers next steps at the end."""

    @property
    def config(self) -> Any:
        """Name and place; if the category were a plain string, every operator would disappear."""
        return foo.PanelConfig(
            name=PROGRESS,
            label="UMS-CoSOD: progress",
            icon="hourglass_top",
            surfaces="grid",
            category=foo.Categories.CURATE,
            help_markdown=HELP,
        )

    def on_load(self, ctx: Any) -> None:
        """Read the jobs."""
        self.look(ctx)

    def on_change_dataset(self, ctx: Any) -> None:
        """Read the jobs of the other data set."""
        self.look(ctx)

    def look(self, ctx: Any) -> None:
        """Read the progress of the jobs; report each end once."""
        jobs = _jobs(ctx)
        ctx.panel.set_state("words", {job.id: _words(job) for job in jobs})  # a changed state makes the App draw
        ctx.panel.set_state("interrupted", _interrupted(ctx))
        for job in jobs:
            if job.state != RUNNING and not job.is_told:
                job.is_told = True
                _tell(ctx, job)

    def stop(self, ctx: Any) -> None:
        """Stop a job at its next report."""
        job = _job(ctx)
        if job is not None:
            job.stop()
        self.look(ctx)

    def again(self, ctx: Any) -> None:
        """Open the form of a job with its values."""
        job = _job(ctx)
        if job is not None:
            ctx.prompt(job.uri, params=job.params)

    def resume(self, ctx: Any) -> None:
        """Resume an interrupted run, by its key."""
        from umscosod.integrations.fiftyone import find_interrupted

        run = find_interrupted(ctx.dataset, str(ctx.params.get("run") or ""))
        if run is None:
            ctx.ops.notify("That run is not interrupted any more", variant="warning")
        else:
            params = {"field": run.key, "key": run.key, "interrupted": RESUME}
            ctx.trigger(f"{self.plugin_name}/{OPERATORS[run.method]}", params=params)

    def go_on(self, ctx: Any) -> None:
        """Execute a step that a job's end offers."""
        job, number = _job(ctx), ctx.params.get("step")
        if job is None or job.ended is None or not isinstance(number, int):
            return
        step = job.ended.steps[number]
        uri = f"{self.plugin_name}/{step.operator}"
        if step.has_form:
            ctx.prompt(uri, params=step.params)
        else:
            ctx.trigger(uri, params=step.params)

    def close(self, ctx: Any) -> None:
        """Forget the ended jobs, and close the panel."""
        newest = next(iter(_jobs(ctx)), None)
        if newest is not None and newest.view_before is not None:
            ctx.ops.set_view(newest.view_before)
        dismiss(ctx.dataset.name)
        ctx.ops.close_panel(id=ctx.panel.id)

    def render(self, ctx: Any) -> Any:
        """Lay out the panel; the timer exists only while a job runs."""
        panel = types.Object()
        jobs = _jobs(ctx)
        waited_for = [job.whole.elapsed_s for job in jobs if not job.is_told]
        if waited_for:
            interval = EVERY_MS if min(waited_for) < SHORT_S else LATER_MS
            panel.view("timer", types.TimerView(interval=interval, on_interval=self.look))
        if not jobs:
            panel.md("No job of this data set runs. Start one by the buttons above the grid.", name="none")
        for job in jobs:
            _add_job(panel, self, job)
        for key, words in (ctx.panel.get_state("interrupted") or {}).items():
            panel.md(words, name=f"interrupted_{key}")
            panel.btn(f"resume_{key}", label="Go on", on_click=self.resume, params={"run": key}, variant="contained")
        if jobs and all(job.state != RUNNING for job in jobs):
            panel.btn("close", label="Done", on_click=self.close, variant="outlined")
        return types.Property(panel, view=types.GridView(**LAYOUT))


def _jobs(ctx: Any) -> list[AppJob]:
    return list_jobs(ctx.dataset.name)[:SHOWN] if ctx.dataset is not None else []


def _job(ctx: Any) -> AppJob | None:
    return find_job(ctx.dataset.name, str(ctx.params.get("job") or ""))


def _interrupted(ctx: Any) -> dict[str, str]:
    """Return a text for each unfinished run that no process works on, by key."""
    from umscosod.integrations.fiftyone import find_interrupted, list_runs
    from umscosod.integrations.fiftyone.runs.record import INTERRUPTED

    if ctx.dataset is None or any(job.state == RUNNING for job in _jobs(ctx)):
        return {}
    ctx.dataset.reload()  # runs are made in other threads and processes
    found = [find_interrupted(ctx.dataset, run.key) for run in list_runs(ctx.dataset) if run.state == INTERRUPTED]
    return {run.key: run.summary for run in found if run is not None and run.method in OPERATORS}


def _words(job: AppJob) -> str:
    """Return title, state and times of a job, as Markdown."""
    times = in_words(job.whole.elapsed_s)
    if job.state == RUNNING:
        left = job.whole.remaining_s
        times += " so far" + (f", about {in_words(left)} to go" if left is not None and not job.is_stopping else "")
    details = f"  \n{job.ended.details}" if job.ended is not None and job.ended.details else ""
    return f"**{job.label}**  \n{job.message}{details}  \n*{times}*"


def _tell(ctx: Any, job: AppJob) -> None:
    """Show a notice and reload the data at a job's end."""
    variant = {STOPPED: "info", FAILED: "error"}.get(job.state, "success")
    if job.ended is not None and not job.ended.is_success:
        variant = "warning"
    ctx.ops.notify(job.message, variant=variant)
    list(keep_filters(ctx))
    ctx.trigger("reload_dataset")  # the new fields appear in the sidebar
    if job.ended is not None and job.ended.view is not None:
        job.view_before = ctx.view if job.ended.is_look else None
        ctx.ops.set_view(job.ended.view)


def _add_job(panel: Any, own: Progress, job: AppJob) -> None:
    panel.md(_words(job), name=f"words_{job.id}")
    if job.state == RUNNING:
        panel.float(f"bar_{job.id}", default=job.whole.fraction, view=types.ProgressView(variant="linear"))
    buttons = panel.h_stack(f"buttons_{job.id}", gap=1)
    me: dict[str, Any] = {"job": job.id}
    if job.state == RUNNING:
        buttons.btn("stop", label="Stop", on_click=own.stop, params=me, variant="contained", disabled=job.is_stopping)
        return
    if job.state == FAILED:
        buttons.btn("again", label="Open the form again", on_click=own.again, params=me, variant="contained")
    for number, step in enumerate(job.ended.steps if job.ended is not None else ()):
        params = {**me, "step": number}
        buttons.btn(f"step_{number}", label=step.label, on_click=own.go_on, params=params, variant="outlined")
