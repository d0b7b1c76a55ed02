"""FiftyOne plugin: forms around `umscosod.integrations.fiftyone`; all work is done there."""

from typing import Any

from . import _bootstrap  # noqa: F401 - first: it makes umscosod importable
from .metrics import METRICS
from .operators import OPERATORS
from .panels import PANELS


def register(plugin: Any) -> None:
    """Hand FiftyOne our operators and panels (it calls this at every look-up, so nothing heavy belongs here)."""
    for each in (*OPERATORS, *METRICS, *PANELS):
        plugin.register(each)
