"""Images at addresses, such as ``s3://bucket/cat/1.jpg``: each is copied once into the feature cache.

The addresses are those of the user's own list. No other is asked, and none before the images are encoded.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from umscosod.data.addresses import show_address
from umscosod.errors import CacheError, DataError, MissingDependencyError, reason_of
from umscosod.features.cache import COPY, CURE, FeatureCache
from umscosod.progress import ProgressFn
from umscosod.types import ImageGroup, ImageRef

logger = logging.getLogger(__name__)

_THREADS = 8  # most of the time they wait for the other side
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PIECE = 2**20  # bytes read at a time
_MOST_BYTES = 2**30  # of a file; a picture that large has more pixels than the limit


def fetch_copies(
    groups: Sequence[ImageGroup], cache: FeatureCache, progress: ProgressFn, *, fetches: bool = True
) -> tuple[tuple[ImageGroup, ...], dict[str, str]]:
    """Copy each image that has an address and no copy yet, several at a time.

    Parameters
    ----------
    groups : sequence of ImageGroup
    cache : FeatureCache
    progress : callable
        Called once per image to be fetched as stage ``fetch``.
    fetches : bool
        False: another process has fetched what it could.

    Returns
    -------
    tuple of ImageGroup
        With the copy as `ImageRef.path` of each image that has an address.
    dict of str to str
        Why an image could not be fetched, by its id.

    Raises
    ------
    MissingDependencyError
        There are addresses, and fsspec or its package for such addresses is not installed.
    DataError
        fsspec knows no such addresses.
    CacheError
        The disk of the cache is full, or not to be written.
    """
    schemes = {image.address.partition("://")[0] for group in groups for image in group.images if image.address}
    if not schemes:
        return tuple(groups), {}
    for scheme in sorted(schemes):
        _check_scheme(scheme)
    groups = tuple(replace(group, images=tuple(_place(image, cache) for image in group.images)) for group in groups)
    lacking = [image for group in groups for image in group.images if image.address and not _is_there(image)]
    if not fetches:
        return groups, {image.id: f"{show_address(image.address)}: could not be fetched" for image in lacking}
    reasons: dict[str, str] = {}
    stopped = threading.Event()
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="umscosod-fetch")
    try:
        for done, (image, reason) in enumerate(
            zip(lacking, pool.map(partial(_try, stopped=stopped), lacking), strict=True)
        ):
            if reason:
                reasons[image.id] = reason
                logger.warning("%s: left out: %s", image.id, reason)
            progress(done + 1, len(lacking), "fetch")
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
    return groups, reasons


def _place(image: ImageRef, cache: FeatureCache) -> ImageRef:
    """Say where the copy of an image lies, or will lie."""
    if not image.address:
        return image
    key = hashlib.sha256(image.address.encode()).hexdigest()
    return replace(image, path=cache.path(key).with_suffix(COPY))


def _is_there(image: ImageRef) -> bool:
    """Whether there is a copy, which is then in use: `FeatureCache.prune` goes by its time."""
    if not image.path.exists():
        return False
    with contextlib.suppress(OSError):  # a cache that is only read
        os.utime(image.path)
    return True


def _check_scheme(scheme: str) -> None:
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(
            f'an image at {scheme}:// needs the package fsspec; run: pip install "umscosod[remote]", or give paths'
        ) from error
    try:
        fsspec.get_filesystem_class(scheme.lower())
    except ImportError as error:
        raise MissingDependencyError(f"an image at {scheme}:// cannot be fetched: {reason_of(error)}") from error
    except ValueError as error:
        raise DataError(f"an image at {scheme}:// cannot be fetched: {reason_of(error)}; give paths") from error


def _try(image: ImageRef, stopped: threading.Event) -> str:
    """Fetch an image; why it cannot be, or nothing."""
    try:
        _fetch(image, stopped)
    except DataError as error:
        return str(error)
    return ""


def _fetch(image: ImageRef, stopped: threading.Event) -> None:
    """Copy the file of an image, whole or not at all."""
    import fsspec

    temporary = FeatureCache.temporary(image.path)
    try:
        image.path.parent.mkdir(parents=True, exist_ok=True)
        with fsspec.open(image.address, "rb") as source, temporary.open("xb") as file:
            while not stopped.is_set() and (piece := source.read(_PIECE)):
                file.write(piece)
                if file.tell() > _MOST_BYTES:
                    raise OSError(f"the file has more than {_MOST_BYTES} bytes")
        if not stopped.is_set():
            temporary.replace(image.path)
    except Exception as error:  # each kind of address has errors of its own
        if getattr(error, "errno", None) in _DISK_ERRORS:
            raise CacheError(f"feature cache: cannot write {image.path}: {reason_of(error)}; {CURE}") from error
        shown = show_address(image.address)
        raise DataError(f"{shown}: cannot be fetched ({_reason(error, shown == image.address)})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _reason(error: Exception, is_open: bool) -> str:
    """Say why; of an address with secrets, which the text may repeat in other letters, only what cannot hold one."""
    number = getattr(error, "errno", None)  # the text beside it may be the address
    known = os.strerror(number) if isinstance(number, int) else str(getattr(error, "status", ""))
    text = reason_of(error) if is_open else known
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
