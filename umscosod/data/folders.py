"""Searches folders for images, files and groups."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from umscosod.data.files import kind_of_results, real_path
from umscosod.data.images import PICTURE_SUFFIXES, readable_suffixes
from umscosod.data.naming import natural_key
from umscosod.errors import DataError, reason_of

logger = logging.getLogger(__name__)

MAX_ENTRIES = 1_000_000
"""Number of names after which a walk stops: the root may be a whole disk, or links may multiply."""

_Ids = frozenset[tuple[int, int]]


def walk_files(root: Path) -> Iterator[Path]:
    """List all entries below a folder that are no folders, by name, folder by folder.

    Names that start with a dot are skipped. Linked folders are followed, except links to a folder on the path to them.
    To find images to label, use `umscosod.data.folders.iter_images` instead: it knows layouts, results and names that
    are no data, and reads a folder once even if many links point to it.

    Parameters
    ----------
    root : Path

    Yields
    ------
    Path
        `root` and a name below it; not always a regular file.

    Raises
    ------
    DataError
        `root` cannot be listed, or more than `MAX_ENTRIES` names are below it. (The log names an unreadable folder
        further down.)
    """
    home = real_path(root)
    try:
        above = [folder.stat() for folder in (home, *home.parents)]
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({reason_of(error)}); check the path") from error
    waiting: list[tuple[Path, _Ids]] = [(root, frozenset((one.st_dev, one.st_ino) for one in above))]
    seen = 0
    while waiting:
        folder, on_the_way = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted((one for one in found if not one.name.startswith(".")), key=lambda one: one.name)
        except OSError as error:
            message = f"{folder}: cannot be listed ({reason_of(error)}); check its permissions"
            if folder == root:
                raise DataError(message) from error
            logger.warning("%s; its files are left out", message)
            continue
        seen += len(entries)
        if seen > MAX_ENTRIES:
            raise DataError(f"{root}: more than {MAX_ENTRIES} files are below it; give the folder of the results alone")
        below = []
        for entry in entries:
            identity = _identify(entry)
            if identity is None:
                yield folder / entry.name
            elif identity not in on_the_way:
                below.append((folder / entry.name, on_the_way | {identity}))
        waiting += reversed(below)


def _identify(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """Return device and number of a folder, linked or not; None for other entries and dangling links."""
    try:
        if not entry.is_dir():
            return None
        status = entry.stat()
    except OSError:  # a link to itself
        return None
    return status.st_dev, status.st_ino


IMAGE_FOLDERS = ("image", "images", "img", "imgs", "ims")
"""Names (in any case) of image folders in benchmarks, in order of preference."""
MASK_FOLDERS = ("gt", "gts", "groundtruth", "groundtruths", "ground_truth", "ground-truth", "binary", "masks", "mask")
"""Names (in any case) of mask folders in benchmarks, in order of preference."""
_NOT_DATA = frozenset({"__macosx", "@eadir", "$recycle.bin", "thumbs"})
_NOT_WORTH_A_WORD = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini"})
_THUMBS = "folder called thumbs"
_BACKSLASH = "with a backslash in the name: rename it"
_DEEPEST = 100  # levels of folders below the root: far below the limits of paths and of recursion
_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An image file, or a folder, below a root.

    Attributes
    ----------
    path : Path
        Its path.
    name : str
        Relative POSIX path, without the ``image`` folder of a benchmark layout.
    layout : Layout or None
        The benchmark layout that it belongs to.
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
        The same tree twice: ``image/GROUP/x.jpg`` and ``gt/GROUP/x.png``. If masks are below their own images
        (``GROUP/x.jpg`` and ``GROUP/gt/x.png``), `image_dir` is the parent of `mask_dir`.
    """

    prefix: str
    image_dir: Path
    mask_dir: Path


@dataclass(kw_only=True, slots=True)
class _Walk:
    """State of one walk: folders already read, and links postponed until all real folders are read."""

    root: Path
    excluded: tuple[Path, ...]
    seen: set[tuple[int, int]] = field(default_factory=set)
    links: deque[Found] = field(default_factory=deque)
    untaken: Counter[str] = field(default_factory=Counter)
    level: int = logging.WARNING


