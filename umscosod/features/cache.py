"""Content-addressed store of encoded images, so that no image is ever encoded twice.

One safetensors file per image and backbone at ``ROOT/ab/KEY.safetensors``: no pickle, any number of writing
processes, and a killed writer leaves at most a temporary file that `FeatureCache.prune` sweeps up.
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
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from umscosod.errors import CacheError

logger = logging.getLogger(__name__)

# Part of every key: raise it whenever the meaning of a stored array changes, and old files are simply never found.
SCHEMA = "1"
_SUFFIX = ".safetensors"
_CHECKSUM = "crc32"
_STALE_TEMPORARY_S = 3600.0
_KEY = re.compile(r"[0-9a-f]{64}")
_CURE = "set --config.features.cache-dir or UMSCOSOD_CACHE to another folder, or pass --config.features.no-use-cache"

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


def default_root() -> Path:
    """Folder used where none is given.

    Returns
    -------
    Path
        ``$UMSCOSOD_CACHE``; else ``umscosod/features`` in ``$XDG_CACHE_HOME`` (ignored unless absolute, as the XDG
        base directory specification demands) or ``~/.cache``, ``~/Library/Caches`` (macOS), ``%LOCALAPPDATA%``
        (Windows). Not created here.

    Raises
    ------
    CacheError
        The user has no home folder.
    """
    if chosen := os.environ.get("UMSCOSOD_CACHE"):
        return Path(chosen).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    local = os.environ.get("LOCALAPPDATA", "")
    if Path(xdg).is_absolute():
        base = Path(xdg)
    elif sys.platform == "win32" and local:
        base = Path(local)
    else:
        try:
            base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
        except RuntimeError as error:
            raise CacheError(f"no home folder to keep the feature cache in; {_CURE}") from error
    return base / "umscosod" / "features"


def file_sha256(path: Path) -> str:
    """Hash a file's bytes, in hexadecimal; raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FeatureCache:
    """Arrays on disk by content key.

    Parameters
    ----------
    root : Path or None
        Folder; made at the first `put`. None: `default_root`.

    Notes
    -----
    Every entry carries a CRC-32 of its arrays: a torn or rotten file is removed, logged, and counts as absent.
    Any number of processes may share a folder; two that write one key write the same bits, and the last one wins.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else Path(root).expanduser()

    @staticmethod
    def key(image_sha256: str, *parts: str) -> str:
        """Name of an entry: SHA-256 over the image's hash, `parts` (backbone id, ...) and the schema, in hexadecimal.

        The parts are joined as JSON, so that ``("ab", "c")`` and ``("a", "bc")`` differ.
        """
        text = json.dumps([SCHEMA, image_sha256, *parts])
        return hashlib.sha256(text.encode()).hexdigest()

    def path(self, key: str) -> Path:
        """Where the entry `key` lies, present or not.

        Raises
        ------
        CacheError
            `key` is not made by `FeatureCache.key`.
        """
        if not _KEY.fullmatch(key):
            raise CacheError(f"cache key {key!r} is not 64 hexadecimal digits; make it with FeatureCache.key")
        return self.root / key[:2] / f"{key}{_SUFFIX}"

    def get(self, key: str) -> Arrays | None:
        """Read an entry and mark it as used just now.

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
        try:
            arrays = _read(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError) as error:
            logger.warning("feature cache: %s is damaged (%s); removed, to be encoded again", path, error)
            _remove(path)
            return None
        except OSError as error:
            raise CacheError(f"feature cache: cannot read {path}: {error}; {_CURE}") from error
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
        data = save(stored, metadata={**(metadata or {}), _CHECKSUM: _checksum(stored)})
        temporary = path.parent / f".{key[:16]}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise CacheError(f"feature cache: cannot write {path} ({len(data)} bytes): {error}; {_CURE}") from error

    def prune(self, max_bytes: int) -> PruneReport:
        """Remove the entries unused for longest until the rest fits, and temporary files older than an hour.

        Parameters
        ----------
        max_bytes : int
            >= 0; 0 empties the cache. Entries of equal age go in order of their names.

        Raises
        ------
        CacheError
            `max_bytes` is negative, or a file may not be removed.
        """
        if max_bytes < 0:
            raise CacheError(f"feature cache: max_bytes must be >= 0, got {max_bytes}")
        self._sweep_temporaries()
        entries = sorted(self._entries(), key=lambda entry: (entry[1].st_mtime_ns, entry[0].name))
        kept_bytes = sum(stat.st_size for _, stat in entries)
        removed_files = removed_bytes = 0
        for path, stat in entries:
            if kept_bytes <= max_bytes:
                break
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise CacheError(f"feature cache: cannot remove {path}: {error}; check the folder's owner") from error
            kept_bytes -= stat.st_size
            removed_bytes += stat.st_size
            removed_files += 1
        return PruneReport(
            removed_files=removed_files,
            removed_bytes=removed_bytes,
            kept_files=len(entries) - removed_files,
            kept_bytes=kept_bytes,
        )

    def stats(self) -> CacheStats:
        """Count the entries; a folder that does not exist yet has none."""
        sizes = [stat.st_size for _, stat in self._entries()]
        return CacheStats(root=self.root, files=len(sizes), bytes=sum(sizes), free_bytes=self.free_bytes())

    def free_bytes(self) -> int:
        """Free space of the disk that holds, or would hold, the cache.

        Raises
        ------
        CacheError
            The disk cannot be asked.
        """
        folder = self.root.absolute()
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        try:
            return shutil.disk_usage(folder).free
        except OSError as error:
            raise CacheError(f"feature cache: cannot ask the free space of {folder}: {error}; {_CURE}") from error

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
                f"feature cache: about {needed_bytes / 1e9:.2f} GB are needed, but the disk of {self.root} has only "
                f"{free / 1e9:.2f} GB free; make room (umscosod features prune --max-gb N), or {_CURE}"
            )

    def _entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.root.glob(f"[0-9a-f][0-9a-f]/*{_SUFFIX}"):
            # another process may prune at the same time
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat()

    def _sweep_temporaries(self) -> None:
        for path in self.root.glob("[0-9a-f][0-9a-f]/.*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_TEMPORARY_S:
                    path.unlink()


def _checksum(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    crc = 0
    for name in sorted(arrays):
        # a view as bytes: crc32 wants a flat buffer, and zero-sized or float16 arrays are no exception
        crc = zlib.crc32(arrays[name].reshape(-1).view(np.uint8).data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def _read(path: Path) -> Arrays:
    """Load and check one file.

    Raises
    ------
    SafetensorError, ValueError
        It is torn, empty, or does not match its checksum.
    OSError
        It is absent or unreadable.
    """
    with safe_open(path, framework="np") as file:
        expected = (file.metadata() or {}).get(_CHECKSUM)
        arrays: Arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    actual = _checksum(arrays)
    if actual != expected:
        raise ValueError(f"checksum {actual} instead of {expected}")
    return arrays


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("feature cache: cannot remove the damaged %s: %s", path, error)
