"""Adds to a form the choice for an interrupted run: resume it with its settings, or start anew."""

from typing import Any

from umscosod.config import PipelineConfig
from umscosod.config.io import config_to_dict, preset_names, preset_values
from umscosod.errors import DataError, count_of

from .forms import Form, read_text
from .outlook import features_in_words
from .settings import add_engine, check_engine, read_engine

RESUME, ANEW = "resume", "anew"
WAYS = {
    RESUME: "Resume with its settings and its images",
    ANEW: "Start anew: labels that are written stay, the rest is made with the settings below",
}


def add_interrupted(form: Form, key: str) -> bool:
    """Say what was interrupted and ask how to proceed; return whether the run is resumed: then no field follows."""
    try:
        found = _find(form.dataset, key)
    except DataError as error:
        form.error("interrupted_problem", str(error))
        return False
    if found is None:
        return False
    at = f" at {found.stage}" if found.stage else ""
    known = [
        features_in_words(found.config),
        f"preset {preset_of(found.config)}",
        count_of(len(found.sample_ids), "image"),
    ]
    known += [f"begun {found.began.replace('T', ' ')[:16]} UTC"] if found.began else []
    form.warning("interrupted_note", f"{key!r} was interrupted{at} ({', '.join(known)})")
    is_resumed = form.choice("interrupted", WAYS, RESUME, is_radio=True, label="Interrupted run") == RESUME
    if is_resumed and _has_engine(found):
        add_engine(form)
        check_engine(form)
    return is_resumed


def choose_call(ctx: Any, key: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a job: the given ones, unless the form resumes or restarts an interrupted run."""
    way = read_text(ctx, "interrupted")
    found = _find(ctx.dataset, key) if way in WAYS else None
    if found is None:
        return options
    if way == ANEW:
        return {**options, "given_up": key}
    options = {**options, "engine": read_engine(ctx) if _has_engine(found) else None}  # as the form asks, of any verb
    known = {"config": found.config, "group_field": found.group_field, "train": found.settings.get("train", True)}
    return {**options, **known, "resumed": key}  # the progress bar of the job needs them


def preset_of(config: PipelineConfig) -> str:
    """Return the preset of a configuration: of those whose values it has, the one with most values.

    Examples
    --------
    >>> from umscosod.config.io import load_config
    >>> preset_of(load_config("fast", overrides={"seed": 7}))
    'fast'
    """
    plain = config_to_dict(config)

    def has(name: str, value: Any) -> bool:
        found: Any = plain
        for part in name.split("."):
            found = found[part]
        return bool(found == (list(value) if isinstance(value, tuple) else value))

    sets = {preset: preset_values(preset) for preset in preset_names()}
    fitting = [preset for preset, values in sets.items() if all(has(name, value) for name, value in values.items())]
    return max(fitting, key=lambda preset: len(sets[preset]))


def _has_engine(found: Any) -> bool:
    """Whether the work of an interrupted run can be done on Ray."""
    return bool(found.settings["verb"] == "label")


def _find(dataset: Any, key: str) -> Any:
    import umscosod.integrations.fiftyone as integration

    return integration.find_interrupted(dataset, key) if key.isidentifier() else None
