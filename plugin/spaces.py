"""Handles the App's layout and grid: our panels, and the user's view."""

from collections.abc import Iterator
from typing import Any


def open_panels(space: Any, name: str) -> list[str]:
    """Return the ids of the panels with a name in the App's layout; none if `space` is None (a call from Python)."""
    if getattr(space, "type", None) == name:
        return [str(space.component_id)]
    return [panel for child in getattr(space, "children", None) or [] for panel in open_panels(child, name)]


def show_panel(ctx: Any, uri: str, *, layout: str = "horizontal") -> Iterator[Any]:
    """Open a panel of ours beside the grid, or bring it to the front and refresh it; the grid does not change.

    A generator yields from it; another operator exhausts it.
    """
    name = uri.rpartition("/")[2]
    for panel_id in open_panels(getattr(ctx, "spaces", None), name):
        # an open panel would keep its contents: opening it only brings it to the front
        yield ctx.trigger(uri, {"panel_id": panel_id, "__method__": "on_load"})
    yield ctx.ops.open_panel(name, layout=layout, is_active=True)
    yield from keep_filters(ctx)


def keep_filters(ctx: Any) -> Iterator[Any]:
    """Turn the side bar's filters into stages of the view.

    The App resets these filters whenever it reads the data set again, for example when a panel opens or a field is
    added: the server then gives the data set another id (FiftyOne 1.22, `serialize_dataset`).
    """
    if _filters(ctx):
        see_filters(ctx)
        yield ctx.ops.set_view(ctx.view)


def see_filters(ctx: Any) -> None:
    """Make ``ctx.view`` the view of the grid: with the name of a saved view it omits the filters (FiftyOne 1.22).

    The request has the stages of that view beside its name.
    """
    if _filters(ctx):
        ctx.request_params["view_name"] = None


def chosen_view(ctx: Any) -> Any:
    """Return the samples that a form applies to; with several sensors, those of the slice that the grid shows."""
    see_filters(ctx)
    view = ctx.target_view()
    is_sensors = getattr(view, "media_type", None) == "group" and not view._is_dynamic_groups
    if is_sensors and getattr(ctx, "spaces", None) is not None:
        return ctx.target_view(require_flat=True)
    return view


def _filters(ctx: Any) -> Any:
    return (getattr(ctx, "request_params", None) or {}).get("filters")
