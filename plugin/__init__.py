"""The FiftyOne plugin: forms that call `umscosod.integrations.fiftyone`, which does all work."""

from typing import Any

from . import _bootstrap  # noqa: F401 - first: it makes umscosod importable
from .metrics import METRICS
from .operators import OPERATORS
from .panels import PANELS


def register(plugin: Any) -> None:
    """Register the operators and panels. FiftyOne calls this at every look-up, so nothing slow belongs here."""
    for each in (*OPERATORS, *METRICS, *PANELS):
        plugin.register(each)
