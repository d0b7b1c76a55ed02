"""From config dataclasses to form fields, so that each parameter is explained in one place only.

Parameters reach a form raw: missing, empty, or of a type nobody asked for. The readers here take them as they come.
"""

from typing import Any, get_args, get_type_hints

import fiftyone as fo
from fiftyone.operators import types
from typing_extensions import Doc

from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.config_io import DEFAULT_PRESET, load_config, preset_names
from umscosod.config_yaml import parse_yaml
from umscosod.errors import ConfigError, shorten

BY_FOLDER = "(folder)"
METHODS: tuple[str, ...] = get_args(get_type_hints(PipelineConfig)["method"])
BACKBONES = ("auto", "embedded", "dino_vitb8", "dino_vits8", "dinov2_vitb14_reg", "dinov2_vits14_reg", "dinov2_vits14")


def get_help(config_class: type, name: str) -> str:
    """Return what `config_class` says of its field `name`.

    Examples
    --------
    >>> from umscosod.config import TrainConfig
    >>> get_help(TrainConfig, "epochs")
    'Passes over all groups (paper: 100).'
    """
    hint = get_type_hints(config_class, include_extras=True)[name]
    notes: tuple[Any, ...] = getattr(hint, "__metadata__", ())
    return next((note.documentation for note in notes if isinstance(note, Doc)), "")


def read_text(ctx: Any, name: str, default: str = "") -> str:
    """Text parameter, stripped; the default where it is missing or empty."""
    value = ctx.params.get(name)
    return (str(value).strip() if value is not None else "") or default


def read_flag(ctx: Any, name: str, default: bool = False) -> bool:
    """Flag parameter; the default where it is missing or no truth value."""
    value = ctx.params.get(name)
    return value if isinstance(value, bool) else default


def read_number(ctx: Any, name: str, default: float) -> float:
    """Number parameter; the default where it is missing or no number."""
    value = ctx.params.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def read_group_field(ctx: Any) -> str | None:
    """Field that names the groups; None for the folder."""
    name = read_text(ctx, "group_field", BY_FOLDER)
    return None if name == BY_FOLDER else name


def add_group_choice(inputs: Any, dataset: Any) -> None:
    """Offer the image's folder and every text or Classification field as ``group_field``."""
    choices = types.AutocompleteView(allow_user_input=True)
    choices.add_choice(BY_FOLDER, label="the folder an image lies in")
    names = {
        *dataset.get_field_schema(ftype=fo.StringField),
        *dataset.get_field_schema(embedded_doc_type=fo.Classification),
    }
    for name in sorted(names - {"filepath"}):
        choices.add_choice(name, label=name)
    inputs.str(
        "group_field",
        label="Group by",
        view=choices,
        default=BY_FOLDER,
        description="Images with one value are searched together for what they share",
    )


def add_field_choice(inputs: Any, ctx: Any, default: str) -> None:
    """Ask for the output ``field``, refuse bad names at once, and say what will happen to one that exists."""
    name = read_text(ctx, "field", default)
    found = ctx.dataset.get_field(name) if name.isidentifier() else None
    problem = ""
    if not name.isidentifier() or name.startswith("_"):
        problem = "Letters, digits and '_', starting with a letter"
    elif found is not None and getattr(found, "document_type", None) is not fo.Segmentation:
        problem = f"{name!r} exists and holds something other than masks"
    # not required: beside another field that is missing, the App would call this one missing too
    inputs.str("field", label="Output field", default=default, invalid=bool(problem), error_message=problem)
    if problem:
        inputs.view("field_problem", types.Error(label=f"Output field: {problem}")).invalid = True
    elif found is not None:
        kept = (
            "replaced, but for a person's" if read_flag(ctx, "overwrite") else "kept; only samples without one are run"
        )
        inputs.view("field_note", types.Notice(label=f"{name!r} exists: its labels are {kept}"))
    inputs.bool(
        "overwrite",
        default=False,
        label="Replace labels that are there",
        description="Off: samples that have a label in the output field keep it. A person's labels are always kept",
    )