def iter_images(
    root: Path,
    *,
    exclude: Iterable[str | os.PathLike[str]] = (),
    untaken: Counter[str] | None = None,
    level: int = logging.WARNING,
) -> Iterator[Found]:
    """Find every image file below a folder.

    The walk skips hidden names, ``__MACOSX`` and the like, `exclude`, results of an earlier run, the mask folders of
    benchmark layouts, and names with a backslash. It follows linked folders after the real ones and reads each folder
    once. It does not follow a link to a folder that contains `root`.

    Parameters
    ----------
    root : Path
    exclude : iterable of path
        Folders to omit with everything below; one that contains `root` itself has no effect.
    untaken : Counter, optional
        Counts the files by kind that are neither images nor skipped; see `log_untaken`.
    level : int
        Log level of messages about omitted folders.

    Yields
    ------
    Found
        Folder by folder; within a folder in natural order. The order does not depend on the file system.

    Raises
    ------
    DataError
        `root` does not exist, is not a folder, is the root of the file system, or cannot be listed.
    """
    check_folder(root)
    real_root = real_path(root)
    excluded = tuple(path for path in map(real_path, exclude) if not real_root.is_relative_to(path))
    counted = Counter() if untaken is None else untaken
    walk = _Walk(root=real_root, excluded=excluded, untaken=counted, level=level)
    yield from _walk(Found(path=root, name="", layout=None), walk)
    while walk.links:
        yield from _walk(walk.links.popleft(), walk)


def check_folder(root: Path) -> None:
    """Raise a `DataError` unless `root` is a folder that can be searched."""
    if "\x00" in str(root):
        raise DataError(f"{str(root)!r} has a NUL; check the path")
    try:
        status = root.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise DataError(f"{root}: no such folder; check the path") from None
        raise DataError(f"{root}: cannot be opened ({error.strerror}); check the path") from error
    if not stat.S_ISDIR(status.st_mode):
        raise DataError(f"{root}: is a file, not a folder; give the folder that holds the groups")
    if real_path(root) == Path(real_path(root).anchor):
        raise DataError(f"{root}: is the root of the whole file system; give the folder that holds the groups")


def refuse_images_in(out: Path, *, exclude: Iterable[Path] = (), what: str = "--out") -> None:
    """Refuse a folder of images as a folder of results: later runs would not search it for images.

    Parameters
    ----------
    out : Path
        Need not exist. A folder that holds results already is accepted.
    exclude : iterable of Path
        Folders in it whose images do not count.
    what : str
        The user's name for the folder.

    Raises
    ------
    DataError
        There is an image in the folder, or below it.
    """
    if out.is_dir() and not kind_of_results(out):
        found = next(iter_images(out, exclude=exclude, level=logging.DEBUG), None)
        if found is not None:
            raise DataError(
                f"{what} {out} holds images, such as {found.name}, and would not be searched for them any more; choose "
                "a folder without images"
            )


