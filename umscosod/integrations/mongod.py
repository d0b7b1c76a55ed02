"""A database of one's own for FiftyOne: started here, on loopback, and ended with this process.

FiftyOne's own way joins whatever database another FiftyOne process of this user runs, in whatever folder. What must
neither touch nor depend on that one, such as the demo, starts its own and sets ``FIFTYONE_DATABASE_URI``.
"""

from __future__ import annotations

import atexit
import socket
import subprocess
import sys
import time
from pathlib import Path

from umscosod.errors import DataError, MissingDependencyError
from umscosod.integrations.database import CURE, find_mongod

_START_S = 60.0  # half a second on an idle machine
_STOP_S = 30.0
_OTHER_VERSION = 62  # mongod's exit code for data files of another version


def start_mongod(folder: Path) -> str:
    """Start FiftyOne's mongod on a folder; it is stopped when this process ends.

    Call it before FiftyOne is imported: what is registered first is ended last, and FiftyOne's own end needs a
    database.

    Parameters
    ----------
    folder : Path
        Made where missing.

    Returns
    -------
    str
        Its address, for ``FIFTYONE_DATABASE_URI``.

    Raises
    ------
    MissingDependencyError
        FiftyOne has no mongod that runs here.
    DataError
        It does not start: the folder is in use, cannot be written, or holds data of another version.
    """
    program = find_mongod()
    if program is None:
        raise MissingDependencyError(f"FiftyOne has no mongod that runs here. {CURE}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the database folder {folder}: {error}; choose another") from error
    port = _free_port()
    where = ["--dbpath", str(folder), "--logpath", str(folder / "mongod.log"), "--port", str(port)]
    where += ["--bind_ip", "127.0.0.1"] + ([] if sys.platform == "win32" else ["--nounixsocket"])
    small = ["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"]
    # A session of its own: Ctrl-C must end what uses the database before the database.
    process = subprocess.Popen(  # the database of the demo, on folders of ours  # nosec B603
        [program, *where, *small], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    atexit.register(_stop, process)
    _wait(process, port, folder)
    return f"mongodb://127.0.0.1:{port}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    """Shut it down as a system does: what was acknowledged is on disk."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
