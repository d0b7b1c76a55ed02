"""Provides what all operators share: form, progress, cancelling, error messages of one sentence, result."""

import contextlib
import logging
from collections.abc import Callable, Generator
from typing import Any, ClassVar

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from umscosod.errors import Cancelled, UmscosodError
from umscosod.estimate import estimate_stages
from umscosod.progress import ProgressFn, WholeJob

from ..forms import read_flag, read_text, remember_values
from ..interrupted import choose_call
from ..jobs import AppJob, JobEnd, NextStep, Throttle, describe
from ..settings import read_engine
from ..spaces import chosen_view, keep_filters, see_filters, show_panel

logger = logging.getLogger(__name__)

PROGRESS = "progress"
"""Panel with the jobs of the App."""
HERE = types.Places.SAMPLES_GRID_SECONDARY_ACTIONS


class BaseOperator(foo.Operator):
    """An operator described by class attributes.

    Attributes
    ----------
    NAME, LABEL, DESCRIPTION : str
    ACTION : str
        Verb for "ACTION the whole data set / the current view / the selection"; empty: the form offers no target.
    ICON : str
        Name of a Material icon.
    BUTTON : str
        Text of a button above the grid; empty: none.
    RISK : str
        A name of FiftyOne's ``RiskLevel``: tells an agent whether it may run the operator without a person.
    """

    NAME: ClassVar[str]
    LABEL: ClassVar[str]
    DESCRIPTION: ClassVar[str] = ""
    ACTION: ClassVar[str] = ""
    ICON: ClassVar[str] = "auto_awesome"
    BUTTON: ClassVar[str] = ""
    RISK: ClassVar[str] = "MEDIUM"
    IS_JOB: ClassVar[bool] = False

    @property
    def config(self) -> Any:
        """Name, label and ways to run."""
        # RiskLevel exists from FiftyOne 1.16 on; without it an operator counts as dangerous to agents.
        risk = getattr(getattr(types, "RiskLevel", None), self.RISK, None)
        return foo.OperatorConfig(
            name=self.NAME,
            label=self.LABEL,
            description=self.DESCRIPTION,
            icon=self.ICON,
            dynamic=True,  # the form is built anew at each change
            execute_as_generator=self.IS_JOB,
            allow_immediate_execution=True,
            allow_delegated_execution=self.IS_JOB,
            default_choice_to_delegated=False,
            **({} if risk is None else {"risk_level": risk}),
        )

    def resolve_placement(self, ctx: Any) -> Any:
        """Put a button above the grid if the operator has one."""
        if not self.BUTTON:
            return None
        return types.Placement(HERE, types.Button(label=self.BUTTON, icon=self.ICON, prompt=True))

    def resolve_input(self, ctx: Any) -> Any:
        """Build the form. FiftyOne calls this at every keystroke, so it reads only the schema from the database."""
        see_filters(ctx)
        inputs = types.Object()
        if ctx.dataset is None:
            inputs.view("no_dataset", types.Error(label="Open a data set first")).invalid = True
        else:
            if self.ACTION:
                inputs.view_target(ctx, action_description=self.ACTION)
            self.add_inputs(inputs, ctx)
        return types.Property(inputs, view=types.View(label=self.LABEL))

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Add the operator's own fields to the form; parameters may be missing or of any type here."""

    def __call__(self, sample_collection: Any, *, delegate: bool = False, **params: Any) -> Any:
        """Run from Python on a data set or view."""
        ctx = {"view": sample_collection.view(), "params": params}
        return foo.execute_operator(self.uri, ctx, request_delegation=delegate)


