"""Writes files atomically, locks folders, and checks places for results."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from umscosod.errors import DataError, reason_of

logger = logging.getLogger(__name__)

LONGEST = 255
"""Largest number of bytes in a name on ext4, APFS and most other file systems."""
LONGEST_PATH = 4000
"""Largest number of bytes in a path that Linux surely accepts (4095), less room for a temporary file's name."""
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside it; rename it when the block ends without an error.

    Parent folders are made. A reader never sees part of a file, even if the run is killed. If the block raises, an
    earlier file stays.

    Yields
    ------
    binary file, open for writing

    Raises
    ------
    DataError
        The folder or file cannot be written.
    """
    # a name independent of the file's own, which may already have the maximum length
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            yield stream
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {reason_of(error)}; check the folder and the disk") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def open_regular(path: str | Path) -> FileIO:
    """Open a file to read it, without a buffer: a FIFO is never waited for.

    Raises
    ------
    OSError
        It is no regular file, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return FileIO(descriptor)


def why_unreadable(path: Path) -> str:
    """Return why a path cannot be read as a file, in the system's words; empty if it can. Never waits for a FIFO."""
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:
        return reason_of(error)
    return "" if is_regular else "not a regular file"


def read_json(file: Path, max_bytes: int | None = None) -> Any:
    """Read a JSON file of ours, which may be damaged; the caller checks the content.

    Parameters
    ----------
    file : Path
    max_bytes : int, optional
        A longer file counts as damaged.

    Raises
    ------
    DataError
        The file is missing, no regular file, too long, or no JSON: binary, truncated, nested too deeply, or with a
        number of thousands of digits. The message names the file and the reason; the remedy depends on the file.
    """
    if reason := why_unreadable(file):
        raise DataError(f"{file} cannot be read: {reason}")
    try:
        if max_bytes is not None and file.stat().st_size > max_bytes:
            raise ValueError(f"it has more than {max_bytes >> 20} MiB")
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is damaged ({describe_damage(error)})") from error


def is_leftover(name: str) -> bool:
    """Whether a file name is a temporary name of `open_atomic`.

    Examples
    --------
    >>> is_leftover(".0123456789abcdef0123456789abcdef.tmp"), is_leftover("notes.tmp")
    (True, False)
    """
    return _TEMPORARY.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed writers in a folder and below it; links are not followed.

    No process may be writing there. A missing folder has no such files.

    Raises
    ------
    DataError
        A file cannot be removed.
    """
    waiting = [] if folder.is_symlink() else [folder]
    while waiting:  # os.walk is recursive, and folders may nest deeply
        try:
            with os.scandir(waiting.pop()) as found:
                entries = list(found)
        except OSError:  # missing, or not readable for us
            continue
        waiting += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        files = [Path(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False)]
        for path in (path for path in files if is_leftover(path.name)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise DataError(f"cannot remove {path}: {error.strerror}; check the folder's owner") from error


def remove_listed(folder: Path, names: Iterable[str]) -> None:
    """Remove files of a folder by their relative POSIX names, and then its empty folders.

    Nothing is removed through a link below `folder`; `folder` itself may be a link. A linked folder and its contents
    stay. A link in the place of a file is removed, but its target stays. Missing names and folders are skipped.

    Raises
    ------
    OSError
        A file cannot be removed.
    """
    is_link: dict[Path, bool] = {}
    for name in names:
        path = folder / name
        between = [folder / parent for parent in PurePosixPath(name).parents if parent.name]
        is_link |= {parent: parent.is_symlink() for parent in between if parent not in is_link}
        if not any(is_link[parent] for parent in between) and (path.is_symlink() or path.is_file()):
            path.unlink(missing_ok=True)
    for parent in sorted(is_link, key=lambda path: len(path.parts), reverse=True):
        is_linked = any(is_link.get(above, False) for above in (parent, *parent.parents))
        if not is_linked and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()


def describe_damage(error: Exception) -> str:
    """Describe the damage of a JSON file from its reader's error, without Python's own advice.

    Examples
    --------
    >>> describe_damage(KeyError("schema")), describe_damage(RecursionError("maximum recursion depth exceeded"))
    ("it lacks 'schema'", 'it is nested too deeply')
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return str(error).partition("; use sys.")[0]  # Python adds it for integers of thousands of digits


_PATIENCE_S, _PAUSE_S = 0.25, 0.02
"""How long a lock is tried, and the pause between two attempts: `is_held` holds a lock for a moment."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder until the block ends, or until this process ends in any way.

    Parameters
    ----------
    folder : Path
        Created if missing. The lock is on the folder itself (``flock``), not on a file in it. So reading stays
        possible, no lock file is left behind, and a folder without write permission can be locked too.

    Raises
    ------
    DataError
        Another job holds the folder, or it cannot be made.

    Notes
    -----
    The lock is not reentrant: it also refuses the thread that holds the folder. If a file system cannot lock folders
    (some network shares, Windows), a warning says so and the block runs without protection.
    """
    descriptor = _acquire(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)  # closing releases the lock


