"""Encoded features on disk, by content.

One safetensors file per image and backbone at ``ROOT/ab/KEY.safetensors``: no pickle, any number of writing
processes, and a killed writer leaves at most a temporary file that `FeatureCache.prune` sweeps up. Images at addresses
are copied to ``ROOT/ab/KEY.image``, see `umscosod.features.remote`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from umscosod.errors import CacheError, reason_of

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
COPY = ".image"
CURE = "set --config.features.cache-dir or UMSCOSOD_CACHE to another folder, or pass --config.features.no-use-cache"
_KEY = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"[0-9a-f]{2}")
_TEMPORARY = re.compile(r"\.([0-9a-f]{16})\.[0-9]+\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheFile:
    """A file of the cache's own: an entry, or what a killed writer left of one."""

    path: Path
    status: os.stat_result
    is_temporary: bool


def default_root() -> Path:
    """Folder used where none is given.

    Returns
    -------
    Path
        ``$UMSCOSOD_CACHE``; else ``features`` in `user_folder`. Not created here.

    Raises
    ------
    CacheError
        The user has no home folder.
    """
    if chosen := os.environ.get("UMSCOSOD_CACHE"):
        return expand_root(chosen)
    return user_folder() / "features"


def user_folder() -> Path:
    """Our folder among the user's caches.

    Returns
    -------
    Path
        ``umscosod`` in ``$XDG_CACHE_HOME`` (ignored unless absolute, as the XDG base directory specification demands)
        or ``~/.cache``, ``~/Library/Caches`` (macOS), ``%LOCALAPPDATA%`` (Windows). Not created here.

    Raises
    ------
    CacheError
        The user has no home folder.
    """
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    local = os.environ.get("LOCALAPPDATA", "")
    if Path(xdg).is_absolute():
        base = Path(xdg)
    elif sys.platform == "win32" and local:
        base = Path(local)
    else:
        base = expand_root("~") / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return base / "umscosod"


def expand_root(root: str | Path) -> Path:
    """Replace a leading ``~``; CacheError where there is no such user, or no file system takes the name."""
    if "\0" in str(root):
        raise CacheError(f"feature cache: the folder's name {str(root)!r} holds a NUL character; {CURE}")
    try:
        return Path(root).expanduser()
    except RuntimeError as error:
        raise CacheError(f"feature cache: no home folder for {str(root)!r} ({error}); {CURE}") from error


def iter_cache_files(root: Path) -> Iterator[CacheFile]:
    """List the cache's own files: by the names that it gives, in its own folders, never through a link.

    Other files in its folder belong to somebody else. A folder that does not exist has none.

    Raises
    ------
    CacheError
        `root` is no folder, or a folder may not be listed.
    """
    for folder in _scan(root):
        if not (_FOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)):
            continue
        for file in _scan(Path(folder.path)):
            name = file.name
            temporary = _TEMPORARY.fullmatch(name)
            key = temporary[1] if temporary else name.removesuffix(SUFFIX).removesuffix(COPY)
            is_ours = temporary or (name in (key + SUFFIX, key + COPY) and _KEY.fullmatch(key))
            if not (is_ours and key.startswith(folder.name)):
                continue
            with contextlib.suppress(FileNotFoundError):  # another process may prune at the same time
                status = file.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield CacheFile(path=Path(file.path), status=status, is_temporary=temporary is not None)


def format_bytes(count: float) -> str:
    """Show a size with a unit in which it is not zero.

    Examples
    --------
    >>> [format_bytes(count) for count in (0, 999, 1500, 250_000_000, 1_234_000_000)]
    ['0 bytes', '999 bytes', '1.5 KB', '250.0 MB', '1.23 GB']
    """
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    if count >= 1e6:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e3:.1f} KB" if count >= 1e3 else f"{count:.0f} bytes"


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(f"feature cache: cannot list {folder} ({error.strerror}); check the folder") from error


# Part of every key: raise it whenever the meaning of a stored array changes, and old files are simply never found.
# 2: the checksum covers the key, and what is decoded is what was hashed.
SCHEMA = "2"
_CHECKSUM = "crc32"
_STALE_TEMPORARY_S = 3600.0
_MAKE_ROOM = f"make room (umscosod features prune --max-gb N), or {CURE}"
_MAKE_ROOM_TEMPORARY = "make room there, set TMPDIR to a folder on another disk, or leave features.use_cache on"

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneReport:
    """What `FeatureCache.prune` did: counts of files, and their sizes in bytes."""

    removed_files: int
    removed_bytes: int
    kept_files: int
    kept_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheStats:
    """State of a cache: its folder, number of entries, their bytes, and the free bytes of the disk below."""

    root: Path
    files: int
    bytes: int
    free_bytes: int


