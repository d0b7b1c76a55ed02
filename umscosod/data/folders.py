"""Walk a folder of pictures: what counts as an image, what is passed over, and where benchmark layouts begin."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from umscosod.data.naming import natural_key
from umscosod.data.opening import readable_suffixes
from umscosod.errors import DataError

logger = logging.getLogger(__name__)

IMAGE_FOLDERS = ("image", "images", "img", "imgs", "ims")
"""Names (in any case) under which benchmarks keep their images, in order of preference."""
MASK_FOLDERS = ("gt", "gts", "groundtruth", "groundtruths", "ground_truth", "ground-truth", "binary", "masks", "mask")
"""Names (in any case) under which benchmarks keep their masks, in order of preference."""
_NOT_DATA = frozenset({"__macosx", "@eadir", "$recycle.bin", "thumbs"})
_OUR_RESULTS = frozenset({"report.json", "index.html", "masks"})


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundImage:
    """An image file below a root.

    Attributes
    ----------
    path : Path
        Where it lies.
    name : str
        Relative POSIX path, without the ``image`` folder of a benchmark layout.
    layout : Layout or None
        The benchmark layout it belongs to.
    """

    path: Path
    name: str
    layout: Layout | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A folder of images beside a folder of their masks.

    Attributes
    ----------
    prefix : str
        Relative POSIX path of the folder that holds both; ``""`` for the root itself.
    image_dir, mask_dir : Path
        They are the same tree twice: ``image/GROUP/x.jpg`` and ``gt/GROUP/x.png``. Where masks lie below their own
        images (``GROUP/x.jpg`` and ``GROUP/gt/x.png``), `image_dir` is the parent of `mask_dir`.
    """

    prefix: str
    image_dir: Path
    mask_dir: Path


@dataclass(kw_only=True, slots=True)
class _Walk:
    """State of one walk: folders already seen, and links put off until all real folders are done."""

    seen: set[tuple[int, int]] = field(default_factory=set)
    links: deque[tuple[Path, str, Layout | None]] = field(default_factory=deque)
    excluded: tuple[Path, ...] = ()


def iter_images(root: Path, *, exclude: Iterable[str | os.PathLike[str]] = ()) -> Iterator[FoundImage]:
    """Find every image file below a folder.

    Passed over: hidden names, ``__MACOSX`` and the like, `exclude`, results of an earlier run, the mask folders of
    benchmark layouts. Linked folders are followed, each folder once however many links lead to it, and after the
    real ones.

    Parameters
    ----------
    root : Path
    exclude : iterable of path
        Folders left out with all below them; one that contains `root` itself has no effect.

    Yields
    ------
    FoundImage
        Folder by folder; within a folder in natural order. The order does not depend on the file system.

    Raises
    ------
    DataError
        `root` does not exist, is not a folder, or cannot be listed.
    """
    check_folder(root)
    real_root = root.resolve()
    excluded = tuple(path for path in (Path(item).resolve() for item in exclude) if not real_root.is_relative_to(path))
    walk = _Walk(excluded=excluded)
    yield from _walk_folder(root, "", None, walk)
    while walk.links:
        yield from _walk_folder(*walk.links.popleft(), walk)


def check_folder(root: Path) -> None:
    """Raise a `DataError` unless `root` is a folder."""
    if not root.exists():
        raise DataError(f"{root}: no such folder; check the path")
    if not root.is_dir():
        raise DataError(f"{root}: is a file, not a folder; give the folder that holds the groups")


def is_image_name(name: str) -> bool:
    """Whether a file name has an accepted extension and is not hidden."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in readable_suffixes()


def _walk_folder(folder: Path, prefix: str, layout: Layout | None, walk: _Walk) -> Iterator[FoundImage]:
    entries = _list_once(folder, walk, is_root=not prefix)
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry.name for entry in entries if not entry.is_dir() and is_image_name(entry.name)]
    if {entry.name for entry in entries} >= _OUR_RESULTS:
        logger.warning("%s: looks like the results of an earlier run; not searched for images", folder)
        return
    names = [entry.name for entry in folders]
    image_name, mask_name = first_named(names, IMAGE_FOLDERS), first_named(names, MASK_FOLDERS)
    if layout is None and mask_name is not None:
        if image_name is not None:
            layout = Layout(prefix=prefix, image_dir=folder / image_name, mask_dir=folder / mask_name)
            yield from _walk_folder(layout.image_dir, prefix, layout, walk)
            return
        if _masks_of(folder / mask_name, files):
            layout = Layout(prefix=prefix, image_dir=folder, mask_dir=folder / mask_name)
            folders = [entry for entry in folders if entry.name != mask_name]
    for name in files:
        yield FoundImage(path=folder / name, name=_join(prefix, name), layout=layout)
    for entry in folders:
        below = (folder / entry.name, _join(prefix, entry.name), layout)
        if entry.is_symlink():
            walk.links.append(below)
        else:
            yield from _walk_folder(*below, walk)


def first_named(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Of `names`, the one that comes first in `wanted` (compared without case), or None."""
    ranked = [(wanted.index(name.casefold()), name) for name in names if name.casefold() in wanted]
    return min(ranked)[1] if ranked else None


def _list_once(folder: Path, walk: _Walk, *, is_root: bool) -> list[os.DirEntry[str]]:
    """Entries worth a look, in natural order; nothing for a folder that was seen before or is excluded."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in walk.seen:
            return []
        real = folder.resolve()
        if any(real.is_relative_to(path) for path in walk.excluded):
            return []
        walk.seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        message = f"{folder}: cannot be listed ({error.strerror or error}); check its permissions"
        if is_root:
            raise DataError(message) from error
        logger.warning("%s; its images are left out", message)
        return []
    entries = [entry for entry in entries if entry.name.casefold() not in _NOT_DATA]
    return sorted(entries, key=lambda entry: natural_key(entry.name))


def _masks_of(mask_dir: Path, image_names: Sequence[str]) -> bool:
    """Whether a folder beside images holds masks of just these images, and nothing else."""
    try:
        stems = {path.stem for path in mask_dir.iterdir() if is_image_name(path.name)}
    except OSError:
        return False
    return bool(stems) and stems <= {PurePosixPath(name).stem for name in image_names}


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
