"""Images at addresses, such as ``s3://bucket/cat/1.jpg``: each is copied once into the feature cache.

The addresses are those of the user's own list. No other is asked, and none before the images are encoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from umscosod.errors import DataError, MissingDependencyError, reason_of
from umscosod.features.cache import COPY, FeatureCache
from umscosod.progress import ProgressFn
from umscosod.types import ImageGroup, ImageRef

_THREADS = 8  # most of the time they wait for the other side
_PIECE = 2**20  # bytes read at a time
_MOST_BYTES = 2**30  # of a file; a picture that large has more pixels than the limit


def place_copies(groups: Sequence[ImageGroup], cache: FeatureCache) -> tuple[ImageGroup, ...]:
    """Say where the copies of images at addresses lie, or will lie; nothing is fetched.

    Parameters
    ----------
    groups : sequence of ImageGroup
    cache : FeatureCache

    Returns
    -------
    tuple of ImageGroup
        With `ImageRef.path` in the cache for each image that has an address.

    Raises
    ------
    MissingDependencyError
        There are addresses, and fsspec or its package for such addresses is not installed.
    DataError
        fsspec knows no such addresses.
    """
    schemes = {image.address.partition("://")[0] for group in groups for image in group.images if image.address}
    for scheme in sorted(schemes):
        _check_scheme(scheme)
    if not schemes:
        return tuple(groups)

    def place(image: ImageRef) -> ImageRef:
        if not image.address:
            return image
        key = hashlib.sha256(image.address.encode()).hexdigest()
        return replace(image, path=cache.path(key).with_suffix(COPY))

    return tuple(replace(group, images=tuple(map(place, group.images))) for group in groups)


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


def fetch_ahead(images: Sequence[ImageRef], progress: ProgressFn) -> Sequence[ImageRef]:
    """Fetch what is lacking, several at a time, and give the images back.

    Parameters
    ----------
    images : sequence of ImageRef
        What fails is tried again, and told, when the image is read.
    progress : callable
        Called once per lacking image as stage ``fetch``.
    """
    lacking = [image for image in images if image.address and not image.path.exists()]
    if not lacking:
        return images
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="umscosod-fetch")
    try:
        for done, _ in enumerate(pool.map(_try, lacking)):
            progress(done + 1, len(lacking), "fetch")
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def _try(image: ImageRef) -> None:
    with contextlib.suppress(DataError):
        fetch(image)


def fetch(image: ImageRef) -> Path:
    """Copy the file of an image that has an address, whole or not at all, unless the copy is there.

    Returns
    -------
    Path
        `ImageRef.path`.

    Raises
    ------
    DataError
        It cannot be fetched, or the copy cannot be written.
    """
    if not image.address:
        return image.path
    if image.path.exists():
        with contextlib.suppress(OSError):  # a cache that is only read
            os.utime(image.path)  # `FeatureCache.prune` goes by it
        return image.path
    import fsspec

    temporary = FeatureCache.temporary(image.path)
    try:
        image.path.parent.mkdir(parents=True, exist_ok=True)
        with fsspec.open(image.address, "rb") as source, temporary.open("xb") as file:
            while piece := source.read(_PIECE):
                file.write(piece)
                if file.tell() > _MOST_BYTES:
                    raise OSError(f"the file has more than {_MOST_BYTES} bytes")
        temporary.replace(image.path)
    except Exception as error:  # each kind of address has errors of its own
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        shown = show_address(image.address)
        raise DataError(f"{shown}: cannot be fetched ({_reason(error, shown == image.address)})") from error
    return image.path


def _reason(error: Exception, is_open: bool) -> str:
    """Say why; of an address with secrets, which the text may repeat in other letters, only what cannot hold one."""
    number = getattr(error, "errno", None)  # the text beside it may be the address
    known = os.strerror(number) if isinstance(number, int) else str(getattr(error, "status", ""))
    text = reason_of(error) if is_open else known
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def show_address(address: str) -> str:
    """Show an address without what may be secret: user, password, query.

    Examples
    --------
    >>> show_address("https://me:word@host:81/cat/1.jpg?signature=abc")
    'https://host:81/cat/1.jpg'
    """
    scheme, _, rest = address.partition("://")
    host, slash, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