def file_sha256(path: Path) -> str:
    """Hash a file's bytes, in hexadecimal; raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def open_cache(folder: str = "", *, use_cache: bool = True) -> Iterator[FeatureCache]:
    """Open the cache that the settings name; without `use_cache`, one in a temporary folder that is removed at the end.

    Raises
    ------
    CacheError
        There is no folder to be had.
    """
    if use_cache:
        yield FeatureCache(Path(folder) if folder else None)
        return
    try:
        scratch = tempfile.TemporaryDirectory(prefix="umscosod-")
    except OSError as error:
        raise CacheError(
            f"no temporary folder for the features ({reason_of(error)}); {_MAKE_ROOM_TEMPORARY}"
        ) from error
    with scratch as root:
        yield FeatureCache(Path(root), is_temporary=True)


class Memory:
    """Arrays kept in memory until they fill a limit.

    What came first stays: a job goes over its collection again and again, in which what was used last is what it needs
    last.

    Parameters
    ----------
    most_bytes : int
    """

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._arrays: dict[Hashable, npt.NDArray[Any]] = {}

    def get(self, key: Hashable, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Give the array of a key, read-only; made where it is not there."""
        if key not in self._arrays:
            array = make()
            array.flags.writeable = False
            if array.nbytes > self._left:
                return array
            self._left -= array.nbytes
            self._arrays[key] = array
        return self._arrays[key]


