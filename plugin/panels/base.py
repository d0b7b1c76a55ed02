"""Provides the base of all panels, which ignores events that arrive too early."""

from typing import Any

import fiftyone.operators as foo


class BasePanel(foo.Panel):
    """A panel whose `on_load` sets its state."""

    def execute(self, ctx: Any) -> Any:
        """Handle an event, except changes reported before the App knows the state that `on_load` set (FiftyOne 1.22).

        Such an event would draw the panel without its state, and overwrite what `on_load` drew.
        """
        if str(ctx.params.get("__method__")).startswith("on_change") and not ctx.panel_state:
            return None
        return super().execute(ctx)
