"""How a run looks in the App: its mask drawn in a bright colour, its other fields in a collapsed group of their own.

Done once, when the fields are made; what a user changes afterwards stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import fiftyone as fo

from umscosod.integrations.fiftyone.runs.fields import FOREGROUND

COLOURS = ("#4c9be8", "#f0883e", "#cc79a7", "#e3b341", "#56d4bc", "#f85149")
"""Of the runs in their order; the first two are those of A and B in the panel that compares."""
GROUPED = ("_map", "_confidence", "_status", "_reason", "_review")
BEFORE = "labels"
"""Group of the side bar that a run's group follows."""


def dress_run(dataset: Any, field: str) -> None:
    """Draw the mask of a run that was just made, and no other run's, beside group and confidence.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    field : str
        Mask field of the run, with the fields that `declare_fields` adds.
    """
    config = dataset.app_config
    active = config.active_fields or fo.DatasetAppConfig.default_active_fields(dataset)
    active.paths = shown_fields(dataset, field, active.paths)
    config.active_fields = active
    _colour(config, field, len(_other_runs(dataset, field)))
    _collapse(dataset, field, [f"{field}{suffix}" for suffix in GROUPED], after=BEFORE)


def shown_fields(dataset: Any, field: str, active: Iterable[str]) -> list[str]:
    """Fields to draw so that one run's masks can be judged: no other masks on top, group and confidence as captions.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    field : str
        Mask field of the run.
    active : iterable of str
        What is drawn now; whatever is no mask and belongs to no other run stays.
    """
    hidden = {f"{run}{suffix}" for run in _other_runs(dataset, field) for suffix in GROUPED}
    for kind in (fo.Segmentation, fo.Heatmap):
        hidden.update(dataset.get_field_schema(embedded_doc_type=kind))
    wanted = (_group_path(dataset, field), field, f"{field}_confidence")
    beside = [path for path in wanted if path and dataset.has_field(path)]
    return [*(path for path in active if path not in hidden and path not in beside), *beside]


def undress(dataset: Any, name: str) -> None:
    """Remove the sidebar group of a run or an evaluation whose fields are gone."""
    dataset._delete_empty_sidebar_group(name)


def dress_evaluation(dataset: Any, key: str) -> None:
    """Put the figures of the images of an evaluation into a collapsed group; it goes with the evaluation."""
    _collapse(dataset, key, [name for name in dataset.get_field_schema() if name.startswith(f"{key}_")])


def colour_entry(path: str, colour: str) -> dict[str, Any]:
    """One field of a colour scheme, for labels and for masks.

    Examples
    --------
    >>> colour_entry("cosal", "#4c9be8")["fieldColor"]
    '#4c9be8'
    """
    return {"path": path, "fieldColor": colour, "maskTargetsColors": [{"intTarget": FOREGROUND, "color": colour}]}


def _colour(config: Any, field: str, place: int) -> None:
    """Give mask and map a colour where the user's scheme has none for them."""
    scheme = config.color_scheme or fo.ColorScheme(color_by="field")
    present = {entry.get("path"): entry.get("fieldColor") for entry in scheme.fields or []}
    free = [colour for colour in COLOURS if colour not in present.values()]
    colour = present.get(field) or (free or COLOURS)[0 if free else place % len(COLOURS)]
    new = [colour_entry(path, colour) for path in (field, f"{field}_map") if path not in present]
    scheme.fields = [*(scheme.fields or []), *new]
    config.color_scheme = scheme


def _collapse(dataset: Any, name: str, paths: Iterable[str], after: str | None = None) -> None:
    """Put fields into a group of the side bar that begins collapsed; one that is there keeps its state."""
    is_new = not dataset._has_sidebar_group(name)
    present = [path for path in paths if dataset.has_sample_field(path)]
    dataset._add_paths_to_sidebar_group(present, name, after_group=after)
    group = dataset._get_sidebar_group(name)
    if group is not None and (is_new or group.expanded is None):
        group.expanded = False
    dataset.save()


def _other_runs(dataset: Any, field: str) -> list[str]:
    masks = dataset.get_field_schema(embedded_doc_type=fo.Segmentation)
    return [name for name in masks if name != field and dataset.has_sample_field(f"{name}_status")]


def _group_path(dataset: Any, field: str) -> str | None:
    """Field that the run grouped by; None for the folder, or masks that no run of ours made."""
    from umscosod.integrations.fiftyone.runs.record import find_run

    run = find_run(dataset, field) if field in dataset.list_runs() else None
    name = getattr(run, "group_field", None)
    return str(name) if name and dataset.has_field(name) else None
