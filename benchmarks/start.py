"""Processor time until ``umscosod --help`` has printed.

Run ``python -m benchmarks.start``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.rows import Given, Row, show, time_once

HELP = [sys.executable, "-m", "umscosod", "--help"]


def rows(given: Given) -> Iterator[Row]:
    """Measure, after one call that compiles what was not compiled."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ask = partial(subprocess.run, HELP, check=True, stdout=subprocess.DEVNULL, env=environment)
    seconds = [time_once(ask).processor for _ in range(3 if given.is_quick else 8)]
    yield Row(name="`umscosod --help`, processor time", target=0.6, better="lower", unit="s", figure=min(seconds[1:]))


if __name__ == "__main__":
    show(rows(Given(images=Path())))