def is_image_name(name: str) -> bool:
    """Whether a file name has an accepted extension and is not hidden."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in readable_suffixes()


def log_untaken(root: Path, untaken: Counter[str]) -> None:
    """Log one warning with the kinds and counts of the files that are no images, if any."""
    if untaken:
        logger.warning("%s: %s", root, describe_untaken(untaken))


def describe_untaken(untaken: Counter[str]) -> str:
    """Describe other files by count and kind, the most frequent first: ``not taken: 3 .heic (...), 2 .mp4``."""
    kinds = [f"{count} {kind}{_hint(kind)}" for kind, count in sorted(untaken.items(), key=lambda item: -item[1])]
    more = ", ..." if len(kinds) > 2 * _SHOWN else ""
    return f"not taken: {', '.join(kinds[: 2 * _SHOWN])}{more}"


def _hint(kind: str) -> str:
    if kind in (".heic", ".heif"):
        return " (install pillow-heif to read them)"
    return " (this installation of Pillow cannot read them)" if kind in PICTURE_SUFFIXES else ""


def _walk(start: Found, walk: _Walk) -> Iterator[Found]:
    """Yield images of a folder, then of those below in natural order; no recursion, as folders may nest deeply."""
    waiting = [start]
    while waiting:
        here = waiting.pop()
        entries = _list_once(here, walk)
        if entries is None:
            continue
        folders = [entry for entry in entries if _is_folder(entry)]
        files = [entry.name for entry in entries if not _is_folder(entry)]
        images = [name for name in files if is_image_name(name)]
        inner = _layout_of(here, [entry.name for entry in folders], images)
        if inner is not None and inner.image_dir != here.path:
            _warn_beside(inner, folders, images, walk.level)
            waiting.append(Found(path=inner.image_dir, name=here.name, layout=inner))
            continue
        layout = here.layout if inner is None else inner
        others = [name for name in files if not is_image_name(name) and name.casefold() not in _NOT_WORTH_A_WORD]
        walk.untaken.update(PurePosixPath(name).suffix.lower() or "without an extension" for name in others)
        for name in images:
            full = _join(here.name, name)
            if "\\" in full:  # legal here, but a separator on other systems: unusable for an output
                walk.untaken[_BACKSLASH] += 1
                continue
            yield Found(path=here.path / name, name=full, layout=layout)
        below: list[Found] = []
        for entry in folders:
            folder = Found(path=here.path / entry.name, name=_join(here.name, entry.name), layout=layout)
            if inner is not None and folder.path == inner.mask_dir:
                continue
            (walk.links if entry.is_symlink() else below).append(folder)
        waiting.extend(reversed(below))


def _layout_of(here: Found, names: Sequence[str], images: Sequence[str]) -> Layout | None:
    """Return the benchmark layout that begins in this folder, or None."""
    image_name, mask_name = first_named(names, IMAGE_FOLDERS), first_named(names, MASK_FOLDERS)
    if here.layout is not None or mask_name is None:
        return None
    if image_name is not None:
        return Layout(prefix=here.name, image_dir=here.path / image_name, mask_dir=here.path / mask_name)
    if _masks_of(here.path / mask_name, images):
        return Layout(prefix=here.name, image_dir=here.path, mask_dir=here.path / mask_name)
    return None


def _warn_beside(layout: Layout, folders: Sequence[os.DirEntry[str]], images: Sequence[str], level: int) -> None:
    """Warn of entries beside the two trees of a layout, which are not searched: depth maps, edges, other groups."""
    trees = (layout.image_dir, layout.mask_dir)
    beside = [entry.name for entry in folders if Path(entry.path) not in trees] + list(images)
    if beside:
        logger.log(
            level,
            "%s: only %s is searched for images, and %s for their masks; not what lies beside them: %s%s; "
            "move into %s what belongs to it, or give it by itself",
            layout.image_dir.parent,
            layout.image_dir.name,
            layout.mask_dir.name,
            ", ".join(beside[:_SHOWN]),
            ", ..." if len(beside) > _SHOWN else "",
            layout.image_dir.name,
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link: a file that cannot be opened
        return False


def first_named(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the member of `names` that comes first in `wanted` (compared without case), or None."""
    ranked = [(wanted.index(name.casefold()), name) for name in names if name.casefold() in wanted]
    return min(ranked)[1] if ranked else None


def _list_once(here: Found, walk: _Walk) -> list[os.DirEntry[str]] | None:
    """Return the entries to search, in natural order; None for a folder that must not be searched (again)."""
    folder = here.path
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in walk.seen:
            return None
        real = real_path(folder)
        if any(real.is_relative_to(path) for path in walk.excluded):
            if folder.is_symlink():
                logger.log(
                    walk.level, "%s: is a link into %s, which is left out; its images are left out too", folder, real
                )
            return None
        walk.seen.add((status.st_dev, status.st_ino))
        if real != walk.root and walk.root.is_relative_to(real):
            logger.log(
                walk.level, "%s: is a link to %s, which holds the folder that is searched; not followed", folder, real
            )
            return None
        if here.name.count("/") >= _DEEPEST:
            logger.log(walk.level, "%s: lies more than %d folders deep; its images are left out", folder, _DEEPEST)
            return None
        if kind_of_results(folder):
            if not here.name and here.layout is None:
                raise DataError(f"{folder}: holds results of this program; give the folder that holds the images")
            logger.log(walk.level, "%s: looks like the results of an earlier run; not searched for images", folder)
            return None
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        message = f"{folder}: cannot be listed ({reason_of(error)}); check its permissions"
        if not here.name:
            raise DataError(message) from error
        logger.log(walk.level, "%s; its images are left out", message)
        return None
    walk.untaken.update(_THUMBS for entry in entries if entry.name.casefold() == "thumbs" and _is_folder(entry))
    entries = [entry for entry in entries if entry.name.casefold() not in _NOT_DATA]
    return sorted(entries, key=lambda entry: natural_key(entry.name))


def _masks_of(mask_dir: Path, image_names: Sequence[str]) -> bool:
    """Whether a folder beside images holds only masks of these images."""
    try:
        stems = {path.stem for path in mask_dir.iterdir() if is_image_name(path.name)}
    except OSError:
        return False
    return bool(stems) and stems <= {PurePosixPath(name).stem for name in image_names}


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