class FeatureCache:
    """Arrays on disk by content key.

    Parameters
    ----------
    root : Path or None
        Folder; made at the first `put`. None: `umscosod.features.cache.default_root`.
    is_temporary : bool
        `root` is a temporary folder that the user has not chosen: messages advise accordingly.

    Raises
    ------
    CacheError
        `root` is a name that no folder can have.

    Notes
    -----
    Every entry carries a CRC-32 sum of its key and each array: a torn or rotten file, or one under another's name, is
    removed, logged, and counts as absent.
    Any number of processes may share a folder; two that write one key write the same bits, and the last one wins.
    """

    def __init__(self, root: Path | None = None, *, is_temporary: bool = False) -> None:
        self.root = default_root() if root is None else expand_root(root)
        self._cure = _MAKE_ROOM_TEMPORARY if is_temporary else _MAKE_ROOM

    @staticmethod
    def key(image_sha256: str, *parts: str) -> str:
        """Name of an entry: SHA-256 over the image's hash, `parts` (backbone id, ...) and the schema, in hexadecimal.

        The parts are joined as JSON, so that ``("ab", "c")`` and ``("a", "bc")`` differ.
        """
        text = json.dumps([SCHEMA, image_sha256, *parts])
        return hashlib.sha256(text.encode()).hexdigest()

    def path(self, key: str) -> Path:
        """Where the entry `key` lies, present or not: in a folder of the key's first two digits.

        Raises
        ------
        CacheError
            `key` is not made by `FeatureCache.key`.
        """
        if not _KEY.fullmatch(key):
            raise CacheError(f"cache key {key!r} is not 64 hexadecimal digits; make it with FeatureCache.key")
        return self.root / key[:2] / f"{key}{SUFFIX}"

    @staticmethod
    def temporary(path: Path) -> Path:
        """Where a file of the cache is written before it is whole: a name that no other writer uses."""
        return path.parent / f".{path.name[:16]}.{os.getpid()}.{secrets.token_hex(4)}.tmp"

    def size(self, key: str) -> int | None:
        """Bytes of the entry `key`; None: there is none.

        Raises
        ------
        CacheError
            It may not be asked, or is not a regular file.
        """
        path = self.path(key)
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"feature cache: cannot read {path} ({error.strerror}); {CURE}") from error
        if not stat.S_ISREG(status.st_mode):
            raise CacheError(f"feature cache: cannot read {path} (not a regular file); remove it, or {CURE}")
        return status.st_size

    def get(self, key: str, names: Collection[str] | None = None) -> Arrays | None:
        """Read an entry, or those of its arrays that are asked for, and mark it as used just now.

        Parameters
        ----------
        key : str
        names : collection of str, optional
            Arrays wanted; only they are read and checked. None: all.

        Returns
        -------
        dict of ndarray, or None
            None where there is no such entry, or its file was damaged (then it is removed and logged).

        Raises
        ------
        CacheError
            The file is there but may not be read.
        """
        path = self.path(key)
        if self.size(key) is None:
            return None
        try:
            arrays = _read(path, key, names)
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError) as error:
            logger.warning("feature cache: %s is damaged (%s); removed, to be encoded again", path, error)
            try:
                path.unlink(missing_ok=True)
            except OSError as refusal:
                logger.warning("feature cache: cannot remove the damaged %s: %s", path, refusal)
            return None
        except OSError as error:
            raise CacheError(f"feature cache: cannot read {path} ({reason_of(error)}); {CURE}") from error
        # Both stamps: pruning goes by the modification time, because a mere backup moves the access time.
        # A cache on a read-only disk is still of use, so a refusal is no error.
        with contextlib.suppress(OSError):
            os.utime(path)
        return arrays

    def put(self, key: str, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
        """Write an entry whole or not at all.

        Parameters
        ----------
        key : str
        arrays : mapping of str to ndarray
            Any shapes and plain numeric types; stored C-contiguous.
        metadata : mapping of str to str, optional
            Goes to the file's header, for people who look.

        Raises
        ------
        CacheError
            The folder cannot be made or written, or the disk is full.
        """
        path = self.path(key)
        stored = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        checksums = {f"{_CHECKSUM}.{name}": _checksum(key, name, array) for name, array in stored.items()}
        data = save(stored, metadata={**(metadata or {}), **checksums})
        temporary = self.temporary(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            reason = f"{format_bytes(len(data))}: {reason_of(error)}"
            raise CacheError(f"feature cache: cannot write {path} ({reason}); {self._cure}") from error

    def prune(self, max_bytes: int) -> PruneReport:
        """Remove the entries unused for longest until the rest fits, and temporary files older than an hour.

        Only files of `umscosod.features.cache.iter_cache_files`: whatever else lies in the folder stays.

        Parameters
        ----------
        max_bytes : int
            >= 0; 0 empties the cache. Entries of equal age go in order of their names.

        Raises
        ------
        CacheError
            `max_bytes` is negative, the folder cannot be listed, or a file may not be removed.
        """
        if max_bytes < 0:
            raise CacheError(f"feature cache: max_bytes must be >= 0, got {max_bytes}")
        files = list(iter_cache_files(self.root))
        for file in files:
            if file.is_temporary and time.time() - file.status.st_mtime > _STALE_TEMPORARY_S:
                self._remove_own(file.path)
        entries = [file for file in files if not file.is_temporary]
        entries.sort(key=lambda file: (file.status.st_mtime_ns, file.path.name))
        kept_bytes = sum(file.status.st_size for file in entries)
        removed_files = removed_bytes = 0
        for file in entries:
            if kept_bytes <= max_bytes:
                break
            self._remove_own(file.path)
            kept_bytes -= file.status.st_size
            removed_bytes += file.status.st_size
            removed_files += 1
        return PruneReport(
            removed_files=removed_files,
            removed_bytes=removed_bytes,
            kept_files=len(entries) - removed_files,
            kept_bytes=kept_bytes,
        )

    def stats(self) -> CacheStats:
        """Count the entries; a folder that does not exist yet has none.

        Raises
        ------
        CacheError
            The folder cannot be listed.
        """
        sizes = [file.status.st_size for file in iter_cache_files(self.root) if not file.is_temporary]
        return CacheStats(root=self.root, files=len(sizes), bytes=sum(sizes), free_bytes=self.free_bytes())

    def free_bytes(self) -> int:
        """Free space of the disk that holds, or would hold, the cache.

        Raises
        ------
        CacheError
            The disk cannot be asked.
        """
        try:
            folder = self.root.absolute()
            while not folder.exists() and folder != folder.parent:
                folder = folder.parent
            return shutil.disk_usage(folder).free
        except OSError as error:
            raise CacheError(
                f"feature cache: cannot ask the free space of {self.root} ({reason_of(error)}); {CURE}"
            ) from error

    def check_free(self, needed_bytes: int) -> None:
        """Refuse work whose features would not fit on the disk.

        Raises
        ------
        CacheError
            Less than `needed_bytes` are free.
        """
        free = self.free_bytes()
        if free < needed_bytes:
            raise CacheError(
                f"feature cache: about {format_bytes(needed_bytes)} are needed, but the disk of {self.root} has only "
                f"{format_bytes(free)} free; {self._cure}"
            )

    def _remove_own(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(
                f"feature cache: cannot remove {path} ({reason_of(error)}); check the folder's owner"
            ) from error


def _checksum(key: str, name: str, array: npt.NDArray[Any]) -> str:
    """CRC-32 of an array with its type and shape, and of the key, so that no entry passes for another."""
    crc = zlib.crc32(f"{name} {array.dtype.str} {array.shape} ".encode(), zlib.crc32(key.encode()))
    # a view as bytes: crc32 wants a flat buffer, and zero-sized or float16 arrays are no exception
    return f"{zlib.crc32(array.reshape(-1).view(np.uint8).data, crc):08x}"


def _read(path: Path, key: str, names: Collection[str] | None) -> Arrays:
    """Load and check the entry `key`, or those of its arrays that are asked for.

    Raises
    ------
    SafetensorError, ValueError
        It is torn, empty, or does not match its checksums, which cover the key.
    OSError
        It is absent or unreadable.
    """
    with safe_open(path, framework="np") as file:
        checksums = file.metadata() or {}
        arrays: Arrays = {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}
    for name, array in arrays.items():
        actual, expected = _checksum(key, name, array), checksums.get(f"{_CHECKSUM}.{name}")
        if actual != expected:
            raise ValueError(f"checksum {actual} instead of {expected}")
    return arrays
