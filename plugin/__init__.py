"""FiftyOne plugin: forms around `umscosod.integrations.fiftyone`; all work is done there."""

from typing import Any

from . import _bootstrap  # noqa: F401 - first: it makes umscosod importable
from .operators.label import Label


def register(plugin: Any) -> None:
    """Hand FiftyOne our operators (it calls this at every look-up, so nothing heavy belongs here)."""
    plugin.register(Label)