class JobOperator(BaseOperator):
    """A long job over samples: a form, one call with live progress, and a result that stays until it is closed.

    A subclass names the library function that does the work, adds inputs and reads options. In the App the work runs
    in a thread of the server, and the panel `progress` shows it. From Python and in the queue of delegated operations
    the call lasts until the work is done.

    Attributes
    ----------
    CALL : str
        Name of the function in `umscosod.integrations.fiftyone`; its outcome has ``summary`` and ``is_success``.
    STAGES : tuple of str
        Stages whose time can be estimated, see `umscosod.estimate`.
    OUTPUT : str
        Parameter that names the run, also an argument of the function: ``field`` or ``key``; empty: there is no run.
    DEFAULT : str
        Its default.
    DONE : str
        Text that says where the result is; ``{}`` stands for the run.
    CAN_EDIT : bool
        Whether the function writes masks that people can edit in the App: it takes ``editable``.
    HAS_ENGINE : bool
        Whether its work can be done on Ray: it takes ``engine``.
    """

    IS_JOB: ClassVar[bool] = True
    CALL: ClassVar[str]
    STAGES: ClassVar[tuple[str, ...]] = ()
    OUTPUT: ClassVar[str] = "field"
    DEFAULT: ClassVar[str] = ""
    DONE: ClassVar[str] = ""
    CAN_EDIT: ClassVar[bool] = False
    HAS_ENGINE: ClassVar[bool] = False

    def name_of(self, ctx: Any) -> str:
        """Return the name of the run that the parameters ask for."""
        return read_text(ctx, self.OUTPUT, self.DEFAULT) if self.OUTPUT else ""

    def read_options(self, ctx: Any) -> dict[str, Any]:
        """Turn parameters into arguments of `work`; calls from Python do not get the form's defaults."""
        remember_values(ctx, self.NAME)
        options = {**self.own_options(ctx), "overwrite": read_flag(ctx, "overwrite")}
        if self.CAN_EDIT:
            options["editable"] = read_flag(ctx, "editable", True)
        if self.HAS_ENGINE:
            options["engine"] = read_engine(ctx)
        if not self.OUTPUT:
            return options
        options |= {self.OUTPUT: self.name_of(ctx), "out_dir": read_text(ctx, "out_dir") or None}
        return choose_call(ctx, self.name_of(ctx), options)

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return the function's own arguments, without those of all jobs: the run, its folder, ``overwrite``."""
        raise NotImplementedError(type(self).__name__)

    def work(self, view: Any, progress: Any, *, resumed: str = "", given_up: str = "", **options: Any) -> Any:
        """Call the library, or resume an interrupted run."""
        import umscosod.integrations.fiftyone as integration

        if resumed:
            return integration.resume_dataset(view, resumed, engine=options.get("engine"), progress=progress)
        if given_up:
            integration.give_up_interrupted(view._dataset, given_up)
        return getattr(integration, self.CALL)(view, **options, progress=progress)

    def estimate(self, view: Any, options: dict[str, Any]) -> dict[str, float]:
        """Return the seconds of each stage, as the top of the form shows them: the bar of the whole job needs them."""
        if not self.STAGES:
            return {}
        from umscosod.integrations.fiftyone import survey

        groups = survey(view, options["group_field"])
        train = options.get("train", "training" in self.STAGES)
        found = estimate_stages(groups.n_images, options["config"], train=train, n_groups=len(groups.sizes))
        return {name: found[name] for name in self.STAGES if name in found}

    def resolve_input(self, ctx: Any) -> Any:
        """Build the form for the App; return None when FiftyOne asks again before it executes.

        The App 1.22 does not show an error of that second form. The library raises the error, and the panel shows it.
        """
        if getattr(ctx, "spaces", None) is not None and "target" not in ctx.request_params:
            return types.Property(types.Object())
        return super().resolve_input(ctx)

    def describe_done(self, ctx: Any) -> str:
        """Return the text that says where the result is."""
        return self.DONE.format(self.name_of(ctx))

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Return the usual next steps; for masks: review the worst, evaluate, export."""
        return steps_after_masks(ctx, self.name_of(ctx)) if self.OUTPUT == "field" else ()

    def view_after(self, ctx: Any) -> Any:
        """Return the view that the grid shows at the end; None to leave the grid unchanged."""
        return None

    def is_look(self, ctx: Any) -> bool:
        """Whether that view is temporary."""
        return False

    def execute(self, ctx: Any) -> Generator[Any]:
        """Start the work in the App and show its progress; elsewhere do the work in this call."""
        if ctx.delegated or getattr(ctx, "spaces", None) is None:  # only the App has panels
            self._run_here(ctx)
            return
        view = chosen_view(ctx) if self.ACTION else ctx.view
        label = f"{self.LABEL.partition(': ')[2]}: {ctx.dataset.name}"

        def begin(report: ProgressFn, whole: WholeJob) -> JobEnd:
            options = self.read_options(ctx)
            whole.expect(self.estimate(view, options))
            return self._end(ctx, self.work(view, report, **options))

        AppJob(label, ctx.dataset.name, self.uri, ctx.params, begin).start()
        yield from show_panel(ctx, f"{self.plugin_name}/{PROGRESS}", layout="vertical")

    def _run_here(self, ctx: Any) -> None:
        with _plain_errors():
            options = self.read_options(ctx)
            view = chosen_view(ctx) if self.ACTION else ctx.view
            outcome = self.work(view, _delegated_progress(ctx) if ctx.delegated else None, **options)
        if ctx.delegated:
            ctx.set_progress(progress=1.0, label=outcome.summary)

    def _end(self, ctx: Any, outcome: Any) -> JobEnd:
        notes = [note for note in getattr(outcome, "notes", ()) if note not in outcome.summary]
        return JobEnd(
            summary=outcome.summary,
            details="  \n".join([self.describe_done(ctx), *notes]),
            is_success=outcome.is_success,
            steps=self.next_steps(ctx) if outcome.is_success else (),
            view=self.view_after(ctx),
            is_look=self.is_look(ctx),
        )

    def resolve_output(self, ctx: Any) -> Any:
        """Show `describe_done`; in the App the panel shows it."""
        outputs = types.Object()
        outputs.view("done", types.Notice(label=self.describe_done(ctx)))
        return types.Property(outputs, view=types.View(label=self.LABEL))


def steps_after_masks(ctx: Any, field: str) -> tuple[NextStep, ...]:
    """Return the usual next steps for existing masks."""
    ctx.dataset.reload()  # the field was made in another thread
    steps = [NextStep(label="Review the worst", operator="review", params={"field": field}, has_form=False)]
    truths = set(ctx.dataset.get_field_schema(embedded_doc_type=fo.Segmentation))
    truths |= set(ctx.dataset.get_field_schema(embedded_doc_type=fo.Detections))
    if any(ctx.dataset.get_field(f"{name}_status") is None for name in truths - {field, "reviewed"}):
        steps.append(NextStep(label="Evaluate", operator="evaluate", params={"pred_field": field}))
    return (*steps, NextStep(label="Export", operator="export", params={"field": field}))


class QuickOperator(BaseOperator):
    """An operator that finishes at once; the App shows the result of `perform` by name.

    Attributes
    ----------
    OUTPUTS : tuple of (str, str)
        Keys of the result and their labels.
    CHANGES_DATASET : bool
        Whether the App must read the data set again afterwards.
    """

    OUTPUTS: ClassVar[tuple[tuple[str, str], ...]] = ()
    CHANGES_DATASET: ClassVar[bool] = True

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Call the library once; return plain values."""
        raise NotImplementedError(type(self).__name__)

    def execute(self, ctx: Any) -> Any:
        """Perform the operation, and let the App show the changes."""
        see_filters(ctx)
        with _plain_errors():
            result = self.perform(ctx)
        if self.CHANGES_DATASET:
            list(keep_filters(ctx))
            ctx.trigger("reload_dataset")
        return result

    def resolve_output(self, ctx: Any) -> Any:
        """Show the result."""
        outputs = types.Object()
        for key, label in self.OUTPUTS:
            outputs.str(key, label=label)
        return types.Property(outputs, view=types.View(label=self.LABEL))


@contextlib.contextmanager
def _plain_errors() -> Generator[None]:
    """Raise errors of umscosod as ValueError, whose text the App shows unchanged."""
    try:
        yield
    except UmscosodError as error:
        raise ValueError(str(error)) from error


def _delegated_progress(ctx: Any) -> Callable[[int, int, str], None]:
    """Report to the queue, and stop if a person marked the operation as failed (``fiftyone delegated fail ID``)."""

    def report(done: int, total: int, stage: str) -> None:
        if _was_cancelled(ctx):
            raise Cancelled("stopped by 'fiftyone delegated fail'; run it again to go on")
        ctx.set_progress(progress=done / total if total else 0.0, label=describe(done, total, stage))

    return Throttle(report)


def _was_cancelled(ctx: Any) -> bool:
    operation = getattr(ctx, "_delegated_operation_id", None)
    if operation is None:
        return False
    from fiftyone.operators.delegated import DelegatedOperationService
    from pymongo.errors import PyMongoError

    try:
        return bool(DelegatedOperationService().get(operation).run_state == "failed")
    except PyMongoError as error:  # as for FiftyOne's own reports: a short loss of the database ends no long job
        logger.warning("cannot ask whether the operation is to stop: %s", error)
        return False
