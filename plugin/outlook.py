"""Shows at the top of a form what the job will do: number of images, groups, time."""

import json
import time
from collections.abc import Callable
from typing import Any

from umscosod.config import PipelineConfig
from umscosod.errors import UmscosodError, count_of
from umscosod.estimate import estimate_stages, first_name, first_width
from umscosod.progress import in_words

from .forms import BY_FOLDER, Form, read_text
from .settings import BACKBONES, read_config
from .spaces import chosen_view

KEPT_S = 5.0
"""Seconds for which counts are reused: FiftyOne builds a form at each keystroke."""
MANY_GROUPS = 200
_SHOWN = 6
_CACHE: dict[str, tuple[float, Any]] = {}
_MOST = 64


class Outlook:
    """The groups of the samples that a form applies to.

    Attributes
    ----------
    group_field : str
        The value in the form.
    groups : umscosod.integrations.fiftyone.Survey or None
        None if no run is possible; `problem` gives the reason.
    problem : str
    """

    def __init__(self, form: Form) -> None:
        from umscosod.integrations.fiftyone import group_fields, likely_group_field, survey

        self._form = form
        self.names = group_fields(form.dataset)
        view = chosen_view(form.ctx)
        key = json.dumps([form.dataset.name, self.names, [str(each) for each in getattr(view, "_stages", ())]])
        self.groups: Any = None
        self.problem, self.likely = "", BY_FOLDER
        try:
            self.likely = _kept(f"likely {key}", lambda: likely_group_field(view)) or BY_FOLDER
            last = form.last("group_field", self.likely)
            self.default = last if last in (BY_FOLDER, *self.names) else self.likely
            self.group_field = read_text(form.ctx, "group_field", self.default)
            chosen = None if self.group_field == BY_FOLDER else self.group_field
            self.groups = _kept(f"groups {chosen} {key}", lambda: survey(view, chosen))
        except UmscosodError as error:
            self.problem = str(error)

    @property
    def n_images(self) -> int:
        """Images with a group."""
        return self.groups.n_images if self.groups else 0

    def add_group_choice(self) -> None:
        """Offer the folder and every field that may name groups as ``group_field``; preselect the likely one."""
        words = {BY_FOLDER: "the folder an image lies in", **{name: name for name in self.names}}
        self._form.proposals(
            "group_field",
            words,
            self.likely,
            label="Group by",
            description="Images with one value are searched together for what they share",
        )

    def add_headline(self, *, stages: tuple[str, ...] = (), train: bool = False) -> None:
        """Show the samples and the time of the named stages; then warn of irregular groups."""
        if self.groups is None:
            self._form.error("groups_problem", self.problem)
            return
        config = config_or_none(self._form.ctx)
        parts = [count_of(self.n_images, "image"), f"{count_of(len(self.groups.sizes), 'group')}{self._sizes()}"]
        if config is not None and stages:
            parts.append(features_in_words(config))
            found = estimate_stages(self.n_images, config, train=train, n_groups=len(self.groups.sizes))
            seconds = sum(found.get(stage, 0.0) for stage in stages)
            parts.append(f"about {in_words(seconds)}" if seconds >= 60 else "less than a minute")
        if self.n_images:
            self._form.notice("outlook", ", ".join(parts))
        self._add_warnings()

    def _sizes(self) -> str:
        sizes = [str(size) for size in self.groups.sizes.values()]
        more = ", ..." if len(sizes) > _SHOWN else ""
        return f" ({', '.join(sizes[:_SHOWN])}{more})" if len(sizes) > 1 else ""

    def _add_warnings(self) -> None:
        groups, form = self.groups, self._form
        is_folder = self.group_field == BY_FOLDER
        if not groups.sizes:
            empty = f"No image here has a value in {self.group_field!r}: choose what else names the groups"
            form.error("groups_problem", empty if groups.ungrouped else "There are no images here")
            return
        if len(groups.sizes) == 1 and not is_folder:
            form.warning("one_group", "There is one group: right only if all images show the same kind of thing")
        elif len(groups.sizes) == 1:
            text = "All images lie in one folder, so they are one group: right only if all show the same kind of thing"
            form.warning("one_group", f"{text}. Else group them first, with the operator 'group images by class'")
        if len(groups.sizes) > MANY_GROUPS:
            text = f"{len(groups.sizes)} groups are many: does {self.group_field!r} name what the images show?"
            form.warning("many_groups", text)
        if groups.n_single:
            is_are = "is" if groups.n_single == 1 else "are"
            text = f"{count_of(groups.n_single, 'image')} {is_are} alone in a group: nothing says what recurs there"
            form.warning("single_images", text)
        if groups.ungrouped:
            is_are = "has no value" if groups.ungrouped == 1 else "have no value"
            text = f"{count_of(groups.ungrouped, 'image')} {is_are} in {self.group_field!r} and will be left out"
            form.warning("ungrouped", text)


def open_form(operator: Any, inputs: Any, ctx: Any) -> tuple[Form, Outlook]:
    """Create the form of an operator that works on groups of samples."""
    form = Form(inputs, ctx, operator.NAME)
    return form, Outlook(form)


def features_in_words(config: PipelineConfig) -> str:
    """Name the features that the settings select on this machine, in words."""
    name = config.features.backbone
    if name not in BACKBONES:  # one that another package brings
        return f"{name} features"
    if not first_width(config.features):
        return "weight-free features"
    return "vision transformer features" if name == "auto" else f"{BACKBONES[name].split(':')[0]} features"


def features_used(ctx: Any) -> str:
    """Return the name of the features that a form's settings select on this machine; empty if it is unknown."""
    config = config_or_none(ctx)
    return "" if config is None or config.features.weights else first_name(config.features)


def config_or_none(ctx: Any) -> PipelineConfig | None:
    """Return the settings of the form; None if they are invalid, which the form reports elsewhere."""
    try:
        return read_config(ctx)
    except UmscosodError:
        return None


def _kept(key: str, make: Callable[[], Any]) -> Any:
    """Return the recent value for a key, else make a new one."""
    now_s = time.monotonic()
    made_s, value = _CACHE.get(key, (-KEPT_S, None))
    if now_s - made_s >= KEPT_S:
        value = make()
        while len(_CACHE) >= _MOST:
            _CACHE.pop(next(iter(_CACHE)), None)
        _CACHE[key] = (now_s, value)
    return value
