"""The feature cache's folder: where it is, which files in it are the cache's own, and how their sizes are told."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from umscosod.errors import CacheError

SUFFIX = ".safetensors"
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
        ``$UMSCOSOD_CACHE``; else ``umscosod/features`` in ``$XDG_CACHE_HOME`` (ignored unless absolute, as the XDG
        base directory specification demands) or ``~/.cache``, ``~/Library/Caches`` (macOS), ``%LOCALAPPDATA%``
        (Windows). Not created here.

    Raises
    ------
    CacheError
        The user has no home folder.
    """
    if chosen := os.environ.get("UMSCOSOD_CACHE"):
        return expand_root(chosen)
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    local = os.environ.get("LOCALAPPDATA", "")
    if Path(xdg).is_absolute():
        base = Path(xdg)
    elif sys.platform == "win32" and local:
        base = Path(local)
    else:
        base = expand_root("~") / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return base / "umscosod" / "features"


def expand_root(root: str | Path) -> Path:
    """Replace a leading ``~``; CacheError where there is no such user, or no file system takes the name."""
    if "\0" in str(root):
        raise CacheError(f"feature cache: the folder's name {str(root)!r} holds a NUL character; {CURE}")
    try:
        return Path(root).expanduser()
    except RuntimeError as error:
        raise CacheError(f"feature cache: no home folder for {str(root)!r} ({error}); {CURE}") from error


def is_key(key: str) -> bool:
    """Whether a text is a key: 64 hexadecimal digits."""
    return _KEY.fullmatch(key) is not None


def entry_path(root: Path, key: str) -> Path:
    """Where an entry lies: in a folder of the first two digits of its key."""
    return root / key[:2] / f"{key}{SUFFIX}"


def temporary_path(path: Path) -> Path:
    """Make a name that no other writer uses, beside an entry."""
    return path.parent / f".{path.stem[:16]}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


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
            key = temporary[1] if temporary else name.removesuffix(SUFFIX)
            is_ours = temporary or (name.endswith(SUFFIX) and is_key(key))
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
