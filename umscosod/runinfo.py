"""The record of a run: what was asked for, with which versions, on which machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umscosod.config import PipelineConfig
from umscosod.config.io import config_to_dict
from umscosod.data.files import open_atomic
from umscosod.export.report import package_versions

SCHEMA = 1
"""Version of the record's structure; goes up when a field is renamed or removed."""
_CHECKOUT = Path(__file__).resolve().parent.parent
_GIT_TIMEOUT_S = 10.0


def collect_run_info(
    config: PipelineConfig, argv: Sequence[str] = (), *, device: str = "", timings_s: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Collect what one would ask of a result a year later.

    Parameters
    ----------
    config : PipelineConfig
        Resolved; its seed is repeated at the top.
    argv : sequence of str
        The command line, or empty for a call from Python.
    device : str
        The device really used, ``""`` for that of the configuration.
    timings_s : mapping of str to float, optional
        Seconds by stage. Leave out where two runs must give equal bytes.

    Returns
    -------
    dict
        Of what JSON knows: ``schema``, ``versions``, ``git`` (None outside a checkout), ``platform``, ``cpu_count``,
        ``device``, ``seed``, ``argv``, ``config`` and, if given, ``timings_s``. No dates and no host name.
    """
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "versions": package_versions(),
        "git": git_state(_CHECKOUT),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device": device or config.device,
        "seed": config.seed,
        "argv": list(argv),
        "config": config_to_dict(config),
    }
    if timings_s is not None:
        record["timings_s"] = {stage: round(seconds, 3) for stage, seconds in timings_s.items()}
    return record


def write_run_info(path: Path, info: Mapping[str, Any]) -> None:
    """Write the record as JSON, whole or not at all.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    # ASCII only: an argument that is no valid text on this system must not lose the record
    text = json.dumps(info, indent=1, ensure_ascii=True) + "\n"
    with open_atomic(path) as stream:
        stream.write(text.encode("ascii"))


def git_state(checkout: Path) -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it.

    Parameters
    ----------
    checkout : Path
        Root of a working tree. Trees further up are not looked at: an installed package may lie inside one of the
        user's own, which says nothing about this code.

    Returns
    -------
    dict or None
        ``{"sha": ..., "dirty": ...}``; None where there is no checkout, no git, or no commit.
    """
    if not (checkout / ".git").exists():
        return None
    sha = _git(checkout, "rev-parse", "HEAD")
    if not sha:
        return None
    return {"sha": sha, "dirty": bool(_git(checkout, "status", "--porcelain", "--untracked-files=no"))}


def _git(checkout: Path, *arguments: str) -> str:
    """Output of a git command; ``""`` where it fails in any way: provenance is worth no error."""
    try:
        done = subprocess.run(  # the user's git, on the checkout of this package  # nosec B603 B607
            ["git", "-C", str(checkout), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_TIMEOUT_S,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
