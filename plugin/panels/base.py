"""What all panels share: an event that comes too early changes nothing."""

from typing import Any

import fiftyone.operators as foo


class BasePanel(foo.Panel):
    """A panel whose `on_load` sets some state."""

    def execute(self, ctx: Any) -> Any:
        """Handle an event, but for changes told of before the App knows the state that `on_load` set (FiftyOne 1.22).

        Such an event would draw the panel without its state, over what `on_load` drew.
        """
        if str(ctx.params.get("__method__")).startswith("on_change") and not ctx.panel_state:
            return None
        return super().execute(ctx)
