"""Adds the settings of the method to a form, on demand: most people need none."""

from typing import Any, get_type_hints

from fiftyone.operators import types
from typing_extensions import Doc

from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, load_config, parse_yaml
from umscosod.errors import ConfigError, UmscosodError, shorten
from umscosod.integrations.fiftyone import offered_weights

from .forms import Form, read_flag, read_text

METHODS = {
    "ums": "Masks that recur in the group, then a network trained on them (default)",
    "pseudo": "Masks that recur in the group alone: no network",
    "attention": "What stands out in each image (attention map): quick, for comparison",
    "tokencut": "TokenCut: one cut through each image, for comparison",
    "dvfdvd": "Deep ViT features: clusters over the group, for comparison",
    "scosparc": "SCoSPARC: another method that trains on the group, for comparison",
}
PRESETS = {
    "fast": "fast: good masks in minutes (default)",
    "full": "full: a larger network, trained longer; for a GPU or a night",
    "paper": "paper: as published; needs a GPU, weights and a file of instance masks",
    "smoke": "smoke: useless masks in seconds, to see that everything runs",
}
BACKBONES = {
    "auto": "Automatic: the best whose weights are on this machine (default)",
    "embedded": "Without weights: quick, runs everywhere",
    "starter": "Without weights to get: as before and a small network that comes along, for cluttered pictures",
    "dino_vitb8": "DINO ViT-B/8: most accurate, slow without a GPU",
    "dino_vits8": "DINO ViT-S/8: smaller, quicker",
    "dinov2_vitb14_reg": "DINOv2 ViT-B/14 with registers",
    "dinov2_vits14_reg": "DINOv2 ViT-S/14 with registers",
    "siglip2_vitb16": "SigLIP 2 ViT-B/16: trained with texts of people, masks are not annotation-free",
    "tipsv2_vitb14": "TIPS v2 ViT-B/14: trained with texts of people, masks are not annotation-free",
}
HERE, RAY = "here", "ray"
ENGINES = {HERE: "In this process (default)", RAY: "Ray: on the cores of this machine, or of a cluster"}
NOT_LISTED = ("auto", "embedded", "starter")  # by `weights_words`
LABELS = {
    "method": "Method",
    "preset": "Preset",
    "backbone": "Features",
    "weights": "Weight file",
    "device": "Device",
    "settings": "Other settings",
    "engine": "Where the work is done",
}
PLAIN = {"method": "ums", "preset": DEFAULT_PRESET, "backbone": "auto", "device": "auto", "engine": HERE}


def weights_words() -> dict[str, str]:
    """Name every backbone that has weights, and say whether they are on this machine."""
    try:
        offers = [offer for offer in offered_weights() if ":" not in offer.name]
    except UmscosodError:  # damaged records, which the job reports
        return {name: BACKBONES[name] for name in BACKBONES if name not in NOT_LISTED}
    words = {True: "weights are here", False: "weights are not here, {} MB"}
    return {
        offer.name: f"{BACKBONES.get(offer.name, offer.name)} ({words[offer.path is not None].format(offer.size_mb)})"
        for offer in offers
    }


def get_help(config_class: type, name: str) -> str:
    """Return the description of the field `name` of `config_class`.

    Examples
    --------
    >>> from umscosod.config import TrainConfig
    >>> get_help(TrainConfig, "epochs")
    'Passes over all groups (paper: 100).'
    """
    hint = get_type_hints(config_class, include_extras=True)[name]
    notes: tuple[Any, ...] = getattr(hint, "__metadata__", ())
    return next((note.documentation for note in notes if isinstance(note, Doc)), "")


def is_advanced(form: Form, what: str = "") -> bool:
    """Add the tick box that shows the rest of the form; `what` begins the list of its contents."""
    description = _hidden_values(form) or f"{what}Features, device, folder and everything else that can be set"
    return form.flag("advanced", label="Advanced", description=description)


