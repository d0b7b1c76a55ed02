"""One job in a folder at a time: a second one, of any process or thread, is turned away at once."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from umscosod.errors import DataError, reason_of

logger = logging.getLogger(__name__)

_PATIENCE_S, _PAUSE_S = 0.25, 0.02
"""So long, and so often, a lock is tried: `is_held` holds one for a moment."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a folder until the block ends, or until this process does, however it dies.

    Parameters
    ----------
    folder : Path
        Made if missing. Nothing is written into it: the folder itself is locked (``flock``), not a file in it, so
        reading stays free, no lock is left behind, and a folder without write permission can be locked too.

    Raises
    ------
    DataError
        Somebody holds it, or it cannot be made.

    Notes
    -----
    Not reentrant: the thread that holds a folder is turned away as well. Where a file system or Windows has no locks on
    folders, such as some network shares, a warning says so and the block runs unprotected.
    """
    descriptor = _acquire(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)  # which lets go of the lock


def is_held(folder: Path) -> bool:
    """Whether somebody, this process included, holds a folder now; also where folders cannot be locked: nobody knows.

    A folder that does not exist is held by nobody.
    """
    if sys.platform == "win32":
        return True
    import fcntl  # not on Windows

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held, or no such locks
        return True
    finally:
        os.close(descriptor)
    return False


def _acquire(folder: Path) -> int | None:
    """Open and lock; None where folders cannot be locked."""
    if sys.platform == "win32":
        logger.warning("folders cannot be locked on Windows; never start two jobs on %s", folder)
        return None
    while True:
        descriptor = _open(folder)
        try:
            is_locked = _lock(descriptor, folder)
            if is_locked and _is_still(descriptor, folder):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not is_locked:
            return None
        # removed between opening and locking, and perhaps made anew: lock the new one


def _open(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder, os.O_RDONLY)  # not inherited by the programs that a job starts
    except OSError as error:
        raise DataError(f"cannot write {folder}: {reason_of(error)}; check the folder and the disk") from error


def _lock(descriptor: int, folder: Path) -> bool:
    """Lock an open folder; False, with a warning, where there are no such locks."""
    import fcntl  # not on Windows

    last_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= last_s:
                raise DataError(
                    f"{folder} is being worked on by another process (or an earlier click); wait for it or stop it"
                ) from error
            time.sleep(_PAUSE_S)
        except OSError as error:
            logger.warning("%s cannot be locked (%s); never start two jobs on it", folder, error.strerror)
            return False
        else:
            return True


def _is_still(descriptor: int, folder: Path) -> bool:
    """Whether the folder of that name is the one that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False
