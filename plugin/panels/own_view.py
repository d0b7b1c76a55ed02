"""Shows a panel's list in the grid, and restores the user's view afterwards. The list lies within that view."""

import json
from typing import Any

import fiftyone.server.view as fosv

STORE = "umscosod/views"
STORED_FOR_S = 7 * 24 * 3600
"""Seconds for which a data set remembers the user's view: a reloaded page still shows the panel's list."""
LISTS_KEPT = 8
"""Number of a panel's last lists to remember: the App reports a change of view late, after the next list is shown."""


def note_base(ctx: Any) -> bool:
    """Store the view in the grid as the user's, unless a panel put it there; return whether it is a new one."""
    kept, name, stages = _kept(ctx), ctx.request_params.get("view_name"), _in_grid(ctx)
    if stages in kept.get("own", []) or (name, stages) == (kept.get("name"), kept.get("stages")):
        return False
    _keep(ctx, {**kept, "name": name, "stages": stages})
    return True


def base_view(ctx: Any) -> Any:
    """Return the user's view."""
    kept = _kept(ctx)
    if kept.get("name") and ctx.dataset.has_saved_view(kept["name"]):
        return ctx.dataset.load_saved_view(kept["name"])
    return fosv.get_view(ctx.dataset, stages=kept.get("stages"))


def shown_view(ctx: Any) -> Any:
    """Return the user's view with the side bar's filters, which the App adds to any view in the grid."""
    view, filters = base_view(ctx), ctx.request_params.get("filters")
    return fosv.get_view(ctx.dataset, stages=view._serialize(), filters=filters) if filters else view


def show_own(ctx: Any, view: Any) -> None:
    """Show a panel's list in the grid."""
    kept = _kept(ctx)
    _keep(ctx, {**kept, "own": [*kept.get("own", []), _plain(view._serialize())][-LISTS_KEPT:]})
    ctx.ops.set_view(view)


def restore_base(ctx: Any) -> None:
    """Restore the user's view if the grid shows a panel's list."""
    kept = _kept(ctx)
    if _in_grid(ctx) not in kept.get("own", []):
        return
    view = base_view(ctx)
    if kept.get("name") and ctx.dataset.has_saved_view(kept["name"]):
        ctx.ops.set_view(name=kept["name"])
    elif view._stages:
        ctx.ops.set_view(view)
    else:
        ctx.ops.clear_view()


def _in_grid(ctx: Any) -> list[dict[str, Any]]:
    return _plain(ctx.request_params.get("view") or [])


def _plain(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return stages as JSON has them, without the ids that the App adds."""
    plain: list[dict[str, Any]] = json.loads(
        json.dumps([{"_cls": one["_cls"], "kwargs": one["kwargs"]} for one in stages])
    )
    return plain


def _kept(ctx: Any) -> dict[str, Any]:
    text = ctx.store(STORE).get("view") if ctx.dataset is not None else None
    return dict(json.loads(text)) if text else {}


def _keep(ctx: Any, kept: dict[str, Any]) -> None:
    ctx.store(STORE).set("view", json.dumps(kept), ttl=STORED_FOR_S)  # text: stages have keys that a database refuses