def add_mask_field_choice(inputs: Any, ctx: Any, name: str, label: str, *, default: str = "", **options: Any) -> None:
    """Offer the mask fields there are; `options` go to the input."""
    choices = types.AutocompleteView(allow_user_input=True)
    for field in sorted(ctx.dataset.get_field_schema(embedded_doc_type=fo.Segmentation)):
        choices.add_choice(field, label=field)
    inputs.str(name, label=label, view=choices, default=default or None, **options)


def add_out_dir(inputs: Any) -> None:
    """Ask for a folder, with one beside FiftyOne's own files as the default."""
    inputs.str(
        "out_dir",
        allow_empty=True,
        label="Folder for the files",
        description="Empty: a folder of the run's own beside FiftyOne's data. The labels point into it, so keep it",
    )


def add_method_choice(inputs: Any) -> None:
    """Offer every maker of maps: the whole method, its pseudo-labels alone, and methods of others."""
    methods = types.DropdownView()
    for name in METHODS:
        methods.add_choice(name, label=name)
    help_text = get_help(PipelineConfig, "method")
    inputs.enum("method", methods.values(), view=methods, default=METHODS[0], label="Method", description=help_text)


def add_settings(inputs: Any, ctx: Any) -> None:
    """Ask for preset, features and any other setting, each in the words of its config class."""
    presets = types.DropdownView()
    for name in preset_names():
        presets.add_choice(name, label=name)
    inputs.enum("preset", presets.values(), view=presets, default=DEFAULT_PRESET, label="Preset")
    backbones = types.DropdownView()
    for name in BACKBONES:
        backbones.add_choice(name, label=name)
    help_text = get_help(FeaturesConfig, "backbone")
    inputs.enum("backbone", backbones.values(), view=backbones, default="auto", label="Features", description=help_text)
    inputs.str("weights", allow_empty=True, label="Weight file", description=get_help(FeaturesConfig, "weights"))
    inputs.str("device", default="auto", label="Device", description=get_help(PipelineConfig, "device"))
    add_overrides(inputs, ctx)


def add_overrides(inputs: Any, ctx: Any, example: str = "train.epochs=30") -> None:
    """Ask for settings by name, and refuse unknown ones and values out of bounds at once."""
    inputs.str(
        "settings",
        allow_empty=True,
        label="Other settings",
        description=f"One a line, as on the command line: {example}",
        view=types.TextFieldView(multiline=True),
    )
    try:
        load_config(overrides=_read_overrides(ctx))
    except ConfigError as error:
        inputs.view("settings_problem", types.Error(label=str(error))).invalid = True


def read_config(ctx: Any, fields: dict[str, Any] | None = None) -> PipelineConfig:
    """Put the configuration together: preset, then the form's own `fields`, then what was typed in or chosen.

    Raises
    ------
    ConfigError
        A setting is unknown or out of its bounds.
    """
    chosen = {
        "features.backbone": read_text(ctx, "backbone"),
        "features.weights": read_text(ctx, "weights"),
        "device": read_text(ctx, "device"),
        "method": read_text(ctx, "method"),
    }
    given = {name: value for name, value in chosen.items() if value and value != "auto"}
    overrides = {**(fields or {}), **_read_overrides(ctx), **given}
    return load_config(read_text(ctx, "preset", DEFAULT_PRESET), overrides=overrides)


def _read_overrides(ctx: Any) -> dict[str, Any]:
    """Settings as lines ``name=value``; FiftyOne lets no mapping through."""
    overrides: dict[str, Any] = {}
    for line in read_text(ctx, "settings").splitlines():
        name, sign, value = line.partition("=")
        if not line.strip():
            continue
        if not sign:
            raise ConfigError(f"{shorten(line.strip())} is no setting; write one a line: train.epochs=30")
        try:
            overrides[name.strip()] = parse_yaml(value)
        except ConfigError as error:
            raise ConfigError(f"{shorten(name.strip(), quoted=False)}: {shorten(value.strip())} is {error}") from None
    return overrides
