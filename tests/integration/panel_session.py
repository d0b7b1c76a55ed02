"""A panel as the App calls it: event by event, on a real data set, without a browser."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators.executor import ExecutionContext, Executor

URI = "@umscosod/umscosod"
ACTIVE = ["cls", "other", "ground_truth", "cosal"]
"""Fields drawn in the grid when an event comes."""


class PanelSession:
    """An open panel: its state lives on from event to event, as the App keeps it."""

    def __init__(self, dataset: Any, panel: str = "review_masks") -> None:
        self.dataset = dataset
        self.panel = foo.get_operator(f"{URI}/{panel}")
        self.state: dict[str, Any] = {}
        self.asked: dict[str, Any] = {}

    def send(
        self,
        event: str,
        selected: tuple[str, ...] = (),
        current_sample: str | None = None,
        *,
        view: Any = None,
        view_name: str | None = None,
        filters: Any = None,
        **params: Any,
    ) -> Any:
        """Call one event; `asked` then holds what the panel wants of the App."""
        self.dataset.reload()
        executor = Executor()
        request = {
            "dataset_name": self.dataset.name,
            "selected": list(selected),
            "current_sample": current_sample,
            "active_fields": ACTIVE,
            "view": [] if view is None else view._serialize(),
            "view_name": view_name,
            "filters": filters,
            "params": {"panel_id": "one", "panel_state": self.state, "__method__": event, **params},
        }
        ctx = ExecutionContext(request, executor=executor, operator_uri=self.panel.uri)
        self.panel.execute(ctx)
        self.state = ctx.panel_state
        self.asked = [
            (each["operator_uri"].rpartition("/")[2], each["params"]) for each in executor.to_json()["requests"]
        ]
        return dict(self.asked)

    @property
    def names(self) -> list[str]:
        return [row["name"] for row in self.state["table"]]
