"""Operators for a person's decisions about masks: one with a form, three that act at once on what is looked at."""

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
"""How long a data set remembers which run was under review."""
OPEN_PANEL = "panel"
WORDS = {
    OPEN_PANEL: "Open the review panel: worst first",
    "accept": "Accept: these masks are mine now, no run writes over them",
    "reject": "Reject: training leaves these samples out, later runs leave them alone",
    "send_back": "Send back: the next run of this field does these samples again",
    "undo": "Undo: forget what was decided",
}


def decide(sample_collection: Any, verb: str, field: str, **options: Any) -> Any:
    """Call the library for a verb of `WORDS`."""
    from umscosod.integrations.fiftyone.review import decide as review

    calls = {
        "accept": review.accept_masks,
        "reject": review.reject_masks,
        "send_back": review.send_back,
        "undo": review.undo_review,
    }
    return calls[verb](sample_collection, field, **options)


def looked_at(ctx: Any) -> list[str]:
    """Ids a decision without a form is about: the sample that is open, else the selection."""
    return [ctx.current_sample] if ctx.current_sample else list(ctx.selected)


def opens_next(ctx: Any) -> bool:
    """Whether the next undecided mask opens after a decision about the open one."""
    return ctx.store(STORE).get("open_next") is not False


def go_on(ctx: Any, field: str) -> Callable[[], None]:
    """Look up, before the open sample is decided about, which one is next in the grid; call to open it."""
    if not (ctx.current_sample and opens_next(ctx)):
        return lambda: None
    following = next_for_review(ctx.view, field, ctx.current_sample)
    if following is None:
        return lambda: ctx.ops.close_sample()
    return lambda: ctx.ops.open_sample(id=following)


def remember_field(ctx: Any, field: str) -> None:
    """Keep which run is under review, for the operators without a form."""
    ctx.store(STORE).set("field", field, ttl=STORED_FOR_S)


def take_wanted(ctx: Any) -> str:
    """Take the run that the operator `review` was asked to open the panel for, once; "" if it was not."""
    wanted = str(ctx.store(STORE).get("wanted") or "")
    if wanted:
        ctx.store(STORE).delete("wanted")
    return wanted


def guess_field(ctx: Any) -> str:
    """The run a decision is about: the one there is, the one shown, or the one last reviewed; "" if that is unclear."""
    fields = list_review_fields(ctx.dataset)
    if len(fields) < 2:
        return fields[0] if fields else ""
    shown = [field for field in fields if field in (getattr(ctx, "active_fields", None) or [])]
    if len(shown) == 1:
        return shown[0]
    last = str(ctx.store(STORE).get("field") or "")
    return last if last in fields else ""


class Review(QuickOperator):
    """Decide about the open sample, the selection or a view; or open the panel."""

    NAME = "review"
    LABEL = "UMS-CoSOD: review masks"
    DESCRIPTION = "Accept, reject or send back masks, the least certain first"
    ICON = "rate_review"
    BUTTON = "Review masks"
    RISK = "HIGH"
    OUTPUTS = (("summary", "Review"),)

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask what to do, of which run, and with which samples."""
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
        """Open the panel, or decide."""
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
        """Say what became of a decision; a panel that opens needs no words."""
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
        """As for all, but static: the App asks for input wherever a form could change, even an empty one."""
        config = super().config
        config.dynamic = config.resolve_execution_options_on_change = False
        return config

    def resolve_input(self, ctx: Any) -> Any:
        """No form."""
        return types.Property(types.Object())

    def resolve_placement(self, ctx: Any) -> Any:
        """Put a button beside the open sample."""
        button = types.Button(label=self.LABEL, icon=self.ICON, prompt=False)
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, button)

    def perform(self, ctx: Any) -> dict[str, Any]:
        """Decide about what is looked at, and say so."""
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
        if not ctx.current_sample:  # a selection behind the open sample was not meant, and stays
            ctx.ops.clear_selected_samples()
        elif report.is_success:
            open_next()
        return {"summary": report.summary}

    def resolve_output(self, ctx: Any) -> None:
        """No dialog: the notice says it all."""

    def __call__(
        self, sample_collection: Any, *, ids: Iterable[str] = (), delegate: bool = False, **params: Any
    ) -> Any:
        """Run from Python on samples by their ids; ``field`` where there is more than one mask field."""
        ctx = {"view": sample_collection.view(), "params": params, "selected": list(ids)}
        return foo.execute_operator(self.uri, ctx, request_delegation=delegate)


class AcceptMask(DecideAtOnce):
    """Accept what is looked at."""

    NAME, VERB, ICON = "accept_mask", "accept", "check_circle"
    LABEL = "UMS-CoSOD: accept mask"
    DESCRIPTION = "The mask of the open sample, or the selected ones, becomes a person's; no run writes over it"


class RejectMask(DecideAtOnce):
    """Reject what is looked at."""

    NAME, VERB, ICON = "reject_mask", "reject", "cancel"
    LABEL = "UMS-CoSOD: reject mask"
    DESCRIPTION = "Training leaves the open sample, or the selected ones, out; later runs leave them alone"


class SendBackMask(DecideAtOnce):
    """Send back what is looked at."""

    NAME, VERB, ICON = "send_back_mask", "send_back", "replay"
    LABEL = "UMS-CoSOD: send mask back"
    DESCRIPTION = "The next run of the field does the open sample, or the selected ones, again"