def is_held(folder: Path) -> bool:
    """Whether any process, also this one, holds a folder now; true if folders cannot be locked, as it is unknown.

    No process holds a missing folder.
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
    except OSError:  # held, or folders cannot be locked
        return True
    finally:
        os.close(descriptor)
    return False


def _acquire(folder: Path) -> int | None:
    """Open and lock; return None if folders cannot be locked."""
    if sys.platform == "win32":
        logger.warning("folders cannot be locked on Windows; never start two jobs on %s", folder)
        return None
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)  # not inherited by the programs that a job starts
        except OSError as error:
            raise DataError(f"cannot write {folder}: {reason_of(error)}; check the folder and the disk") from error
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
        # removed between opening and locking, and perhaps created again: lock the new one


def _lock(descriptor: int, folder: Path) -> bool:
    """Lock an open folder; return False, with a warning, if folders cannot be locked."""
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
    """Whether the name still belongs to the opened folder."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


OWN_FOLDERS = ("masks", "maps", "thumbs", "run")
"""Folders of a job's results; ``overwrite`` removes their files that the record lists."""
OWN_FILES = ("report.json", "index.html")
GUARDED = (*OWN_FOLDERS, "pseudo", *OWN_FILES)
"""Names that must not exist when a job begins, unless an earlier job made them. ``pseudo`` is rewritten file by file,
as a person may have put masks there."""
JOB_FILE = Path("run", "job.json")
EXPORT_FILE = "export.json"
_SHOWN = 100  # letters to show of a name that is too long
_TILES = ("image", "pseudo", "map", "mask")
_COMPLETE = frozenset({"report.json", "index.html", "masks"})
_ARTICLES = {"job": "a job", "export": "an export", "bench": "a bench"}
_BENCH = frozenset({"bench.json", "bench.md", "index.html"})


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path without links; a dangling or circular link, or a path with a NUL, stays as it is.

    ``Path.resolve`` raises a RuntimeError for a circular link.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        return Path(os.path.abspath(path))  # noqa: PTH100 - without a look at the disk


def kind_of_results(folder: Path) -> str:
    """Return the kind of this program's results: ``"job"``, finished or not, ``"export"``, ``"bench"``; else ``""``.

    A folder of results is not searched for images. A damaged ``run/job.json`` counts too; a file that
    clearly belongs to another program does not.
    """
    names = _names_in(folder)
    if names >= _COMPLETE or ("run" in names and _is_job(folder / JOB_FILE)):
        return "job"
    if EXPORT_FILE in names and _is_export(folder):
        return "export"
    return "bench" if names >= _BENCH else ""


def is_job_record(content: object) -> bool:
    """Whether this is the content of a ``run/job.json``."""
    return isinstance(content, dict) and all(isinstance(content.get(name), dict) for name in ("settings", "bound"))


def thumb_names(output: str) -> tuple[str, ...]:
    """Return the names that the contact sheet may give to thumbnails of an output, below the output folder."""
    return tuple(PurePosixPath("thumbs", tile, output).with_suffix(".jpg").as_posix() for tile in _TILES)


def check_place(out: str | os.PathLike[str], kind: str = "", what: str = "--out") -> None:
    """Refuse a place for results that cannot be a folder, or is among the results of this program.

    Parameters
    ----------
    out : path
        Need not exist.
    kind : str
        Kind of the new results; see `kind_of_results`.
    what : str
        The user's name for the place.

    Raises
    ------
    DataError
        The path is empty, has a NUL, is a file or below one, is a circular link, holds results of another kind, or is
        in the folders of an earlier job or export.
    """
    name = os.fspath(out)
    if not name:
        raise DataError(f"{what} '' is empty; name a folder")
    if "\x00" in name:
        raise DataError(f"{what} {name!r} has a NUL; choose another name")
    if len(os.fsencode(name)) > LONGEST_PATH:
        raise DataError(f"{what} {name[:_SHOWN]}... has {len(os.fsencode(name))} bytes; choose a shorter name")
    for path in (Path(name), *Path(name).parents):
        if len(os.fsencode(path.name)) > LONGEST:
            raise DataError(f"{what} {name} has a part of more than {LONGEST} bytes; choose a shorter name")
        if os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises on some names
            found = "a link that leads to no folder" if path.is_symlink() else "a file, not a folder"
            raise DataError(f"{what} {name}: {path} is {found}; choose another {what}")
    present = kind_of_results(Path(name))
    if kind and present not in ("", kind):
        raise DataError(f"{what} {name} holds the results of {_ARTICLES[present]}; choose another {what}")
    real = real_path(name)
    for parent in real.parents:
        below = real.relative_to(parent).parts[0]
        if (below in GUARDED and _is_job(parent / JOB_FILE)) or _is_export(parent):
            raise DataError(f"{what} {name} lies among the results in {parent}; choose another {what}")


def _names_in(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as found:
            return frozenset(entry.name for entry in found)
    except OSError:  # the walk that lists the folder next reports it
        return frozenset()


def _is_job(file: Path) -> bool:
    content = _read(file)
    return content is _DAMAGED or is_job_record(content)


def _is_export(folder: Path) -> bool:
    content = _read(folder / EXPORT_FILE)
    return isinstance(content, dict) and isinstance(content.get("files"), list) and "format" in content


_DAMAGED = object()


def _read(file: Path) -> Any:
    """Return the content of a JSON file; None if there is no such file."""
    if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises where a folder may not be looked into
        return None
    try:
        return read_json(file)
    except DataError:
        return _DAMAGED
