"""Defines the operators for a person's decisions on masks: one with a form, three that act at once."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import fiftyone.operators as foo
from fiftyone.operators import types

from umscosod.integrations.fiftyone.review.listing import list_review_fields, next_for_review

from ..forms import add_mask_field_choice, read_flag, read_text
from ..spaces import show_panel
from .base import QuickOperator

PANEL = "review_masks"
STORE = "umscosod/review"
STORED_FOR_S = 7 * 24 * 3600
"""Seconds for which a data set remembers the run under review."""
OPEN_PANEL = "panel"
WORDS = {
    OPEN_PANEL: "Open the review panel: worst first",
    "accept": "Accept: these masks are mine now, no run writes over them",
    "reject": "Reject: training leaves these samples out, later runs leave them alone",
    "send_back": "Send back: the next run of this field does these samples again",
    "undo": "Undo: forget what was decided",
}


def decide(sample_collection: Any, verb: str, field: str, **options: Any) -> Any:
    """Call the library function for a verb of `WORDS`."""
    from umscosod.integrations.fiftyone.review import decide as review

    calls = {
        "accept": review.accept_masks,
        "reject": review.reject_masks,
        "send_back": review.send_back,
        "undo": review.undo_review,
    }
    return calls[verb](sample_collection, field, **options)


def looked_at(ctx: Any) -> list[str]:
    """Return the ids that a decision without a form applies to: the open sample, else the selection."""
    return [ctx.current_sample] if ctx.current_sample else list(ctx.selected)


def opens_next(ctx: Any) -> bool:
    """Whether a decision on the open sample opens the next undecided mask."""
    return ctx.store(STORE).get("open_next") is not False


def go_on(ctx: Any, field: str) -> Callable[[], None]:
    """Find the next sample in the grid before the open one is decided; call the result to open that sample."""
    if not (ctx.current_sample and opens_next(ctx)):
        return lambda: None
    following = next_for_review(ctx.view, field, ctx.current_sample)
    if following is None:
        return lambda: ctx.ops.close_sample()
    return lambda: ctx.ops.open_sample(id=following)


def remember_field(ctx: Any, field: str) -> None:
    """Store the run under review, for the operators without a form."""
    ctx.store(STORE).set("field", field, ttl=STORED_FOR_S)


def take_wanted(ctx: Any) -> str:
    """Return once the run for which `review` opened the panel; "" if there is none."""
    wanted = str(ctx.store(STORE).get("wanted") or "")
    if wanted:
        ctx.store(STORE).delete("wanted")
    return wanted


def guess_field(ctx: Any) -> str:
    """Return the run that a decision applies to: the only run, the shown one, or the last reviewed; "" if unclear."""
    fields = list_review_fields(ctx.dataset)
    if len(fields) < 2:
        return fields[0] if fields else ""
    shown = [field for field in fields if field in (getattr(ctx, "active_fields", None) or [])]
    if len(shown) == 1:
        return shown[0]
    last = str(ctx.store(STORE).get("field") or "")
    return last if last in fields else ""


class Review(QuickOperator):
    """Decides on the open sample, the selection or a view; or opens the panel."""

    NAME = "review"
    LABEL = "UMS-CoSOD: review masks"
    DESCRIPTION = "Accept, reject or send back masks, the least certain first"
    ICON = "rate_review"
    BUTTON = "Review masks"
    RISK = "HIGH"
    OUTPUTS = (("summary", "Review"),)

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for the action, the run and the samples."""
        choices = types.RadioGroup(orientation="vertical")
        for verb, words in WORDS.items():
            choices.add_choice(verb, label=words)
        inputs.enum("action", choices.values(), view=choices, default=OPEN_PANEL, label="What to do")
        default = guess_field(ctx) or next(iter(list_review_fields(ctx.dataset)), "")
        add_mask_field_choice(inputs, ctx, "field", "Masks of the run", default=default)
        if self._verb(ctx) == OPEN_PANEL:
            return
        if ctx.current_sample:
            inputs.view("one", types.Notice(label="This is about the sample that is open"))
        else:
            inputs.view_target(ctx, action_description="Decide about")
            if not ctx.selected:
                label = "Nothing is selected: this is about all masks of the run in the view, or in the data set"
                inputs.view("all", types.Warning(label=label))
        if self._verb(ctx) == "accept":
            inputs.bool("overwrite", default=False, label="Replace masks that were accepted before")

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Open the panel, or record the decision."""
        verb, field = self._verb(ctx), read_text(ctx, "field") or guess_field(ctx)
        if not field:
            raise ValueError("Say which run: there is more than one mask field")
        remember_field(ctx, field)
        if verb == OPEN_PANEL:
            ctx.store(STORE).set("wanted", field, ttl=STORED_FOR_S)
            list(show_panel(ctx, f"{self.plugin_name}/{PANEL}"))
            return {"summary": "The panel is beside the grid"}
        options = {"overwrite": read_flag(ctx, "overwrite")} if verb == "accept" else {}
        if ctx.current_sample:
            report = decide(ctx.dataset, verb, field, ids=[ctx.current_sample], **options)
        else:
            report = decide(ctx.target_view(), verb, field, **options)
        return {"summary": report.summary}

    def resolve_output(self, ctx: Any) -> Any:
        """Show the outcome of a decision; show nothing if the panel opens."""
        return None if self._verb(ctx) == OPEN_PANEL else super().resolve_output(ctx)

    def _verb(self, ctx: Any) -> str:
        verb = read_text(ctx, "action", OPEN_PANEL)
        return verb if verb in WORDS else OPEN_PANEL


class DecideAtOnce(QuickOperator):
    """A decision without a form: backtick, a few letters of its name, Enter; or its button beside the open sample."""

    VERB: ClassVar[str]
    RISK = "HIGH"

    @property
    def config(self) -> Any:
        """As for all operators, but static: otherwise the App asks for input, even with an empty form."""
        config = super().config
        config.dynamic = config.resolve_execution_options_on_change = False
        return config

    def resolve_input(self, ctx: Any) -> Any:
        """Return no form."""
        return types.Property(types.Object())

    def resolve_placement(self, ctx: Any) -> Any:
        """Put a button beside the open sample."""
        button = types.Button(label=self.LABEL, icon=self.ICON, prompt=False)
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, button)

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Record the decision on the open sample or the selection, and report it."""
        if ctx.dataset is None:
            raise ValueError("Open a data set first")
        field = read_text(ctx, "field") or guess_field(ctx)
        if not field:
            names = ", ".join(list_review_fields(ctx.dataset)) or "none"
            raise ValueError(f"It is unclear which masks are meant (there are: {names}): show one of them only")
        ids = looked_at(ctx)
        if not ids:
            raise ValueError("Select masks in the grid, or open one")
        open_next = go_on(ctx, field)
        report = decide(ctx.dataset, self.VERB, field, ids=ids)
        ctx.ops.notify(report.summary, variant="success" if report.is_success else "warning")
        if not ctx.current_sample:  # a decision on the open sample leaves the selection unchanged
            ctx.ops.clear_selected_samples()
        elif report.is_success:
            open_next()
        return {"summary": report.summary}

    def resolve_output(self, ctx: Any) -> None:
        """Show no dialog: the notice is enough."""

    def __call__(
        self, sample_collection: Any, *, ids: Iterable[str] = (), delegate: bool = False, **params: Any
    ) -> Any:
        """Run from Python on samples by their ids; ``field`` is needed if there are several mask fields."""
        ctx = {"view": sample_collection.view(), "params": params, "selected": list(ids)}
        return foo.execute_operator(self.uri, ctx, request_delegation=delegate)


class AcceptMask(DecideAtOnce):
    """Accepts the open sample or the selection."""

    NAME, VERB, ICON = "accept_mask", "accept", "check_circle"
    LABEL = "UMS-CoSOD: accept mask"
    DESCRIPTION = "The mask of the open sample, or the selected ones, becomes a person's; no run writes over it"


class RejectMask(DecideAtOnce):
    """Rejects the open sample or the selection."""

    NAME, VERB, ICON = "reject_mask", "reject", "cancel"
    LABEL = "UMS-CoSOD: reject mask"
    DESCRIPTION = "Training leaves the open sample, or the selected ones, out; later runs leave them alone"


class SendBackMask(DecideAtOnce):
    """Sends back the open sample or the selection."""

    NAME, VERB, ICON = "send_back_mask", "send_back", "replay"
    LABEL = "UMS-CoSOD: send mask back"
    DESCRIPTION = "The next run of the field does the open sample, or the selected ones, again"