def _hidden_values(form: Form) -> str:
    """List the values set behind an unticked box: they apply nevertheless."""
    given = {name: shorten(text) for name in LABELS if (text := read_text(form.ctx, name)) != PLAIN.get(name, "")}
    given = {name: text for name, text in given.items() if read_text(form.ctx, name)}
    if given and not read_flag(form.ctx, "advanced"):
        return "Set there: " + ", ".join(f"{LABELS[name]} {text}" for name, text in given.items())
    return ""


def add_method_choice(form: Form) -> str:
    """Offer every method."""
    return form.choice("method", METHODS, "ums", label=LABELS["method"])


def add_settings(form: Form) -> None:
    """Ask for preset, features, device and any other setting."""
    form.choice("preset", PRESETS, DEFAULT_PRESET, label=LABELS["preset"])
    words = {name: BACKBONES[name] for name in NOT_LISTED} | weights_words()
    form.choice(
        "backbone",
        words,
        "auto",
        label=LABELS["backbone"],
        description="How pictures are compared. The operator 'get weights' downloads those of vision transformers",
    )
    form.text(
        "weights",
        allow_empty=True,
        label=LABELS["weights"],
        description="A .safetensors or .pth file for these features; empty: the one in the caches of this machine",
    )
    form.text(
        "device", "auto", label=LABELS["device"], description="auto: a GPU where there is one; cpu, cuda, cuda:1 or mps"
    )
    add_overrides(form)


def add_engine(form: Form) -> None:
    """Ask where the work is done, and for the address of a cluster."""
    chosen = form.choice(
        "engine",
        ENGINES,
        HERE,
        label=LABELS["engine"],
        description="The masks are the same. Ray is for many images; the time at the top is that without it",
    )
    if chosen == RAY:
        form.text(
            "address",
            allow_empty=True,
            label="Address of the Ray cluster",
            description="HOST:PORT, or auto; empty: a Ray of this machine, started and ended with the job",
        )


def check_engine(form: Form) -> None:
    """Refuse an engine that cannot work, shown or hidden; whether a cluster is there, the job finds out."""
    from umscosod.integrations.fiftyone.runs.start import check_engine

    form.refuse("engine_problem", lambda: check_engine(read_engine(form.ctx)))


def read_engine(ctx: Any) -> str:
    """Read where the work is done, as `label_dataset` takes it; empty: in this process.

    Raises
    ------
    ConfigError
        It is no engine.
    """
    engine, address = read_text(ctx, "engine", HERE), read_text(ctx, "address")
    if engine not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {shorten(engine)}")
    return (address or RAY) if engine == RAY else ""


def check_settings(form: Form, section: str = "") -> None:
    """Refuse invalid settings at once, shown or hidden; settings outside a `section` have no effect in some forms."""
    from umscosod.integrations.fiftyone.runs.start import check_device, check_weights_file

    if weights := read_text(form.ctx, "weights"):
        form.refuse("weights_problem", check_weights_file, weights)
    form.refuse("device_problem", check_device, read_text(form.ctx, "device", "auto"))
    form.refuse("settings_problem", lambda: read_config(form.ctx, section=section))


def add_overrides(form: Form, example: str = "train.epochs=30") -> None:
    """Ask for settings by name."""
    form.text(
        "settings",
        allow_empty=True,
        label=LABELS["settings"],
        description=f"One a line, as on the command line: {example}",
        view=types.TextFieldView(multiline=True),
    )


def read_config(ctx: Any, fields: dict[str, Any] | None = None, *, section: str = "") -> PipelineConfig:
    """Build the configuration: preset, then the form's own `fields`, then typed or chosen values.

    Raises
    ------
    ConfigError
        A setting is unknown, out of its bounds, or outside `section`, the only one that is read.
    """
    for name in _read_overrides(ctx):
        if not name.startswith(section):
            raise ConfigError(f"{shorten(name)} has no effect here; settings of this form begin with {section!r}")
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
    """Read settings as lines ``name=value``; FiftyOne passes no mapping."""
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
