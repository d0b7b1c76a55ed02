"""Adds the form fields that only one step of the method needs: masks to learn from, network, soft maps."""

import re

import fiftyone as fo

from umscosod.config import PseudoConfig
from umscosod.errors import count_of

from ..forms import Form, mask_fields, names_as_words
from ..outlook import features_used
from ..settings import get_help

CLUSTERING, COCO_FILE, FIELD = "clustering", "COCO file", "field"
MASK_SOURCES = {
    CLUSTERING: "Found in each image by what looks alike (default)",
    COCO_FILE: "Read from a COCO file, such as HASSOD's results",
    FIELD: "Taken from a detections field with masks",
}
_ID = re.compile(r":|-v\d")  # text after the name of the features in a network's record


def add_mask_source(form: Form) -> None:
    """Ask for the source of the instance masks."""
    chosen = form.choice(
        "proposer",
        MASK_SOURCES,
        CLUSTERING,
        is_radio=True,
        label="Single objects",
        description="How objects are cut out of single images, before groups are looked at",
    )
    if chosen == COCO_FILE:
        help_text = get_help(PseudoConfig, "detections")
        form.text("detections", label="COCO file", required=True, description=help_text)
    elif chosen == FIELD:
        names = form.dataset.get_field_schema(embedded_doc_type=fo.Detections)
        first = min(names, default="")
        form.choice("detections_field", names_as_words(names), first, label="Detections field", required=True)


def add_lessons(form: Form) -> bool:
    """Ask for the masks to learn from; return whether there are also accepted masks."""
    from umscosod.integrations.fiftyone.runs.fields import REVIEWED

    fields = [name for name in mask_fields(form.dataset) if name != REVIEWED]
    has_reviewed = form.dataset.has_field(REVIEWED)
    words = names_as_words(fields)
    if has_reviewed:
        words["-"] = "accepted masks alone"
    made = [name for name in fields if form.dataset.has_field(f"{name}_status")]  # not a ground truth
    default = next((name for name in ("pseudo", "cosal", *made) if name in made), "-" if has_reviewed else "pseudo")
    name = form.proposals(
        "labels",
        words,
        default,
        label="Masks to learn from",
        description="Such as pseudo-masks; samples with a rejected mask are left out. '-': accepted masks alone",
    )
    if name not in words:
        cure = "run 'generate pseudo-masks' or 'label' first, or choose another field"
        form.error("labels_problem", f"There is no mask field {name!r}: {cure}")
    elif has_reviewed and name != "-":
        form.notice("labels_note", "Masks that a person accepted take the place of the others")
    return has_reviewed


def add_use_reviewed(form: Form) -> None:
    """Ask whether to learn from accepted masks."""
    form.flag(
        "use_reviewed",
        True,
        label="Use accepted masks",
        description="Masks in the field 'reviewed' take the place of the others, with full weight",
    )


def add_network_choice(form: Form) -> None:
    """Offer the networks of all data sets, the newest first; preselect the newest that fits the features."""
    from umscosod.integrations.fiftyone import list_networks

    words, needs = {}, {}
    for network in list_networks():
        name = network.key if network.dataset == form.dataset.name else network.name
        needs[name] = ", ".join(dict.fromkeys(_ID.split(backbone)[0] for backbone in network.backbones))
        words[name] = f"{name} ({needs[name]}, {count_of(network.n_samples, 'image')}, {network.created[:10]})"
    used = features_used(form.ctx)
    fitting = (name for name in words if used in ("", needs[name].split(",")[0]))
    name = form.proposals(
        "checkpoint",
        words,
        next(fitting, next(iter(words), "")),
        label="Network",
        required=True,
        description="A run that trained, of any data set, or the path of a checkpoint or of an output folder",
    )
    if not words:
        form.notice("no_networks", "No network was trained yet: run 'train', or 'label' with training; or type a path")
    elif name in needs and used not in ("", needs[name].split(",")[0]):
        text = f"This network needs the features {needs[name]}, and {used} would be used: choose them under Advanced"
        form.warning("network_note", text)


def add_source(form: Form) -> None:
    """Ask for the run whose soft maps to refine."""
    schema = form.dataset.get_field_schema(embedded_doc_type=fo.Heatmap)
    names = sorted(name.removesuffix("_map") for name in schema if name.endswith("_map"))
    default = "cosal" if "cosal" in names or not names else names[0]
    name = form.proposals("source", names_as_words(names), default, label="Run", description="Its soft maps are cut")
    if not names:
        form.error("source_problem", "No run here has soft maps: run 'label' or 'predict' first")
    elif name not in names:
        form.error("source_problem", f"The run {name!r} has no soft maps; choose one of {', '.join(names)}")
